package shim

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Versions of Landlock's interface and what they brought; what a kernel lacks is not asked of it.
const (
	abiRefer    = 2 // Linux 5.19: renames and links between directories
	abiTruncate = 3 // Linux 6.2
	abiNetwork  = 4 // Linux 6.7: TCP ports
	abiIoctl    = 5 // Linux 6.10: ioctl on devices
	abiScopes   = 6 // Linux 6.12: signals, abstract sockets
)

// LandlockABIMin is the oldest version that a sandbox can be made of: before it, no file could be moved
// from one directory to another.
const LandlockABIMin = abiRefer

// LandlockABIScopes is the first version that holds signals.
const LandlockABIScopes = abiScopes

// LandlockABI is the version of Landlock's interface here, 0 where there is none.
func LandlockABI() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

func newRuleset(attr *unix.LandlockRulesetAttr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr), 0)
	if errno != 0 {
		return -1, fmt.Errorf("make a ruleset: %w", errno)
	}
	return int(fd), nil
}

func restrictSelf(ruleset int) error {
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("restrict: %w", errno)
	}
	return nil
}

// What one may do with a file, and with a directory only.
const (
	readRights  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	fileRights  = readRights | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	makeRights  = unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	entryRights = makeRights | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REFER
	deviceNodes = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
)

var accessRights = map[Access]uint64{
	AccessRead:   readRights | unix.LANDLOCK_ACCESS_FS_READ_DIR,
	AccessWrite:  fileRights&^unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_READ_DIR | entryRights,
	AccessData:   (fileRights&^unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_READ_DIR | entryRights) &^ unix.LANDLOCK_ACCESS_FS_EXECUTE,
	AccessDevice: fileRights &^ unix.LANDLOCK_ACCESS_FS_EXECUTE,
}

// handled is all that Landlock of a version can hold.
func handled(abi int) *unix.LandlockRulesetAttr {
	attr := &unix.LandlockRulesetAttr{Handled_access_fs: fileRights | entryRights | deviceNodes | unix.LANDLOCK_ACCESS_FS_READ_DIR}
	if abi < abiTruncate {
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi < abiIoctl {
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= abiNetwork {
		// No port is allowed: the sandbox's connections are made for it.
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= abiScopes {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	return attr
}

// makeRuleset makes the rules of the grants. A path that is not there any more, or a link by now, is not granted.
func makeRuleset(abi int, grants []Grant) (int, error) {
	attr := handled(abi)
	rules, err := newRuleset(attr)
	if err != nil {
		return -1, err
	}
	for _, g := range grants {
		fd, err := unix.Openat2(unix.AT_FDCWD, g.Path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EACCES) {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", g.Path, err)
		}
		err = addRule(rules, fd, accessRights[g.Access]&attr.Handled_access_fs)
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("allow %s %s: %w", g.Access, g.Path, err)
		}
	}
	return rules, nil
}

// SocketRuleset makes a ruleset under which sockets with a path can be made below the directories, and nowhere else.
func SocketRuleset(dirs []string) (int, error) {
	rules, err := newRuleset(&unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SOCK})
	if err != nil {
		return -1, err
	}
	for _, dir := range dirs {
		fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			continue // it is gone, or a link by now
		}
		err = addRule(rules, fd, unix.LANDLOCK_ACCESS_FS_MAKE_SOCK)
		unix.Close(fd)
		if err != nil {
			unix.Close(rules)
			return -1, fmt.Errorf("allow sockets in %s: %w", dir, err)
		}
	}
	return rules, nil
}

// Restrict puts this thread under a ruleset, for good.
func Restrict(ruleset int) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return restrictSelf(ruleset)
}

func addRule(rules, fd int, access uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fileRights
	}
	if access == 0 {
		return nil
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
