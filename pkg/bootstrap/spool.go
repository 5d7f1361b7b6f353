package bootstrap

import (
	"io"
	"os"
	"slices"
	"sync"
)

// freshChunks is how many chunks are handed on to the reader without a way over the file.
const freshChunks = 8

// span is the bytes from one offset up to, and without, another.
type span struct{ from, to int64 }

func (s span) len() int64 { return s.to - s.from }

// chunk is bytes as they came, and where in the file they belong.
type chunk struct {
	from int64
	data []byte
}

// spool is a file that connections fill, in any order, while one reader follows
// it from its beginning to its end: writing, hashing and unpacking overlap.
type spool struct {
	file *os.File
	idle func() // called by the reader from time to time while it waits; nil for nothing

	mu       sync.Mutex
	grew     *sync.Cond
	have     []span // sorted, neither overlapping nor touching
	received int64
	fresh    []chunk
	free     [][]byte
	ended    bool
	err      error // why it ended, nil when all of it came

	pos    int64 // of the reader
	buffer []byte
	rest   []byte // what of buffer it has not taken yet
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

// room is a buffer to receive into, for write.
func (s *spool) room() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take()
}

func (s *spool) take() []byte {
	last := len(s.free) - 1
	if last < 0 {
		return make([]byte, copyBuffer)
	}
	b := s.free[last]
	s.free = s.free[:last]
	return b
}

// write puts the first n bytes of a buffer from room at an offset, and keeps the buffer. It may
// be called for several places at once. Its failures are this machine's.
func (s *spool) write(b []byte, n int, off int64) error {
	if _, err := s.file.WriteAt(b[:n], off); err != nil {
		return &writeError{err: err}
	}
	c := chunk{off, b[:n]}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = join(s.have, span{c.from, c.from + int64(len(c.data))})
	s.received += int64(len(c.data))
	if len(s.fresh) == freshChunks {
		s.free = append(s.free, s.fresh[0].data[:copyBuffer]) // the reader finds it in the file
		s.fresh = slices.Delete(s.fresh, 0, 1)
	}
	s.fresh = append(s.fresh, c)
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

// wake has the reader look around, should it be waiting.
func (s *spool) wake() { s.grew.Signal() }

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

// next waits for bytes to come, and returns some of them until it is called again. It returns
// io.EOF only when all of them did.
func (s *spool) next() ([]byte, error) {
	if p := s.rest; len(p) > 0 {
		s.rest = nil
		return p, nil
	}
	s.mu.Lock()
	if s.buffer != nil {
		s.free = append(s.free, s.buffer[:copyBuffer])
		s.buffer = nil
	}
	for s.reached() <= s.pos && !s.ended {
		s.grew.Wait()
		if s.idle != nil && s.reached() <= s.pos {
			s.mu.Unlock()
			s.idle()
			s.mu.Lock()
		}
	}
	ready, err := s.reached()-s.pos, s.err
	if ready <= 0 {
		s.mu.Unlock()
		if err == nil {
			err = io.EOF
		}
		return nil, err
	}
	if i := slices.IndexFunc(s.fresh, func(c chunk) bool { return c.from == s.pos }); i >= 0 {
		s.buffer = s.fresh[i].data
		s.fresh = slices.Delete(s.fresh, i, i+1)
		s.mu.Unlock()
		s.pos += int64(len(s.buffer))
		return s.buffer, nil
	}
	s.buffer = s.take()
	s.mu.Unlock()
	n, err := s.file.ReadAt(s.buffer[:min(copyBuffer, ready)], s.pos)
	s.pos += int64(n)
	if err != nil {
		return nil, &writeError{err: err}
	}
	return s.buffer[:n], nil
}

// Read is next for those who bring their own buffer.
func (s *spool) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		var err error
		if s.rest, err = s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
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
