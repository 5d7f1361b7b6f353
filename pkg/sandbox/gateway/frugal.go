package gateway

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
)

// crowd is how many connections to the service there have to be at once to be served with small buffers: few are to be
// fast, and many are not to take much memory.
const crowd = 32

// What bodies are copied through. More than a TLS record (RFC 8446, 5.1) is never read at once.
const (
	bodyBuffer      = 16 << 10
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

// frugal is the service's connection, read in a way that keeps crypto/tls's buffer at the size of one record where many are open.
func (s *swapServer) frugal(up net.Conn) net.Conn {
	if !s.swap.TLS {
		return up
	}
	return &recordConn{Conn: up, open: &s.open}
}

// recordConn reads no further than to the end of a TLS record when there is a crowd. What crypto/tls has read of the next
// record it keeps in a buffer that grows to more than twice a record's size.
type recordConn struct {
	net.Conn
	open *atomic.Int64

	head [5]byte // type, version, length
	seen int     // bytes of the head that went by
	left int     // bytes of the record's body that did not
}

func (c *recordConn) Read(p []byte) (int, error) {
	if c.open.Load() > crowd {
		if c.left > 0 {
			p = p[:min(len(p), c.left)]
		} else {
			p = p[:min(len(p), len(c.head)-c.seen)]
		}
	}
	n, err := c.Conn.Read(p)
	c.follow(p[:n])
	return n, err
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
