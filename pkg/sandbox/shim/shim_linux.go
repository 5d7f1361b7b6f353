package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Name is argv[0] of the process that builds the sandbox and is its PID 1: sesame itself, executed again.
const Name = "sesame-sandbox"

// Descriptors that the parent hands to the shim.
const (
	shimSocket = 3 // messages both ways, and the listeners
	shimPlan   = 4 // the plan, to be read to its end
)

// init makes the shim of a process that was started as one, and then does not return. It is not a function to be called from
// main, because all that a large program initialises before main would be part of the start of every
// sandbox; the packages that this one needs are few, and Go initialises a package as soon as it can.
func init() {
	if len(os.Args) == 0 {
		return
	}
	run, ok := map[string]func() error{Name: runShim, KeeperName: keepConfined, confinedName: runConfined}[os.Args[0]]
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

func runShim() error {
	// What follows is for new namespaces only: done in the caller's, it would take his network away.
	if os.Getpid() != 1 || len(os.Args) != 3 {
		return errors.New("not the first process of a sandbox")
	}
	if err := mapIDs(os.Args[1], os.Args[2]); err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	// Nothing that the caller's shell or CI left open may reach the command.
	if err := unix.CloseRange(shimSocket, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	// What every sandbox needs is made while the parent still makes the plan.
	nameservers, err := openNetwork()
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	r, err := newRoot()
	if err != nil {
		return fmt.Errorf("files: %w", err)
	}
	pl, _, err := readPlan()
	if err != nil {
		return err
	}
	listeners, err := listenOn(pl.Ports, pl.IPv6)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	listeners = append(nameservers, listeners...)
	if err := Send(shimSocket, Message{Listening: true}, listeners); err != nil {
		return fmt.Errorf("hand over listeners: %w", err)
	}
	for _, fd := range listeners {
		unix.Close(fd)
	}
	if err := r.build(pl); err != nil {
		return fmt.Errorf("files: %w", err)
	}
	for _, n := range r.notices {
		if err := Send(shimSocket, Message{Notice: n}, nil); err != nil {
			return err
		}
	}
	if !pl.Terminal {
		if _, err := unix.Setsid(); err != nil {
			return fmt.Errorf("setsid: %w", err)
		}
	}
	path, err := lookPath(pl.Args[0], pl.Env, pl.Dir)
	if err != nil {
		return Send(shimSocket, Message{NoCommand: err.Error(), Code: noCommandCode(err)}, nil)
	}
	if err := dropPrivileges(pl); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	if pl.Terminal {
		// In the caller's process group, keys at the terminal reach PID 1 as well; they are meant for the command.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	}
	pid, err := syscall.ForkExec(path, pl.Args, &syscall.ProcAttr{Dir: pl.Dir, Env: pl.Env, Files: []uintptr{0, 1, 2}})
	if err != nil {
		return Send(shimSocket, Message{NoCommand: fmt.Sprintf("%s: %v", pl.Args[0], err), Code: noCommandCode(err)}, nil)
	}
	// The command cannot make this process's other threads do anything; it is the second lock. Failing ends all.
	if err := dropCapabilitiesOfAll(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := Send(shimSocket, Message{Started: true}, nil); err != nil {
		return err // the parent is gone: ending PID 1 ends all
	}
	go obeyParent(pid, func() { syscall.Exit(1) })
	return Send(shimSocket, end(reap(pid)), nil)
}

// mapIDs makes one id of each kind known in the user namespace, the user's own: files look inside as they do outside.
func mapIDs(uid, gid string) error {
	for _, f := range [][2]string{{"setgroups", "deny"}, {"uid_map", uid + " " + uid + " 1"}, {"gid_map", gid + " " + gid + " 1"}} {
		fd, err := unix.Open("/proc/self/"+f[0], unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", f[0], err)
		}
		_, err = unix.Write(fd, []byte(f[1]))
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", f[0], err)
		}
	}
	return nil
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

// obeyParent passes signals on, and calls gone when the parent is: its death
// signal can be lost with the thread that it belongs to, the end of the socket cannot.
func obeyParent(pid int, gone func()) {
	for {
		m, _, err := Receive(shimSocket)
		if err != nil {
			gone()
			return
		}
		if m.Signal != 0 {
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
		return name, executable(name)
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
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &os.PathError{Op: "exec", Path: path, Err: syscall.EISDIR}
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return &os.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}

// noCommandCode is what shells exit with: 127 for what is not there, 126 for what cannot be executed.
func noCommandCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}
