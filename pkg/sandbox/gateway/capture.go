package gateway

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// A Capture is the gateway's way in for a sandbox that shares the host's network: each connection that the sandbox
// wants to make is made to the capture's listener instead, by somebody whom the sandbox cannot fool, and the capture
// is told before from which port it comes and where it was to go. Whatever else comes is closed.
type Capture struct {
	gateway  *Gateway
	listener net.Listener
	mu       sync.Mutex
	expected map[uint16]netip.AddrPort // by source port
}

// Capture listens on the host's loopback interface until the gateway closes.
func (g *Gateway) Capture() (*Capture, error) {
	l, err := (&net.ListenConfig{}).Listen(g.ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Capture{gateway: g, listener: l, expected: map[uint16]netip.AddrPort{}}, nil
}

// Addr is where the connections are to be made to.
func (c *Capture) Addr() netip.AddrPort { return netip.MustParseAddrPort(c.listener.Addr().String()) }

// Close ends the listener.
func (c *Capture) Close() error { return c.listener.Close() }

// Expect says that the connection from a port of 127.0.0.1 that is bound, but not connected yet, is meant for an address.
func (c *Capture) Expect(port uint16, to netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected[port] = to
}

// Forget takes an Expect back whose connection was not made.
func (c *Capture) Forget(port uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.expected, port)
}

// Serve passes connections on until the capture is closed.
func (c *Capture) Serve() error {
	return acceptEach(c.listener, func(conn net.Conn) error {
		to, ok := c.take(conn.RemoteAddr())
		if !ok {
			conn.Close()
			return nil
		}
		handle, slots := func(conn net.Conn) { c.gateway.pass(conn, net.TCPAddrFromAddrPort(to)) }, c.gateway.conns
		if to.Port() == dnsPort {
			handle, slots = c.gateway.answerStream, c.gateway.queries
		}
		return c.gateway.begin(conn, slots, handle)
	})
}

const dnsPort = 53

func (c *Capture) take(from net.Addr) (netip.AddrPort, bool) {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	to, ok := c.expected[uint16(tcp.Port)]
	delete(c.expected, uint16(tcp.Port))
	return to, ok
}

// ErrRefused says that no rule allows an address.
var ErrRefused = errors.New("no rule allows it")

// Check tells whether a connection to an address may be captured; if not, it is a refusal that is reported,
// except where the caller has a better use for the address.
func (c *Capture) Check(to netip.AddrPort, report bool) error {
	if to.Port() == dnsPort {
		return nil
	}
	t, ok := c.gateway.targetOf(net.TCPAddrFromAddrPort(to))
	// "localhost" means 127.0.0.1 where both tiers have it: a client that tries ::1 first must be refused, to go on to that.
	if ok && (t.rule.Host != "localhost" || to.Addr().Unmap().Is4()) {
		return nil
	}
	if report {
		c.gateway.denials.add(t.String(), "")
	}
	return ErrRefused
}

// Known tells whether an address was made up for a name.
func (c *Capture) Known(a netip.Addr) bool {
	_, ok := c.gateway.names.name(a)
	return ok
}

// Answer makes the reply to a DNS question, nil for what is none.
func (c *Capture) Answer(msg []byte) []byte { return c.gateway.answer(msg) }

// Resolve is the address that stands for a name, if a rule allows it.
func (c *Capture) Resolve(name string) (netip.Addr, bool) {
	asked, err := dnsmessage.NewName(name)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, _ := c.gateway.resolve(dnsmessage.Question{Name: asked, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET})
	return addr, addr.IsValid()
}

// Refuse reports something that was refused outside of the gateway.
func (c *Capture) Refuse(to netip.AddrPort, why string) {
	t, _ := c.gateway.targetOf(net.TCPAddrFromAddrPort(to))
	c.gateway.denials.add(t.String(), why)
}
