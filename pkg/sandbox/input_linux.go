package sandbox

import (
	"io"
	"os"
)

// heldInput keeps what a command is to read until its sandbox is made. One that cannot be made has then read nothing of
// it, and the next tier gives the command all.
type heldInput struct {
	from         io.Reader
	made, failed chan struct{}
}

// hold is what to give to the shim in the place of r, and what holds it; nil for files, which the shim has itself.
func hold(r io.Reader) (io.Reader, *heldInput) {
	if _, file := r.(*os.File); r == nil || file {
		return r, nil
	}
	h := &heldInput{from: r, made: make(chan struct{}), failed: make(chan struct{})}
	return h, h
}

func (h *heldInput) Read(p []byte) (int, error) {
	select {
	case <-h.made:
		return h.from.Read(p)
	case <-h.failed:
		return 0, io.EOF
	}
}

// release says what became of the sandbox, once.
func (h *heldInput) release(err error) {
	switch {
	case h == nil:
	case err != nil:
		close(h.failed)
	default:
		close(h.made)
	}
}
