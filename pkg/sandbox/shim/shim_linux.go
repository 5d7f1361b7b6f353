package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors that the parent hands to the shim.
const (
	shimSocket = 3 // messages both ways, and the listeners
	shimPlan   = 4 // the plan, to be read to its end
)

// init makes one of the processes of a sandbox of a process that was started as one, and then does not return. It
// is not a function to be called from main, because all that a large program initialises before main would be part of the
// start of every sandbox.
func init() {
	if len(os.Args) == 0 {
		return
	}
	run, ok := map[string]func() error{KeeperName: keepConfined, confinedName: runConfined}[os.Args[0]]
	if !ok {
		return
	}
	// What is dropped is dropped for this thread, and the command is forked from it.
	runtime.LockOSThread()
	if err := run(); err != nil {
		// The parent is told if it still listens; there is nobody else to tell.
		_ = Send(shimSocket, Message{Failed: err.Error()}, nil)
		syscall.Exit(1)
	}
	syscall.Exit(0) // at once: how the command ended was told
}

// readPlan reads the plan to its end; without one the parent has thought better of it.
func readPlan() (pl *Plan, data []byte, err error) {
	f := os.NewFile(shimPlan, "plan")
	data, err = io.ReadAll(f)
	f.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("read the plan: %w", err)
	}
	if len(data) == 0 {
		syscall.Exit(1)
	}
	if pl, err = DecodePlan(data); err != nil {
		return nil, nil, fmt.Errorf("read the plan: %w", err)
	}
	return pl, data, nil
}

// end says with the command's end whether it left anything behind. If not, the parent need not wait for this process;
// then nobody who reads the command's output must either.
func end(m Message) Message {
	for {
		switch got, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); {
		case errors.Is(err, syscall.EINTR), err == nil && got > 0: // the next one
		case errors.Is(err, syscall.ECHILD):
			for fd := range 3 {
				unix.Close(fd)
			}
			m.Alone = true
			return m
		default:
			return m
		}
	}
}

// obeyParent passes signals on, and ends all when it is told to or the parent is gone: its death
// signal can be lost with the thread that it belongs to, the end of the socket cannot.
func obeyParent(pid int, endAll func(parentGone bool)) {
	for {
		m, err := receive(shimSocket)
		if err != nil {
			endAll(true)
			return
		}
		if m.Signal == syscall.SIGKILL {
			go endAll(false)
		} else if m.Signal != 0 {
			_ = syscall.Kill(pid, m.Signal) // it may have ended meanwhile
		}
	}
}

// reap waits for the command and on the way for whatever its orphans leave behind.
func reap(pid int) Message {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return Message{Ended: true, Code: 255}
		case got == pid && ws.Signaled():
			return Message{Ended: true, Code: 128 + int(ws.Signal()), Signal: ws.Signal()}
		case got == pid && ws.Exited(): // and not just stopped under ptrace
			return Message{Ended: true, Code: ws.ExitStatus()}
		}
	}
}

// lookPath finds the command as a shell inside would.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if err := executable(name); err != nil {
			return "", &exec.Error{Name: name, Err: err}
		}
		return name, nil
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, d := range filepath.SplitList(path) {
		if p := filepath.Join(d, name); filepath.IsAbs(p) && executable(p) == nil {
			return p, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return syscall.EISDIR
	}
	return unix.Access(path, unix.X_OK)
}

// NoCommand is the message that a command cannot be executed.
func NoCommand(name string, why error) Message {
	if errors.Is(why, os.ErrNotExist) && !strings.Contains(name, "/") {
		why = exec.ErrNotFound
	}
	return Message{NoCommand: (&exec.Error{Name: name, Err: why}).Error(), Code: noCommandCode(why)}
}

// noCommandCode is what shells exit with: 127 for what is not there, 126 for what cannot be executed.
func noCommandCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}
