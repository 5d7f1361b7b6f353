package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/asker"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// firstProcess is the head of a sandbox with namespaces: PID 1 in it.
type firstProcess struct {
	*line
	upFunc  func() error
	unbind  func()        // of beginning it; nil if that failed
	stop    chan struct{} // closed when nothing more is wanted
	stopped sync.Once
	running chan struct{} // closed when the command runs

	memory  []byte // of the script
	streams *streams

	mu      sync.Mutex   // of what follows
	script  *shim.Script // what it was told to do so far, nil before
	plan    *shim.Plan   // what that is about
	starter int          // the process that was started to fork it, 0 if there is none or it was waited for
	id      int          // its own number, 0 when it was waited for or is not known yet
	space   uint64       // its process namespace, by inode number
}

// begin takes the first process that was begun when this program was, or begins one.
func begin() head {
	b := first.Early()
	var err error
	if b == nil {
		b, err = first.Begin()
	}
	return newFirstProcess(b, err)
}

// forgo ends what was begun when this program was, if nobody has taken it.
func forgo() {
	if b := first.Early(); b != nil {
		p := newFirstProcess(b, nil)
		p.abandon()
		p.close()
	}
}

// newFirstProcess is the head that goes on from a beginning, or says why there is none.
func newFirstProcess(b *first.Beginning, err error) *firstProcess {
	p := &firstProcess{stop: make(chan struct{}), running: make(chan struct{})}
	if err != nil {
		p.upFunc = func() error { return err }
		return p
	}
	p.line, p.unbind = lineOf(b.Socket), sync.OnceFunc(b.Unbind)
	p.upFunc = sync.OnceValue(func() error {
		starter, id, err := b.Started()
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.starter = starter
			p.id = cmp.Or(p.id, id)
		}
		return err
	})
	return p
}

func (p *firstProcess) up() error { return p.upFunc() }

// writeHome sends the beginning of a script, in a file that is only in memory, where it is written.
func (p *firstProcess) writeHome(h *shim.Layers, strict bool) error {
	return p.write(func(s *shim.Script) error { return s.Home(h, strict) })
}

// writeMounts sends what is mounted, as far as that is known.
func (p *firstProcess) writeMounts(mounts []shim.Mount, strict bool) error {
	return p.write(func(s *shim.Script) error { return s.Mounts(mounts, strict) })
}

// writeFiles sends all but the end.
func (p *firstProcess) writeFiles(pl *shim.Plan) error {
	return p.write(func(s *shim.Script) error {
		p.plan = pl
		return s.Files(pl)
	})
}

// planOfFiles is what it was told last to do with files.
func (p *firstProcess) planOfFiles() *shim.Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plan
}

// instruct sends the end, and the command's streams.
func (p *firstProcess) instruct(_ *shim.Plan, c *Command) (err error) {
	if p.streams, err = newStreams(c, p.running, p.stop); err != nil {
		return err
	}
	defer p.streams.handedOver()
	var fds []int
	for _, f := range p.streams.files {
		fds = append(fds, int(f.Fd()))
	}
	return p.write(func(s *shim.Script) error {
		s.Start()
		return nil
	}, fds...)
}

// write writes a part of the script, and tells the first process to go on with it, and with these streams if there are any.
func (p *firstProcess) write(part func(s *shim.Script) error, streams ...int) error {
	order, fds := first.GoOn(len(streams) > 0), streams
	script := p.script
	if script == nil {
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
		script = shim.NewScript(p.memory)
		order, fds = first.Perform(shim.ScriptMemory), []int{fd}
	}
	if err := p.writePart(script, part); err != nil {
		return err
	}
	// A head that died cannot be told; it is known by the end of its socket.
	if err := p.send(order.Bytes(), fds...); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

func (p *firstProcess) writePart(script *shim.Script, part func(s *shim.Script) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = script
	if err := part(script); err != nil {
		return err
	}
	if err := script.Finish(); err != nil {
		return fmt.Errorf("too much to mount: %w", err)
	}
	return nil
}

func (p *firstProcess) receive() (shim.Message, []int, error) {
	for {
		packet, fds, err := p.packet(first.Size + 1) // what is longer is none of its messages
		if err != nil {
			return shim.Message{}, nil, err
		}
		m, ok := first.ParseMessage(packet)
		if !ok {
			return shim.Message{}, fds, errors.New("malformed message of the first process")
		}
		if !p.know(m) {
			return p.translate(m), fds, nil
		}
	}
}

// know takes what is said of the first process itself. It tells whether that was it.
func (p *firstProcess) know(m first.Message) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.What {
	case first.TellFirst:
		p.id = int(m.A)
	case first.TellSpace:
		p.space = uint64(m.A)
	default:
		return false
	}
	return true
}

// translate says what happened in words.
func (p *firstProcess) translate(m first.Message) shim.Message {
	switch m.What {
	case first.TellListening:
		return shim.Message{Listening: true}
	case first.TellHome:
		return shim.Message{Home: true}
	case first.TellStarted:
		return shim.Message{Started: true}
	case first.TellEnded:
		return shim.Message{Ended: true, Code: int(m.A), Signal: syscall.Signal(m.B), Alone: m.C != 0}
	case first.TellFailed:
		p.mu.Lock()
		defer p.mu.Unlock()
		errno := syscall.Errno(m.B)
		failed, executing := p.script.Failure(int(m.A))
		if executing {
			return shim.NoCommand(p.plan.Args[0], errno)
		}
		return shim.Message{Failed: failed, Errno: errno, Changed: p.script.Changed(int(m.A), errno)}
	}
	return shim.Message{Failed: fmt.Sprintf("unknown message %d of the first process", m.What)}
}

func (p *firstProcess) runs() {
	close(p.running)
	p.forgetScript() // while there is time; nothing of it can fail any more
}

func (p *firstProcess) forgetScript() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.memory != nil {
		p.script = nil
		_ = unix.Munmap(p.memory)
		p.memory = nil
	}
}

func (p *firstProcess) signal(s syscall.Signal) error { return p.send(first.Signal(int(s)).Bytes()) }

// finder finds out which program inside asked for something.
func (p *firstProcess) finder() *asker.Finder {
	p.mu.Lock()
	defer p.mu.Unlock()
	return asker.NewFinder(p.id, p.space)
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
		p.hangUp() // it ends as soon as it has nothing else to do
	}
}

func (p *firstProcess) drain() error {
	if p.streams == nil {
		return nil
	}
	return p.streams.wait()
}

// wait waits for all of them, and says how the last one ended.
func (p *firstProcess) wait() (Status, error) {
	p.mu.Lock()
	starter, id := p.starter, p.id
	p.starter = 0
	p.mu.Unlock()
	if starter != 0 {
		if _, err := waitFor(starter); err != nil {
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
		p.hangUp()
	}
}

func (p *firstProcess) abandon() {
	first.Loosen()
	p.giveUp()
	p.kill() // it may be waiting for something else than an order
	if p.up() != nil {
		return
	}
	for {
		m, fds, err := p.receive()
		for _, fd := range fds {
			unix.Close(fd)
		}
		if m.Home { // nobody will fill it
			p.kill()
		}
		if err != nil {
			break
		}
	}
	_, _ = p.wait()
	_ = p.drain()
}

func (p *firstProcess) close() {
	p.stopped.Do(func() { close(p.stop) })
	if p.line != nil {
		p.line.close()
		p.unbind()
	}
	p.forgetScript()
}
