package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox without namespaces has two processes of ours. The keeper is outside of it: it starts the command,
// gathers its orphans and sees that nothing is left. Between the two, a process confines itself and then becomes the command.

// KeeperName is argv[0] of the keeper: sesame itself, executed again.
const KeeperName = "sesame-keeper"

// confinedName is argv[0] of the process that becomes the command.
const confinedName = "sesame-confined"

// confinedStatus is a descriptor of the process that becomes the command: closed by becoming it, else it says why not.
// Those before it are as the keeper has them: the socket, on which only the filter's listener is sent, and the plan.
const confinedStatus = 5

// keepConfined is the keeper's life.
func keepConfined() error {
	if err := unix.CloseRange(shimSocket, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	pl, plan, err := readPlan()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("not dumpable: %w", err)
	}
	scoped, err := enterScope()
	if err != nil {
		return err
	}
	if !pl.Terminal {
		if _, err := unix.Setsid(); err != nil {
			return fmt.Errorf("setsid: %w", err)
		}
	}
	// Whoever wants the keeper to end means the command; it goes when that has gone.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	pid, failed, err := startConfined(plan)
	if err != nil {
		return fmt.Errorf("start the confined process: %w", err)
	}
	defer func() {
		killRest(scoped)
		removeRun(pl.Confine.Remove)
	}()
	if failed != nil {
		return Send(shimSocket, *failed, nil)
	}
	if err := Send(shimSocket, Message{Started: true}, nil); err != nil {
		return err
	}
	var orphaned atomic.Bool
	go obeyParent(pid, func(parentGone bool) {
		orphaned.Store(parentGone)
		// A tracer keeps the end of the command for itself as long as it lives. This is another thread than the one that is in the
		// scope: a signal to "all" from here would be one to all of the machine.
		for {
			killDescendants()
			time.Sleep(time.Millisecond)
		}
	})
	ended := reap(pid)
	killRest(scoped)
	removeRun(pl.Confine.Remove)
	if orphaned.Load() {
		return nil // nobody to tell
	}
	return Send(shimSocket, end(ended), nil)
}

// enterScope puts this thread, and all that is started from it, where signals reach no farther. The command is
// in a scope of its own within: it cannot signal the keeper, but one signal of the keeper's to "all" hits all of it
// and nothing else. It tells whether that is so.
func enterScope() (bool, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("no_new_privs: %w", err)
	}
	if err := scopeSignals(); err != nil {
		return false, fmt.Errorf("landlock: %w", err)
	}
	// To be sure: "all" would otherwise be all of the user's processes.
	return LandlockABI() >= abiScopes && errors.Is(unix.Kill(os.Getppid(), 0), unix.EPERM), nil
}

// startConfined starts the process that becomes the command, and waits until it has, or has failed to.
func startConfined(plan []byte) (pid int, failed *Message, err error) {
	data, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, nil, err
	}
	f := os.NewFile(uintptr(data), "plan")
	defer f.Close()
	if _, err := f.Write(plan); err != nil {
		return 0, nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, nil, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, nil, err
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{confinedName}, &syscall.ProcAttr{
		Env:   []string{"GOMAXPROCS=1", "GOGC=off"},
		Files: []uintptr{0, 1, 2, shimSocket, uintptr(data), uintptr(pipe[1])},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	unix.Close(pipe[1])
	status := os.NewFile(uintptr(pipe[0]), "status")
	defer status.Close()
	if err != nil {
		return 0, nil, err
	}
	said, err := io.ReadAll(status)
	if err != nil || len(said) == 0 {
		return pid, nil, err
	}
	m, err := ParseMessage(said)
	return pid, &m, err
}

// killRest kills and reaps all that is left. It must be called on the thread that is in the scope.
func killRest(scoped bool) {
	for {
		if scoped {
			_ = unix.Kill(-1, unix.SIGKILL)
		} else {
			killDescendants()
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.ECHILD) {
				return
			}
			if pid == 0 {
				break // some are still dying
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// killDescendants kills all processes that this one is an ancestor of, as /proc has them. Each is stopped before
// its children are looked for, so that it has no more of them.
func killDescendants() {
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 {
			if parent, err := strconv.Atoi(fields[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	var kill func(int)
	kill = func(of int) {
		for _, pid := range children[of] {
			_ = unix.Kill(pid, unix.SIGSTOP)
			kill(pid)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	kill(os.Getpid())
}

// removeRun removes the run's directory, also what the command took the permissions of.
func removeRun(dir string) {
	if dir == "" || os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir) // what is left is in the user's own temporary directory
}

// runConfined confines this process and makes it the command. Only where it cannot does it return.
func runConfined() error {
	_, err := unix.Write(confinedStatus, becomeCommand().Packet())
	return err
}

// becomeCommand returns only if it could not, with the reason.
func becomeCommand() Message {
	fail := func(what string, err error) Message { return Message{Failed: fmt.Sprintf("%s: %v", what, err)} }
	if err := unix.CloseRange(shimSocket, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fail("close_range", err)
	}
	pl, _, err := readPlan()
	if err != nil {
		return fail("start", err)
	}
	if !pl.Terminal {
		if _, err := unix.Setsid(); err != nil {
			return fail("setsid", err)
		}
	}
	if err := unix.Chdir(pl.Dir); err != nil {
		return fail("working directory "+pl.Dir, err)
	}
	path, err := lookPath(pl.Args[0], pl.Env, pl.Dir)
	if err != nil {
		return Message{NoCommand: err.Error(), Code: noCommandCode(err)}
	}
	if err := limitProcesses(pl.Processes); err != nil {
		return fail("confine", err)
	}
	listener, err := confine(pl.Confine, pl.Strict)
	if err != nil {
		return fail("confine", err)
	}
	if err := Send(shimSocket, Message{Listening: true}, []int{listener}); err != nil {
		return fail("hand over the listener", err)
	}
	err = syscall.Exec(path, pl.Args, pl.Env)
	return Message{NoCommand: fmt.Sprintf("%s: %v", pl.Args[0], err), Code: noCommandCode(err)}
}

// confine takes from this thread all but what the grants say, and returns the listener of its filter.
func confine(c *Confine, strict bool) (int, error) {
	abi := LandlockABI()
	rules, err := makeRuleset(abi, append(c.Grants, terminals()...))
	if err != nil {
		return -1, fmt.Errorf("landlock: %w", err)
	}
	// A crash would write memory to wherever the host gathers such things.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return -1, fmt.Errorf("no core dumps: %w", err)
	}
	if err := dropAllCapabilities(); err != nil {
		return -1, err
	}
	if err := restrictSelf(rules); err != nil {
		return -1, fmt.Errorf("landlock: %w", err)
	}
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	more := confinedRules(abi)
	if strict {
		more = slices.Concat(strictRules, more)
	}
	listener, err := installFilter(filterProgram(more), flags)
	if errors.Is(err, unix.EBUSY) {
		return -1, fmt.Errorf("%w: this place is supervised in the same way already", err)
	}
	return listener, err
}

// terminals grants the terminals that the command was started on, and no others.
func terminals() []Grant {
	var grants []Grant
	for fd := range 3 {
		path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil && (strings.HasPrefix(path, "/dev/pts/") || strings.HasPrefix(path, "/dev/tty")) {
			grants = append(grants, Grant{Path: path, Access: AccessDevice})
		}
	}
	return grants
}
