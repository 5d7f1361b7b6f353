package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// head is the process at the head of a sandbox: its first one, or its keeper. It needs to know nothing of the policy until
// its plan comes, so it may be started before that is known; without a plan it ends.
type head interface {
	// up waits until it was started.
	up() error
	// instruct gives it its plan, and the command its streams.
	instruct(pl *shim.Plan, c *Command) error
	// receive waits for the next thing that it says, with descriptors; the error is io.EOF when that was all.
	receive() (shim.Message, []int, error)
	// runs is called when the command does.
	runs()
	// signal has a signal sent to the command.
	signal(s syscall.Signal) error
	// kill ends it at once.
	kill()
	// wait waits for its end and says how that was.
	wait() (Status, error)
	// drain waits until the command's streams are copied, where they have to be.
	drain() error
	// giveUp tells it that no plan will come.
	giveUp()
	// abandon ends one whose sandbox is not wanted after all, or has failed, and waits for its end.
	abandon()
	// close is called when nothing more is wanted of it.
	close()
}

// line is a socket to a process: messages both ways.
type line struct {
	socket *os.File
	mu     sync.Mutex // of closed and of sending, which must not meet a number that is another file's by now
	closed bool
}

// newLine returns the other end, too.
func newLine() (*line, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return lineOf(pair[0]), os.NewFile(uintptr(pair[1]), "parent"), nil
}

func lineOf(socket int) *line { return &line{socket: os.NewFile(uintptr(socket), "sandbox")} }

func (l *line) send(packet []byte, fds ...int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrProcessDone
	}
	return shim.SendPacket(int(l.socket.Fd()), packet, fds)
}

// hangUp says that nothing more will be sent.
func (l *line) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		_ = unix.Shutdown(int(l.socket.Fd()), unix.SHUT_WR) // the other side may be gone
	}
}

func (l *line) packet(most int) ([]byte, []int, error) {
	return shim.ReceivePacket(int(l.socket.Fd()), most)
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.socket.Close()
	}
}

// itself is this executable under another name.
func itself(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // the context comes with the policy, in startBox
	cmd.Args = []string{name}
	// The command's environment is in the plan; this is the program's own. It does one thing after the other and lives
	// briefly or sleeps: more threads, collecting garbage, and asking the cgroup how many threads to have, would only cost.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}
	return cmd
}

// launch starts a program in the background. What it has of our files is closed then. It returns what waits until it was started.
func launch(cmd *exec.Cmd, stop <-chan struct{}, theirs ...*os.File) (up func() error) {
	cmd.ExtraFiles = theirs
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the *thread* that started the process ends.
		runtime.LockOSThread()
		err := cmd.Start()
		for _, f := range theirs {
			f.Close()
		}
		started <- err
		if err == nil {
			<-stop
		}
	}()
	runtime.Gosched() // it is what everything waits for in the end: it goes first
	return sync.OnceValue(func() error { return <-started })
}

// keeper is the head of a sandbox without namespaces: a process outside of it.
type keeper struct {
	*line
	streams *streams
	cmd     *exec.Cmd
	to      *os.File // where its plan is to be written
	upFunc  func() error
	running chan struct{} // closed when the command runs
	stop    chan struct{} // closed when nothing more is wanted
	stopped sync.Once
}

func newKeeper(c *Command) (*keeper, error) {
	k := &keeper{running: make(chan struct{}), stop: make(chan struct{})}
	var err error
	if k.streams, err = newStreams(c, k.running, k.stop); err != nil {
		return nil, err
	}
	plan, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	line, theirs, err := newLine()
	if err != nil {
		return nil, errors.Join(err, plan.Close(), to.Close())
	}
	k.line, k.to = line, to
	k.cmd = itself(shim.KeeperName)
	k.cmd.Stdin, k.cmd.Stdout, k.cmd.Stderr = k.streams.files[0], k.streams.files[1], k.streams.files[2]
	k.upFunc = launch(k.cmd, k.stop, theirs, plan)
	return k, nil
}

func (k *keeper) up() error { return k.upFunc() }

func (k *keeper) instruct(pl *shim.Plan, _ *Command) error {
	k.streams.handedOver()
	// A head that died cannot be told; it is known by the end of its socket.
	if _, err := k.to.Write(pl.Encode()); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return k.to.Close()
}

func (k *keeper) receive() (shim.Message, []int, error) {
	packet, fds, err := k.packet(shim.MaxPacket)
	if err != nil {
		return shim.Message{}, nil, err
	}
	m, err := shim.ParseMessage(packet)
	return m, fds, err
}

func (k *keeper) runs() { close(k.running) }

func (k *keeper) signal(s syscall.Signal) error { return k.send(shim.Message{Signal: s}.Packet()) }

// A keeper that is killed could not end what it started: it is asked to first.
func (k *keeper) kill() {
	if k.up() != nil {
		return
	}
	_ = k.signal(syscall.SIGKILL)
	time.AfterFunc(copyDelay, func() { _ = k.cmd.Process.Kill() }) // it may have ended
}

func (k *keeper) wait() (Status, error) { return status(k.cmd.Wait()) }

func (k *keeper) drain() error { return k.streams.wait() }

func (k *keeper) giveUp() {
	k.stopped.Do(func() { close(k.stop) })
	k.to.Close() // for the second time, if the plan was sent
}

func (k *keeper) abandon() {
	k.giveUp()
	k.streams.handedOver()
	if k.up() == nil {
		_, _ = k.wait()
	}
	_ = k.drain()
}

func (k *keeper) close() {
	k.stopped.Do(func() { close(k.stop) })
	k.line.close()
}
