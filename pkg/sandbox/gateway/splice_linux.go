package gateway

import (
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// pipeSize is what is moved at once. An ordinary user gets 256 pipes of that size before the kernel makes the user's
// others small (pipe(7), pipe-user-pages-soft), and larger ones move nothing faster.
const pipeSize = 256 << 10

// idlePipes is how many are kept for the next that has something to move.
const idlePipes = 8

// pipes are what the kernel moves streams through (splice(2)). A stream has one only while something of it is on the way,
// so that hundreds of connections that wait take none.
type pipes struct {
	mu     sync.Mutex
	idle   []pipe
	closed bool
}

// pipe is a pipe of the kernel, empty unless it is in use.
type pipe struct{ r, w int }

func (p pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// take returns an empty pipe.
func (ps *pipes) take() (pipe, error) {
	ps.mu.Lock()
	if last := len(ps.idle) - 1; last >= 0 {
		p := ps.idle[last]
		ps.idle = ps.idle[:last]
		ps.mu.Unlock()
		return p, nil
	}
	ps.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, err
	}
	// Where that is refused, a small one works as well, only slower.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	return pipe{fds[0], fds[1]}, nil
}

// give takes back a pipe that is empty.
func (ps *pipes) give(p pipe) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed || len(ps.idle) >= idlePipes {
		p.close()
		return
	}
	ps.idle = append(ps.idle, p)
}

// close closes the pipes; those in use are closed when they are given back.
func (ps *pipes) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.idle {
		p.close()
	}
	ps.idle, ps.closed = nil, true
}

// move moves a stream without a copy until it ends or fails. If it did neither, what is left of it has to be copied.
func (ps *pipes) move(dst, src net.Conn) (over bool, err error) {
	// Other types than this one may do something to what goes through them.
	from, fromTCP := src.(*net.TCPConn)
	to, toTCP := dst.(*net.TCPConn)
	if !fromTCP || !toTCP {
		return false, nil
	}
	source, err := from.SyscallConn()
	if err != nil {
		return true, err
	}
	sink, err := to.SyscallConn()
	if err != nil {
		return true, err
	}
	var p pipe
	var n, m int
	var failed error
	fill := func(fd uintptr) bool {
		if p, failed = ps.take(); failed != nil {
			return true
		}
		n, failed = splice(int(fd), p.w, pipeSize)
		if failed != nil {
			ps.give(p)
		}
		return !errors.Is(failed, unix.EAGAIN)
	}
	drain := func(fd uintptr) bool {
		m, failed = splice(p.r, int(fd), n)
		return !errors.Is(failed, unix.EAGAIN)
	}
	for {
		if err := source.Read(fill); err != nil {
			return true, err
		}
		switch {
		case errors.Is(failed, unix.EMFILE), errors.Is(failed, unix.ENFILE), errors.Is(failed, unix.EINVAL):
			return false, nil // no pipe, or no splice for such sockets: nothing was read
		case failed != nil:
			return true, failed
		case n == 0:
			ps.give(p)
			return true, nil
		}
		for n > 0 {
			err := sink.Write(drain)
			if err == nil {
				err = failed
			}
			if err == nil && m == 0 {
				err = io.ErrShortWrite
			}
			if err != nil {
				p.close() // with what is in it
				return true, err
			}
			n -= m
		}
		ps.give(p)
	}
}

// splice moves up to some bytes from one descriptor to another, one of which is a pipe.
func splice(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_NONBLOCK)
		if !errors.Is(err, unix.EINTR) {
			return int(n), err
		}
	}
}
