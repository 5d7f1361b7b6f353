package gateway

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Refusals hears by a raw socket of what the kernel inside refused, because nothing listens on a port that no rule names: connections
// of TCP, or packets of UDP by what ICMP answers. Which program wanted a connection is not known; it was told before anybody could look.
type Refusals struct {
	gateway *Gateway
	conn    *net.IPConn
	udp     bool
	mu      sync.Mutex // between a packet and what is noted of it
}

// Refusals takes over the socket, which is TCP's or ICMP's. It gets only packets that refuse.
func (g *Gateway) Refusals(conn *net.IPConn) (*Refusals, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r, protocol, failed := &Refusals{gateway: g, conn: conn}, 0, error(nil)
	if err := raw.Control(func(fd uintptr) { protocol, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL) }); err != nil {
		return nil, err
	}
	r.udp = protocol != unix.IPPROTO_TCP
	return r, failed
}

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
	packet := make([]byte, 256) // more than the headers take, one inside the other
	for {
		n, from, err := unix.Recvfrom(fd, packet, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		var addr netip.Addr
		answer := packet[:n]
		switch from := from.(type) {
		case *unix.SockaddrInet4:
			addr, answer = netip.AddrFrom4(from.Addr), behindIPv4(answer)
		case *unix.SockaddrInet6: // without the header
			addr = netip.AddrFrom16(from.Addr)
		}
		if r.udp {
			r.noteUDP(answer, addr.Is4())
		} else if ports, ok := portsOf(answer); ok && addr.IsValid() {
			r.gateway.refusedInside(netip.AddrPortFrom(addr, ports.from), nil, "")
		}
	}
}

// noteUDP notes what an answer of ICMP's is about: the beginning of the packet that was refused stands in it.
func (r *Refusals) noteUDP(answer []byte, ip4 bool) {
	const icmpHeader = 8
	refused := answer[min(len(answer), icmpHeader):]
	var from, to netip.Addr
	var protocol byte
	if ip4 {
		const protocolAt, fromAt, toAt, size = 9, 12, 16, 20
		if len(refused) < size {
			return
		}
		from, to = netip.AddrFrom4([4]byte(refused[fromAt:])), netip.AddrFrom4([4]byte(refused[toAt:]))
		protocol, refused = refused[protocolAt], behindIPv4(refused)
	} else {
		const protocolAt, fromAt, toAt, size = 6, 8, 24, 40
		if len(refused) < size {
			return
		}
		from, to = netip.AddrFrom16([16]byte(refused[fromAt:])), netip.AddrFrom16([16]byte(refused[toAt:]))
		protocol, refused = refused[protocolAt], refused[size:]
	}
	if ports, ok := portsOf(refused); ok && protocol == unix.IPPROTO_UDP {
		// Whether the socket is connected is not known.
		by := r.gateway.askerAt("udp", netip.AddrPortFrom(from, ports.from), netip.AddrPort{})
		r.gateway.refusedInside(netip.AddrPortFrom(to, ports.to), by, "UDP")
	}
}

func behindIPv4(packet []byte) []byte {
	if len(packet) == 0 {
		return nil
	}
	const words = 4
	return packet[min(len(packet), words*int(packet[0]&0xf)):]
}

type ports struct{ from, to uint16 }

// portsOf are those with which a packet of TCP or UDP begins.
func portsOf(packet []byte) (ports, bool) {
	const size = 4
	if len(packet) < size {
		return ports{}, false
	}
	return ports{binary.BigEndian.Uint16(packet), binary.BigEndian.Uint16(packet[2:])}, true
}

// refusedInside notes that nothing listens at an address. Inside the sandbox that may be: programs wait for each other so.
func (g *Gateway) refusedInside(to netip.AddrPort, by Asker, why string) {
	if _, named := g.names.name(to.Addr()); !named && (to.Addr().IsLoopback() || fakePrefix.Contains(to.Addr())) {
		return
	}
	t, _ := g.targetOf(net.TCPAddrFromAddrPort(to))
	t.by = by
	g.deny(t, why)
}
