package gateway

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Refusals hears by a raw socket of connections that the kernel inside refused: nothing listens on a port that no rule names. Which
// program wanted that is not known; it was told before anybody could look.
type Refusals struct {
	gateway *Gateway
	conn    *net.IPConn
	mu      sync.Mutex // between a packet and what is noted of it
}

// Refusals takes over the socket. It gets only packets with which TCP refuses.
func (g *Gateway) Refusals(conn *net.IPConn) *Refusals { return &Refusals{gateway: g, conn: conn} }

// Serve notes them until the socket is closed.
func (r *Refusals) Serve() error {
	raw, err := r.conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		r.note(int(fd))
		return false
	})
}

// Close notes what has come in by now and closes the socket.
func (r *Refusals) Close() error {
	if raw, err := r.conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { r.note(int(fd)) }) // closed before: nothing comes in
	}
	return r.conn.Close()
}

func (r *Refusals) note(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const ip4Header, tcpHeader = 60, 20
	packet := make([]byte, ip4Header+tcpHeader)
	for {
		n, from, err := unix.Recvfrom(fd, packet, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		var addr netip.Addr
		tcp := packet[:n]
		switch from := from.(type) {
		case *unix.SockaddrInet4:
			const words = 4
			addr, tcp = netip.AddrFrom4(from.Addr), tcp[min(n, words*int(packet[0]&0xf)):]
		case *unix.SockaddrInet6:
			addr = netip.AddrFrom16(from.Addr)
		}
		if addr.IsValid() && len(tcp) >= tcpHeader {
			r.gateway.refusedInside(netip.AddrPortFrom(addr, binary.BigEndian.Uint16(tcp)))
		}
	}
}

// refusedInside notes that nothing listens at an address. Inside the sandbox that may be: programs wait for each other so.
func (g *Gateway) refusedInside(to netip.AddrPort) {
	if _, named := g.names.name(to.Addr()); !named && (to.Addr().IsLoopback() || fakePrefix.Contains(to.Addr())) {
		return
	}
	t, _ := g.targetOf(net.TCPAddrFromAddrPort(to))
	g.deny(t, "")
}
