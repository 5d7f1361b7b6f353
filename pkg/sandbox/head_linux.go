package sandbox

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// head is the first process of a sandbox. It needs to know nothing of the policy until its plan comes, so it may be
// started before that is known; without a plan it ends.
type head struct {
	cmd    *exec.Cmd
	socket *os.File      // messages both ways
	to     *os.File      // where its plan is to be written
	up     func() error  // waits until it was started
	runs   chan struct{} // closed when the command runs
	done   chan struct{} // closed when nothing more is wanted of it
	giveUp func()        // closes done
	closed bool
	mu     sync.Mutex // of closed and of sending, which must not meet a number that is another file's by now
}

// newHead starts the process in the background, with the streams of c.
func newHead(args []string, attr *syscall.SysProcAttr, c *Command) *head {
	h := &head{runs: make(chan struct{}), done: make(chan struct{})}
	h.giveUp = sync.OnceFunc(func() { close(h.done) })
	plan, to, err := os.Pipe()
	if err != nil {
		h.up = func() error { return err }
		return h
	}
	h.to = to
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		plan.Close()
		h.up = func() error { return fmt.Errorf("socketpair: %w", err) }
		return h
	}
	h.socket = os.NewFile(uintptr(pair[0]), "shim")
	theirs := os.NewFile(uintptr(pair[1]), "parent")

	h.cmd = exec.Command("/proc/self/exe") //nolint:noctx // the context comes with the policy, in startBox
	h.cmd.Args = args
	// The command's environment is in the plan; this is the shim's own. It does one thing after the other and lives
	// briefly or sleeps: more threads, collecting garbage, and asking the cgroup how many threads to have, would only cost.
	h.cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}
	h.cmd.Stdin, h.cmd.Stdout, h.cmd.Stderr = h.input(c.Stdin), throughPipe(c.Stdout), throughPipe(c.Stderr)
	h.cmd.WaitDelay = copyDelay
	h.cmd.ExtraFiles = []*os.File{theirs, plan}
	h.cmd.SysProcAttr = attr
	spawned := make(chan error, 1)
	h.up = sync.OnceValue(func() error { return <-spawned })
	go func() {
		// The kernel sends the death signal when the *thread* that started the process ends.
		runtime.LockOSThread()
		err := h.cmd.Start()
		plan.Close()
		theirs.Close()
		spawned <- err
		if err == nil {
			<-h.done
		}
	}()
	runtime.Gosched() // it is what everything waits for in the end: it goes first
	return h
}

// namespacesHead is the first process of a sandbox of the tier namespaces, in them.
func namespacesHead(c *Command) *head {
	return newHead([]string{shim.Name, strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid())}, &syscall.SysProcAttr{
		// The ids are mapped by the shim itself, because with CLONE_VFORK this process's thread sleeps until the shim is
		// there. It spares a copy of this process's page tables.
		Cloneflags: unix.CLONE_VFORK | unix.CLONE_VM |
			unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		// The shim has to build the sandbox after an exec, which takes capabilities from an ordinary uid.
		AmbientCaps: setupCapabilities,
		Pdeathsig:   syscall.SIGKILL,
	}, c)
}

// abandon ends a process whose sandbox is not wanted after all, or has failed, and waits for its end.
func (h *head) abandon() {
	h.giveUp()
	if h.to != nil {
		h.to.Close() // for the second time, if the plan was sent
	}
	if h.up() == nil {
		_ = h.cmd.Wait() // without a plan, and without the thread that started it, it ends
	}
}

func (h *head) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.giveUp()
	if h.socket != nil {
		h.socket.Close()
	}
}

// signal has the process send a signal to the command.
func (h *head) signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v cannot be sent", sig)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return os.ErrProcessDone
	}
	return shim.Send(int(h.socket.Fd()), shim.Message{Signal: s}, nil)
}

// setupCapabilities are what building the sandbox takes, in the new user namespace only.
var setupCapabilities = []uintptr{
	unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_SYS_CHROOT,
	unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_CHOWN, unix.CAP_MKNOD, unix.CAP_SETUID, unix.CAP_SETGID,
}

// copyDelay is how long after the end of the command its streams may still be copied.
const copyDelay = 10 * time.Second

// input is what the process gets for the command's input. What has to be copied is not read before the command
// runs: if it never does, it is left to whoever comes next.
func (h *head) input(r io.Reader) io.Reader {
	if f, ok := r.(*os.File); r == nil || ok && !reopenable(f) {
		return r
	}
	return &heldBack{r, h}
}

type heldBack struct {
	from io.Reader
	head *head
}

func (r *heldBack) Read(p []byte) (int, error) {
	select {
	case <-r.head.runs:
		return r.from.Read(p)
	case <-r.head.done:
		return 0, io.EOF
	}
}

// throughPipe keeps a file on the host from being handed into the sandbox: by /proc/self/fd the command
// could open it again, for writing, past all mounts. Terminals, pipes and sockets go in as they are.
func throughPipe(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && reopenable(f) {
		return struct{ io.Writer }{f}
	}
	return w
}

func reopenable(f *os.File) bool {
	info, err := f.Stat()
	return err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeCharDevice) == 0
}
