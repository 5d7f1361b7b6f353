package gateway

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// crowd is how many connections to the service there have to be at once to be served with small buffers: few are to be
// fast, and many are not to take much memory.
const crowd = 32

// What bodies are copied through: some TLS records (RFC 8446, 5.1) at once, or a part of one.
const (
	bodyBuffer      = 64 << 10
	bodyBufferCrowd = 4 << 10
)

// headBufferCrowd is what heads are read and written through then; a longer one takes a second turn.
const headBufferCrowd = 1 << 10

// bodyBuffers is a pool of buffers.
type bodyBuffers struct {
	open         *atomic.Int64 // connections
	large, small sync.Pool
}

func newBodyBuffers(open *atomic.Int64) *bodyBuffers {
	return &bodyBuffers{
		open:  open,
		large: sync.Pool{New: func() any { return new([bodyBuffer]byte) }},
		small: sync.Pool{New: func() any { return new([bodyBufferCrowd]byte) }},
	}
}

// Get takes a buffer out of the pool.
func (b *bodyBuffers) Get() []byte {
	if b.open.Load() > crowd {
		return b.small.Get().(*[bodyBufferCrowd]byte)[:]
	}
	return b.large.Get().(*[bodyBuffer]byte)[:]
}

// Put gives it back.
func (b *bodyBuffers) Put(p []byte) {
	if len(p) == bodyBuffer {
		b.large.Put((*[bodyBuffer]byte)(p))
		return
	}
	b.small.Put((*[bodyBufferCrowd]byte)(p))
}

// inRecords is the service's connection, read record by record.
func (s *swapServer) inRecords(up net.Conn) *recordConn { return &recordConn{Conn: up, open: &s.open} }

// recordConn gives crypto/tls no more than to the end of a TLS record at once, or that would keep what it has of the next one in a
// buffer that grows to more than twice a record's size. Unless there is a crowd it reads ahead itself, and knows what is there.
type recordConn struct {
	net.Conn
	open *atomic.Int64

	head  [5]byte // type, version, length
	seen  int     // bytes of the head that went by
	left  int     // bytes of the record's body that did not
	ahead []byte  // what was read ahead
	space []byte  // where
}

func (c *recordConn) Read(p []byte) (int, error) {
	if c.left > 0 {
		p = p[:min(len(p), c.left)]
	} else {
		p = p[:min(len(p), len(c.head)-c.seen)]
	}
	if len(c.ahead) == 0 {
		if c.open.Load() > crowd {
			c.ahead, c.space = nil, nil
			n, err := c.Conn.Read(p)
			c.follow(p[:n])
			return n, err
		}
		if c.space == nil {
			c.space = make([]byte, 2*bodyBuffer)
		}
		n, err := c.Conn.Read(c.space)
		if n == 0 {
			return 0, err
		}
		c.ahead = c.space[:n] // an error comes again
	}
	n := copy(p, c.ahead)
	c.ahead = c.ahead[n:]
	c.follow(p[:n])
	return n, nil
}

// follow keeps count of where in the records the stream is.
func (c *recordConn) follow(p []byte) {
	for len(p) > 0 {
		if c.left > 0 {
			n := min(len(p), c.left)
			c.left -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.seen:], p)
		c.seen += n
		p = p[n:]
		if c.seen == len(c.head) {
			c.seen, c.left = 0, int(binary.BigEndian.Uint16(c.head[3:]))
		}
	}
}

// whole tells whether the next record can be read without waiting for the service.
func (c *recordConn) whole() bool {
	return c.seen == 0 && c.left == 0 && len(c.ahead) >= len(c.head) && len(c.ahead) >= len(c.head)+int(binary.BigEndian.Uint16(c.ahead[3:]))
}

// maxRecord is how much there is in a TLS record.
const maxRecord = 16 << 10

// bulk is the least length of a body that is passed on in pieces of several records.
const bulk = 1 << 20

// bulkBody is a body whose length is known. It takes what there is at once: the fewer pieces, the fewer system calls.
type bulkBody struct {
	io.ReadCloser
	from *recordConn
}

func (b *bulkBody) Read(p []byte) (n int, err error) {
	for {
		m, err := b.ReadCloser.Read(p[n:])
		if n += m; err != nil || m == 0 || len(p)-n < maxRecord || !b.from.whole() {
			return n, err
		}
	}
}

// corked has what is written to a client in one piece sent in one, however many records it takes.
type corked struct {
	http.ResponseWriter
	to *swapConn
}

func (c corked) Write(p []byte) (int, error) {
	if len(p) <= maxRecord {
		return c.ResponseWriter.Write(p)
	}
	c.to.cork()
	n, err := c.ResponseWriter.Write(p)
	return n, errors.Join(err, c.to.uncork())
}

// Unwrap is for http.ResponseController.
func (c corked) Unwrap() http.ResponseWriter { return c.ResponseWriter }
