package bootstrap

import (
	"io"
	"os"
	"slices"
	"sync"
)

// span is the bytes from one offset up to, and without, another.
type span struct{ from, to int64 }

func (s span) len() int64 { return s.to - s.from }

// spool is a file that connections fill, in any order, while one reader follows
// it from its beginning to its end: writing, hashing and unpacking overlap.
type spool struct {
	file *os.File

	mu       sync.Mutex
	grew     *sync.Cond
	have     []span // sorted, neither overlapping nor touching
	received int64
	ended    bool
	err      error // why it ended, nil when all of it came

	pos int64 // of the reader
}

// newSpool makes a spool of a file whose first bytes are there already.
func newSpool(file *os.File, there int64) *spool {
	s := &spool{file: file, received: there}
	s.grew = sync.NewCond(&s.mu)
	if there > 0 {
		s.have = []span{{0, there}}
	}
	return s
}

// writeAt may be called for several places at once. Its failures are this machine's.
func (s *spool) writeAt(p []byte, off int64) error {
	if _, err := s.file.WriteAt(p, off); err != nil {
		return &writeError{err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = join(s.have, span{off, off + int64(len(p))})
	s.received += int64(len(p))
	s.grew.Signal()
	return nil
}

// end tells the reader that nothing more will come, and why.
func (s *spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.err = true, err
	s.grew.Signal()
}

// frontier is up to where everything is there.
func (s *spool) frontier() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached()
}

func (s *spool) reached() int64 {
	if len(s.have) == 0 || s.have[0].from > 0 {
		return 0
	}
	return s.have[0].to
}

// count is how many bytes are there, in whatever order.
func (s *spool) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received
}

// Read waits for bytes to come. It returns io.EOF only when all of them did.
func (s *spool) Read(p []byte) (int, error) {
	s.mu.Lock()
	for s.reached() <= s.pos && !s.ended {
		s.grew.Wait()
	}
	ready, err := s.reached()-s.pos, s.err
	s.mu.Unlock()
	if ready <= 0 {
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	n, err := s.file.ReadAt(p[:min(int64(len(p)), ready)], s.pos)
	s.pos += int64(n)
	if err != nil {
		return n, &writeError{err: err}
	}
	return n, nil
}

// join adds a span to a sorted list and merges what touches it.
func join(list []span, add span) []span {
	i, _ := slices.BinarySearchFunc(list, add.from, func(s span, from int64) int {
		if s.to < from {
			return -1
		}
		return 1
	})
	k := i
	for k < len(list) && list[k].from <= add.to {
		add = span{min(add.from, list[k].from), max(add.to, list[k].to)}
		k++
	}
	return slices.Replace(list, i, k, add)
}
