package sandbox

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// copyDelay is how long after the end of the command its streams may still be copied.
const copyDelay = 10 * time.Second

// streams are a command's input, output and errors as files, and what has to be copied through pipes.
type streams struct {
	files  [3]*os.File // what the command gets
	opened []*os.File  // of these, what is closed here when the command has it
	pipes  []*os.File  // our ends
	copies []func() error
	done   sync.WaitGroup
	errs   [3]error
}

// newStreams makes pipes where a stream is no file, or one that must not be handed over. Input is not read
// before begin is closed: if the command never runs, it is left to whoever comes next; nor after stop is.
func newStreams(c *Command, begin, stop <-chan struct{}) (*streams, error) {
	s := &streams{}
	err := s.input(c.Stdin, begin, stop)
	if err == nil {
		err = s.output(1, c.Stdout)
	}
	switch {
	case err != nil:
	case c.Stderr != nil && same(c.Stdout, c.Stderr):
		s.files[2] = s.files[1] // nobody would write to it from two sides
	default:
		err = s.output(2, c.Stderr)
	}
	if err != nil {
		s.handedOver()
		s.closePipes()
		return nil, err
	}
	return s, nil
}

func (s *streams) input(r io.Reader, begin, stop <-chan struct{}) error {
	if r == nil {
		return s.null(0, os.O_RDONLY)
	}
	if f, ok := r.(*os.File); ok && !reopenable(f) {
		s.files[0] = f
		return nil
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	s.pipe(0, theirs, ours)
	s.copies = append(s.copies, func() error {
		select {
		case <-begin:
		case <-stop:
			return ours.Close()
		}
		_, err := io.Copy(ours, r)
		if errors.Is(err, syscall.EPIPE) {
			err = nil // the command did not want all of it
		}
		return errors.Join(err, ours.Close())
	})
	return nil
}

// output keeps a file on the host from being handed into the sandbox: by /proc/self/fd the command
// could open it again, for writing, past all mounts. Terminals, pipes and sockets go in as they are.
func (s *streams) output(i int, w io.Writer) error {
	if w == nil {
		return s.null(i, os.O_WRONLY)
	}
	if f, ok := w.(*os.File); ok && !reopenable(f) {
		s.files[i] = f
		return nil
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	s.pipe(i, theirs, ours)
	s.copies = append(s.copies, func() error {
		_, err := io.Copy(w, ours)
		return errors.Join(err, ours.Close())
	})
	return nil
}

// same tells whether two writers are one. Some cannot be compared.
func same(a, b io.Writer) (is bool) {
	defer func() { _ = recover() }()
	return a == b
}

func (s *streams) null(i, flag int) error {
	f, err := os.OpenFile(os.DevNull, flag, 0)
	if err != nil {
		return err
	}
	s.files[i], s.opened = f, append(s.opened, f)
	return nil
}

func (s *streams) pipe(i int, theirs, ours *os.File) {
	s.files[i] = theirs
	s.opened, s.pipes = append(s.opened, theirs), append(s.pipes, ours)
}

func reopenable(f *os.File) bool {
	info, err := f.Stat()
	return err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeCharDevice) == 0
}

// handedOver closes what the command has by now, and begins to copy.
func (s *streams) handedOver() {
	for _, f := range s.opened {
		f.Close()
	}
	s.opened = nil
	for i, copying := range s.copies {
		s.done.Go(func() { s.errs[i] = copying() })
	}
	s.copies = nil
}

// wait waits until all is copied, but not for ever: what the command left behind may keep a pipe open.
func (s *streams) wait() error {
	if len(s.pipes) == 0 {
		return nil
	}
	done := make(chan struct{})
	go func() {
		s.done.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(copyDelay):
		s.closePipes()
		return nil
	}
	return errors.Join(s.errs[:]...)
}

func (s *streams) closePipes() {
	for _, f := range s.pipes {
		f.Close()
	}
}
