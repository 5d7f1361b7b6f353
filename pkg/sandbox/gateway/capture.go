package gateway

import (
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
	expected map[uint16]expectation // by source port
}

// expectation is a connection that is about to be made.
type expectation struct {
	to netip.AddrPort
	by Asker
}

// Capture listens on the host's loopback interface until the gateway closes.
func (g *Gateway) Capture() (*Capture, error) {
	l, err := (&net.ListenConfig{}).Listen(g.ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Capture{gateway: g, listener: l, expected: map[uint16]expectation{}}, nil
}

// Addr is where the connections are to be made to.
func (c *Capture) Addr() netip.AddrPort { return netip.MustParseAddrPort(c.listener.Addr().String()) }

// Close ends the listener.
func (c *Capture) Close() error { return c.listener.Close() }

// Expect says that the connection from a port of 127.0.0.1 that is bound, but not connected yet, is meant for an address.
func (c *Capture) Expect(port uint16, to netip.AddrPort, by Asker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected[port] = expectation{to, by}
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
		e, ok := c.take(conn.RemoteAddr())
		if !ok {
			conn.Close()
			return nil
		}
		handle, slots := func(conn net.Conn) { c.gateway.pass(conn, net.TCPAddrFromAddrPort(e.to), e.by) }, c.gateway.conns
		if e.to.Port() == dnsPort {
			handle, slots = func(conn net.Conn) { c.gateway.answerStream(conn, e.by) }, c.gateway.queries
		}
		return c.gateway.begin(conn, slots, handle)
	})
}

const dnsPort = 53

func (c *Capture) take(from net.Addr) (expectation, bool) {
	tcp, ok := from.(*net.TCPAddr)
	if !ok || tcp.IP.String() != localAddress { // other users may have the port at other addresses
		return expectation{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.expected[uint16(tcp.Port)]
	delete(c.expected, uint16(tcp.Port))
	return e, ok
}

// Allows tells whether a connection to an address may be captured. If not, the caller may have a use for it, or else must Refuse it.
func (c *Capture) Allows(to netip.AddrPort) bool {
	if to.Port() == dnsPort {
		return true
	}
	t, ok := c.gateway.targetOf(net.TCPAddrFromAddrPort(to))
	// "localhost" means 127.0.0.1 where both tiers have it: a client that tries ::1 first must be refused, to go on to that.
	return ok && (t.rule.Host != "localhost" || to.Addr().Unmap().Is4())
}

// Known tells whether an address was made up for a name.
func (c *Capture) Known(a netip.Addr) bool {
	_, ok := c.gateway.names.name(a)
	return ok
}

// Answer makes the reply to a DNS question, nil for what is none.
func (c *Capture) Answer(msg []byte, by Asker) []byte { return c.gateway.answer(msg, by) }

// Resolve is the address that stands for a name, if a rule allows it.
func (c *Capture) Resolve(name string, by Asker) (netip.Addr, bool) {
	asked, err := dnsmessage.NewName(name)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, _ := c.gateway.resolve(dnsmessage.Question{Name: asked, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}, by)
	return addr, addr.IsValid()
}

// Refuse reports something that was refused outside of the gateway; why is "" where no rule allows the address.
func (c *Capture) Refuse(by Asker, to netip.AddrPort, why string) {
	t, _ := c.gateway.targetOf(net.TCPAddrFromAddrPort(to))
	t.by = by
	c.gateway.deny(t, why)
}
