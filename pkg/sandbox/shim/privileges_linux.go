package shim

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropPrivileges gives up every capability for good, forbids gaining any by executing
// something, and installs the system call filter, for this thread and what is forked from it.
// The other threads of this process only get the filter, and later lose their capabilities.
func dropPrivileges(pl *Plan) error {
	if err := dropAllCapabilities(); err != nil {
		return err
	}
	if err := scopeSignals(); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	var more []rule
	if pl.Strict {
		more = strictRules
		if err := limitExecution(pl); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
	}
	_, err := installFilter(filterProgram(more), unix.SECCOMP_FILTER_FLAG_TSYNC)
	return err
}

// dropAllCapabilities gives up every capability for good and forbids gaining any by executing something.
func dropAllCapabilities() error {
	// Memory and descriptors of PID 1 are not for the command to see, though it has the same uid.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("not dumpable: %w", err)
	}
	if err := dropBounding(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// dropBounding sees that no capability can come back. It takes one to do that: without namespaces an ordinary user
// has none, and that nothing can be gained by executing something (no_new_privs) has to do.
func dropBounding() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	if have[0].Effective&(1<<unix.CAP_SETPCAP) == 0 {
		return nil
	}
	for c := 0; ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && c > unix.CAP_AUDIT_READ {
			break // one past the kernel's last
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	// Without this, root's uid alone would give capabilities back at the next exec.
	const noRoot, noRootLocked, noSetuidFixup, noSetuidFixupLocked, noAmbient, noAmbientLocked = 1, 2, 4, 8, 64, 128
	const bits = noRoot | noRootLocked | noSetuidFixup | noSetuidFixupLocked | noAmbient | noAmbientLocked
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, bits, 0, 0, 0); err != nil {
		return fmt.Errorf("lock secure bits: %w", err)
	}
	return nil
}

// scopeSignals keeps the command from signalling anything outside of the sandbox, where the kernel's Landlock can
// (version 6, Linux 6.12). At a terminal the command shares the caller's process group, which kill(0) reaches past
// the pid namespace.
func scopeSignals() error {
	if LandlockABI() < abiScopes {
		return nil
	}
	// Beside rules about files, a layer that says nothing of moving files between directories refuses it.
	rules, err := newRuleset(&unix.LandlockRulesetAttr{
		Handled_access_fs: unix.LANDLOCK_ACCESS_FS_REFER, Scoped: unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET,
	})
	if err != nil {
		return err
	}
	defer unix.Close(rules)
	if err := grant(rules, "/", unix.LANDLOCK_ACCESS_FS_REFER); err != nil {
		return err
	}
	return restrictSelf(rules)
}

// limitExecution has programs started from what the plan shows of the host only, and from nothing that the sandbox has of its own:
// the second lock beside mounts that nothing can be executed on, and the only one for Libraries.
func limitExecution(pl *Plan) error {
	if LandlockABI() < abiRefer {
		return nil
	}
	// What is not handled of moving files between directories would be refused.
	const handled = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_REFER
	rules, err := newRuleset(&unix.LandlockRulesetAttr{Handled_access_fs: handled})
	if err != nil {
		return err
	}
	defer unix.Close(rules)
	if err := grant(rules, "/", unix.LANDLOCK_ACCESS_FS_REFER); err != nil {
		return err
	}
	for _, op := range pl.Mounts {
		if op.Kind != ReadOnly && op.Kind != ReadWrite {
			continue
		}
		if err := grant(rules, op.Path, handled); err != nil {
			return err
		}
	}
	return restrictSelf(rules)
}

// grant adds a rule for a path to a ruleset.
func grant(rules int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		return nil // who may not go there needs no rule for it
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	return addRule(rules, fd, access)
}

// dropCapabilities drops them on this thread.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// dropCapabilitiesOfAll drops them on every thread, which takes longer than to start the command. A build with cgo
// cannot (the race detector's builds are such).
func dropCapabilitiesOfAll() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno != 0 && !errors.Is(errno, syscall.ENOTSUP) {
		return errno
	}
	return nil
}
