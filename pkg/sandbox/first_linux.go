package sandbox

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// firstProcess is the head of a sandbox with namespaces: PID 1 in it. Two processes come before it: one that makes the namespaces, and,
// unless that is a copy of this process, a sesame that is started for nothing but to fork it.
type firstProcess struct {
	*line
	starter *exec.Cmd // nil if it was forked here
	upFunc  func() error
	stop    chan struct{} // closed when nothing more is wanted
	stopped sync.Once
	running chan struct{} // closed when the command runs

	memory  []byte // of the script
	script  *first.Script
	command []string // the command's arguments
	streams *streams

	mu    sync.Mutex // of what follows
	maker int        // its process id, 0 when it was waited for or is not known yet
	id    int        // likewise
}

// begin forks a first process, which is a copy of this one, in the background.
func begin() head {
	p := newFirstProcess()
	line, theirs, err := newLine()
	if err != nil {
		p.upFunc = func() error { return err }
		return p
	}
	p.line = line
	forked := make(chan error, 1)
	p.upFunc = sync.OnceValue(func() error { return <-forked })
	go func() {
		// The kernel sends the death signal when the *thread* that started the process ends.
		runtime.LockOSThread()
		maker, err := first.Fork(theirs)
		p.mu.Lock()
		p.maker = maker
		p.mu.Unlock()
		forked <- err
		if err == nil {
			<-p.stop
		}
	}()
	runtime.Gosched() // it is what everything waits for in the end: it goes first
	return p
}

// beginAnew has one forked by a program that is started for that, and knows nothing.
func beginAnew() head {
	p := newFirstProcess()
	line, theirs, err := newLine()
	if err != nil {
		p.upFunc = func() error { return err }
		return p
	}
	p.line = line
	p.starter = itself(first.Name)
	p.upFunc = launch(p.starter, p.stop, theirs)
	return p
}

func newFirstProcess() *firstProcess {
	return &firstProcess{stop: make(chan struct{}), running: make(chan struct{})}
}

func (p *firstProcess) up() error { return p.upFunc() }

// instruct sends the plan as a script in a file that is only in memory, where it is written.
func (p *firstProcess) instruct(pl *shim.Plan, c *Command) error {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, shim.ScriptMemory); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	if p.memory, err = unix.Mmap(fd, 0, shim.ScriptMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	if p.script, err = pl.Script(p.memory); err != nil {
		return err
	}
	size, err := p.script.Finish()
	if err != nil {
		return fmt.Errorf("too much to mount: %w", err)
	}
	p.command = pl.Args
	if p.streams, err = newStreams(c, p.running, p.stop); err != nil {
		return err
	}
	defer p.streams.handedOver()
	fds := []int{fd}
	for _, f := range p.streams.files {
		fds = append(fds, int(f.Fd()))
	}
	// A head that died cannot be told; it is known by the end of its socket.
	if err := p.send(first.Perform(size).Bytes(), fds...); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

func (p *firstProcess) receive() (shim.Message, []int, error) {
	for {
		packet, fds, err := p.packet()
		if err != nil {
			return shim.Message{}, nil, err
		}
		m, ok := first.ParseMessage(packet)
		if !ok {
			return shim.Message{}, fds, errors.New("malformed message of the first process")
		}
		switch m.What {
		case first.TellMaker, first.TellFirst:
			p.know(m)
			continue
		}
		return p.translate(m), fds, nil
	}
}

func (p *firstProcess) know(m first.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.What == first.TellMaker {
		p.maker = int(m.A)
		return
	}
	p.id = int(m.A)
}

// translate says what happened in words.
func (p *firstProcess) translate(m first.Message) shim.Message {
	switch m.What {
	case first.TellListening:
		return shim.Message{Listening: true}
	case first.TellNotice:
		return shim.Message{Notice: "changes to the home directory are not kept for the next turn: its file system cannot do that"}
	case first.TellStarted:
		return shim.Message{Started: true}
	case first.TellEnded:
		return shim.Message{Ended: true, Code: int(m.A), Signal: syscall.Signal(m.B), Alone: m.C != 0}
	case first.TellFailed:
		at, errno := int(m.A), syscall.Errno(m.B)
		if step := at - first.AtStep - first.NextScript; step >= 0 && p.script != nil && p.script.Executes(step) {
			return shim.NoCommand(p.command[0], errno)
		}
		return shim.Message{Failed: first.Failure(at, p.script) + ": " + errno.Error()}
	}
	return shim.Message{Failed: fmt.Sprintf("unknown message %d of the first process", m.What)}
}

func (p *firstProcess) runs() { close(p.running) }

func (p *firstProcess) signal(s syscall.Signal) error { return p.send(first.Signal(int(s)).Bytes()) }

func (p *firstProcess) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// kill kills the first process, and the kernel all others of its namespace.
func (p *firstProcess) kill() {
	if p.up() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.id != 0 {
		_ = syscall.Kill(p.id, syscall.SIGKILL) // it may have ended, but it was not waited for
	} else {
		_ = unix.Shutdown(int(p.socket.Fd()), unix.SHUT_WR) // it ends as soon as it has nothing else to do
	}
}

func (p *firstProcess) copies() bool { return p.streams.copied() }

func (p *firstProcess) wait() (Status, error) {
	st, err := p.waitProcesses()
	if p.streams != nil {
		err = errors.Join(err, p.streams.wait())
	}
	return st, err
}

// waitProcesses waits for all of them, and says how the last one ended.
func (p *firstProcess) waitProcesses() (Status, error) {
	if p.starter != nil {
		_ = p.starter.Wait() // it has nothing to say
	}
	p.mu.Lock()
	maker, id := p.maker, p.id
	p.maker = 0
	p.mu.Unlock()
	if maker != 0 {
		if _, err := waitFor(maker); err != nil {
			return Status{Code: -1}, err
		}
	}
	if id == 0 {
		return Status{Code: -1}, nil
	}
	// Its number is its own until it is taken out of the process table: who kills it meanwhile hits no other.
	for {
		err := unix.Waitid(unix.P_PID, id, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return Status{Code: -1}, fmt.Errorf("wait for the first process: %w", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id = 0
	return waitFor(id)
}

// waitFor waits for the end of a child.
func waitFor(pid int) (Status, error) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return Status{Code: -1}, fmt.Errorf("wait for process %d: %w", pid, err)
		default:
			return statusOf(ws), nil
		}
	}
}

func (p *firstProcess) giveUp() {
	p.stopped.Do(func() { close(p.stop) })
	if p.up() == nil {
		_ = unix.Shutdown(int(p.socket.Fd()), unix.SHUT_WR)
	}
}

func (p *firstProcess) abandon() {
	p.giveUp()
	if p.up() != nil {
		return
	}
	for {
		_, fds, err := p.receive()
		for _, fd := range fds {
			unix.Close(fd)
		}
		if err != nil {
			break
		}
	}
	_, _ = p.wait()
}

func (p *firstProcess) close() {
	p.stopped.Do(func() { close(p.stop) })
	if p.line != nil {
		p.line.close()
	}
	if p.memory != nil {
		_ = unix.Munmap(p.memory) // nobody reads the messages any more that are about it
		p.memory = nil
	}
}
