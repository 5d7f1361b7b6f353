package gateway

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Refusals hears by a raw socket of what goes to ports on which nothing listens, because no rule names them: of connections of TCP by their first
// packet, which it answers, and of packets of UDP by what ICMP has answered.
type Refusals struct {
	gateway   *Gateway
	conn      *net.IPConn
	raw       syscall.RawConn
	udp       bool
	listening []int // ports of TCP, on which somebody does

	mu      sync.Mutex // of these two
	waiting []attempt
	noting  bool // somebody goes through them

	turn  sync.Mutex       // of who does
	known map[attempt]bool // of TCP, some time back: who is not answered in a second asks again
}

// attempt is a packet to a port on which nothing listens.
type attempt struct {
	from, to netip.AddrPort
	sequence uint32 // TCP's
}

const (
	manyWaiting = 64      // from here on they are noted without a program: to find one out takes milliseconds
	mostWaiting = 1 << 16 // and from here on not at all
	manyKnown   = 4096    // from here on they are forgotten
)

// Refusals takes over the socket, which is TCP's or ICMP's. It gets only such packets, and those to ports that a rule names.
func (g *Gateway) Refusals(conn *net.IPConn) (*Refusals, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r, failed := &Refusals{gateway: g, conn: conn, raw: raw, known: map[attempt]bool{}}, error(nil)
	err = raw.Control(func(fd uintptr) { failed = r.prepare(int(fd)) })
	return r, cmp.Or(err, failed)
}

// prepare has the socket of TCP tell where packets go, and take such that have their header.
func (r *Refusals) prepare(fd int) error {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	if r.udp = protocol != unix.IPPROTO_TCP; r.udp {
		return nil
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	if domain == unix.AF_INET || r.gateway.rules.NameIPv6() {
		r.listening = r.gateway.rules.Ports()
	}
	if domain == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_HDRINCL, 1)
	}
	return cmp.Or(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1), unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1))
}

// Serve notes them until the socket is closed.
func (r *Refusals) Serve() error {
	return r.raw.Read(func(fd uintptr) bool {
		r.receive(int(fd))
		return false
	})
}

// Close notes what has come in by now and closes the socket.
func (r *Refusals) Close() error {
	_ = r.raw.Control(func(fd uintptr) { r.receive(int(fd)) }) // closed before: nothing comes in
	r.note()
	return r.conn.Close()
}

// note goes through what has come in.
func (r *Refusals) note() {
	r.turn.Lock()
	defer r.turn.Unlock()
	for {
		r.mu.Lock()
		if len(r.waiting) == 0 {
			r.noting = false
			r.mu.Unlock()
			return
		}
		next := r.waiting[0]
		r.waiting = r.waiting[1:]
		var by Asker
		if len(r.waiting) < manyWaiting {
			by = r.asker(next)
		}
		r.mu.Unlock()
		if r.udp {
			r.gateway.refusedInside(next.to, by, "UDP")
		} else {
			r.refuse(next, by)
		}
	}
}

// receive takes what has come in: the socket has room for few. Somebody else goes through it.
func (r *Refusals) receive(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		if len(r.waiting) > 0 && !r.noting {
			r.noting = true
			go r.note()
		}
	}()
	packet := make([]byte, 256) // more than the headers take, one inside the other
	oob := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for {
		n, oobn, _, from, err := unix.Recvmsg(fd, packet, oob, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		var a attempt
		ok := false
		switch from := from.(type) {
		case *unix.SockaddrInet4:
			if r.udp {
				a, ok = refusedUDP(behindIPv4(packet[:n]), true)
			} else if n >= ip4Header {
				a, ok = opening(netip.AddrFrom4(from.Addr), netip.AddrFrom4([4]byte(packet[ip4To:])), behindIPv4(packet[:n]))
			}
		case *unix.SockaddrInet6: // without the header
			if r.udp {
				a, ok = refusedUDP(packet[:n], false)
			} else if to, is := sentTo(oob[:oobn]); is {
				a, ok = opening(netip.AddrFrom16(from.Addr), to, packet[:n])
			}
		}
		if ok && len(r.waiting) < mostWaiting && !slices.Contains(r.listening, int(a.to.Port())) {
			r.waiting = append(r.waiting, a)
		}
	}
}

// opening is a connection by its first packet.
func opening(from, to netip.Addr, segment []byte) (attempt, bool) {
	ports, ok := portsOf(segment)
	if !ok || len(segment) < tcpHeader {
		return attempt{}, false
	}
	return attempt{netip.AddrPortFrom(from, ports.from), netip.AddrPortFrom(to, ports.to), binary.BigEndian.Uint32(segment[tcpSequence:])}, true
}

// sentTo is where a packet of IPv6 goes, by what the kernel tells beside it.
func sentTo(oob []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		if err == nil && m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= net.IPv6len {
			return netip.AddrFrom16([net.IPv6len]byte(m.Data)), true
		}
	}
	return netip.Addr{}, false
}

// refuse notes a connection and answers as the kernel would: the program is found by its socket, which is there as long as it waits
// for the answer.
func (r *Refusals) refuse(a attempt, by Asker) {
	if !r.known[a] {
		if len(r.known) >= manyKnown {
			clear(r.known)
		}
		r.known[a] = true
		r.gateway.refusedInside(a.to, by, "")
	}
	packet := resetPacket(a.to, a.from, a.sequence+1)
	var back unix.Sockaddr = &unix.SockaddrInet6{Addr: a.from.Addr().As16()}
	if a.from.Addr().Is4() {
		back = &unix.SockaddrInet4{Addr: a.from.Addr().As4()}
	}
	_ = r.raw.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), packet, 0, back) }) // if it fails the program asks again in a second
}

func (r *Refusals) asker(a attempt) Asker {
	if r.udp { // whether its socket is connected is not known
		return r.gateway.askerAt("udp", a.from, netip.AddrPort{})
	}
	return r.gateway.askerAt("tcp", a.from, a.to)
}

// refusedUDP is what an answer of ICMP's is about: the beginning of the packet that was refused stands in it.
func refusedUDP(answer []byte, ip4 bool) (attempt, bool) {
	const icmpHeader = 8
	refused := answer[min(len(answer), icmpHeader):]
	var from, to netip.Addr
	var protocol byte
	if ip4 {
		if len(refused) < ip4Header {
			return attempt{}, false
		}
		from, to = netip.AddrFrom4([4]byte(refused[ip4From:])), netip.AddrFrom4([4]byte(refused[ip4To:]))
		protocol, refused = refused[ip4Protocol], behindIPv4(refused)
	} else {
		if len(refused) < ip6Header {
			return attempt{}, false
		}
		from, to = netip.AddrFrom16([16]byte(refused[ip6From:])), netip.AddrFrom16([16]byte(refused[ip6To:]))
		protocol, refused = refused[ip6Protocol], refused[ip6Header:]
	}
	ports, ok := portsOf(refused)
	return attempt{from: netip.AddrPortFrom(from, ports.from), to: netip.AddrPortFrom(to, ports.to)}, ok && protocol == unix.IPPROTO_UDP
}

// Sizes of headers, and where in them something is (RFC 791, 8200 and 9293).
const (
	ip4Header, ip4Length, ip4TTL, ip4Protocol, ip4From, ip4To                 = 20, 2, 8, 9, 12, 16
	ip6Header, ip6Length, ip6Protocol, ip6Hops, ip6From, ip6To                = 40, 4, 6, 7, 8, 24
	tcpHeader, tcpSequence, tcpAcknowledged, tcpOffset, tcpFlags, tcpChecksum = 20, 4, 8, 12, 13, 16
)

// resetPacket is the answer to the first packet of a connection where nothing listens: a packet of IP that resets it. The sequence number is
// the one that is acknowledged.
func resetPacket(from, to netip.AddrPort, acknowledged uint32) []byte {
	const resetAndAck, hops = 0x14, 64
	tcp := make([]byte, tcpHeader)
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[tcpAcknowledged:], acknowledged)
	tcp[tcpOffset], tcp[tcpFlags] = tcpHeader/4<<4, resetAndAck
	// It is over this, too, which stands for IP's header in either version.
	pseudo := append(append(from.Addr().AsSlice(), to.Addr().AsSlice()...), 0, unix.IPPROTO_TCP, 0, tcpHeader)
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], checksum(append(pseudo, tcp...)))

	var ip []byte
	if from.Addr().Is4() { // the kernel adds identification and checksum
		ip = make([]byte, ip4Header)
		ip[0], ip[ip4TTL], ip[ip4Protocol] = 4<<4|ip4Header/4, hops, unix.IPPROTO_TCP
		binary.BigEndian.PutUint16(ip[ip4Length:], ip4Header+tcpHeader)
		copy(ip[ip4From:], from.Addr().AsSlice())
		copy(ip[ip4To:], to.Addr().AsSlice())
	} else {
		ip = make([]byte, ip6Header)
		ip[0], ip[ip6Hops], ip[ip6Protocol] = 6<<4, hops, unix.IPPROTO_TCP
		binary.BigEndian.PutUint16(ip[ip6Length:], tcpHeader)
		copy(ip[ip6From:], from.Addr().AsSlice())
		copy(ip[ip6To:], to.Addr().AsSlice())
	}
	return append(ip, tcp...)
}

// checksum is the Internet's (RFC 1071), of whole words.
func checksum(data []byte) uint16 {
	var sum uint32
	for ; len(data) > 1; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
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
