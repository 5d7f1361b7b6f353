package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Options say what a Gateway allows and how it reaches the world.
type Options struct {
	Rules Rules
	// Dial connects to a host and port from the host's side. With vet it must connect only
	// to addresses for which vet returns nil. The Dialer of this package is the usual one.
	Dial func(ctx context.Context, host string, port int, vet func(netip.Addr) error) (net.Conn, error)
	// Swap, if set, gives the service the key that the sandbox does not have.
	Swap *KeySwap
	// Denied, if set, hears of each refusal as it happens.
	Denied func(Denial)
	// Program, if set, names the program inside that has a socket of a network ("tcp" or "udp") with its own address and,
	// if valid, the one it is connected to; "" where it is not known. It is asked about what is refused only.
	Program func(network string, from, to netip.AddrPort) string
	// Local are names of the sandbox itself, which are resolved to 127.0.0.1: for a sandbox that reads no hosts file.
	Local []string
}

// Gateway passes connections of a sandbox on to the hosts that its rules allow.
type Gateway struct {
	rules   Rules
	dial    func(ctx context.Context, host string, port int, vet func(netip.Addr) error) (net.Conn, error)
	names   *names
	denials denials
	conns   chan struct{} // one slot for each connection at once, over all listeners
	queries chan struct{} // likewise for DNS over TCP
	program func(network string, from, to netip.AddrPort) string
	swap    *swapServer // nil where nothing is swapped
	local   []string
	pipes   pipes

	ctx    context.Context
	cancel context.CancelFunc
}

// New makes a gateway that lives until ctx ends or Close is called.
func New(ctx context.Context, o Options) *Gateway {
	g := &Gateway{
		rules: o.Rules, dial: o.Dial, names: newNames(o.Rules),
		conns: make(chan struct{}, maxConns()), queries: make(chan struct{}, maxQueries), local: o.Local, program: o.Program,
	}
	g.denials.index, g.denials.targets, g.denials.notify = map[Denial]int{}, map[string]bool{}, o.Denied
	g.ctx, g.cancel = context.WithCancel(ctx)
	context.AfterFunc(g.ctx, g.pipes.close)
	if o.Swap != nil {
		g.swap = newSwapServer(g, o.Swap)
	}
	return g
}

// Context ends when the gateway does.
func (g *Gateway) Context() context.Context { return g.ctx }

// Close ends all connections.
func (g *Gateway) Close() { g.cancel() }

// Denials is what was refused so far, in the order of first refusal.
func (g *Gateway) Denials() []Denial { return g.denials.all() }

// Serve accepts the sandbox's connections until the listener is closed. The address a
// connection was made *to* says which host is meant.
func (g *Gateway) Serve(l net.Listener) error { return g.serve(l, g.conns, g.handle) }

// maxQueries bounds the DNS questions over TCP that are answered at once.
const maxQueries = 64

// maxConns bounds the connections passed on at once, so that the sandbox cannot use up the
// descriptors of the process that holds it. Each takes two; pipes of splice are there for what is on the way only, and where there are none
// it goes without.
func maxConns() int { return max(16, min(descriptorLimit()/4, 4096)) }

func (g *Gateway) serve(l net.Listener, slots chan struct{}, handle func(net.Conn)) error {
	return acceptEach(l, func(conn net.Conn) error { return g.begin(conn, slots, handle) })
}

// acceptEach takes connections until the listener is closed or one cannot be begun.
func acceptEach(l net.Listener, begin func(net.Conn) error) error {
	unpaceListener(l)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || isFull(err) {
				time.Sleep(10 * time.Millisecond) // out of descriptors: others will end
				continue
			}
			return err
		}
		if err := begin(conn); err != nil {
			return err
		}
	}
}

// begin handles a connection in the background when there is a slot for it.
func (g *Gateway) begin(conn net.Conn, slots chan struct{}, handle func(net.Conn)) error {
	select {
	case slots <- struct{}{}:
	case <-g.ctx.Done():
		conn.Close()
		return g.ctx.Err()
	}
	go func() {
		defer func() { <-slots }()
		defer g.closing(conn)()
		handle(conn)
	}()
	return nil
}

// closing closes a connection by calling what it returns, and breaks it when the gateway ends before.
func (g *Gateway) closing(conn net.Conn) func() {
	stop := context.AfterFunc(g.ctx, func() { reset(conn) })
	return func() {
		stop()
		conn.Close()
	}
}

// target is where a connection of the sandbox wants to go.
type target struct {
	host string // name or address
	port int
	rule Rule
	name bool // host is a name, so TLS must name it
	by   Asker
}

// Asker names the program of the sandbox that wants something, "" where that is not known. It may take a while, and is
// only called for what is refused. Nil means that it is never known.
type Asker func() string

// askerOf is the asker behind a connection of the sandbox.
func (g *Gateway) askerOf(conn net.Conn) Asker {
	from, fromTCP := conn.RemoteAddr().(*net.TCPAddr)
	to, toTCP := conn.LocalAddr().(*net.TCPAddr)
	if !fromTCP || !toTCP {
		return nil
	}
	return g.askerAt("tcp", from.AddrPort(), to.AddrPort())
}

// askerAt is the asker that has a socket of a network.
func (g *Gateway) askerAt(network string, from, to netip.AddrPort) Asker {
	if g.program == nil {
		return nil
	}
	unmapped := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
	return func() string { return g.program(network, unmapped(from), unmapped(to)) }
}

func (t target) String() string { return net.JoinHostPort(t.host, strconv.Itoa(t.port)) }

// targetOf finds out what the sandbox meant by the address it connected to.
func (g *Gateway) targetOf(local net.Addr) (target, bool) {
	ap, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return target{host: local.String()}, false
	}
	addr := ap.Addr().Unmap()
	t := target{host: addr.String(), port: int(ap.Port())}
	if name, ok := g.names.name(addr); ok {
		t.host, t.name = name, true
	}
	return g.allow(t)
}

const localAddress = "127.0.0.1"

// allow finds the rule for a target.
func (g *Gateway) allow(t target) (target, bool) {
	rule, ok := g.rules.Find(t.host, t.port)
	if !ok && t.host == localAddress {
		// A rule for "localhost" is reached by the address that every hosts file gives it, and by no other: on those other servers may listen,
		// those of the sandbox among them.
		rule, ok = g.rules.Find("localhost", t.port)
	}
	t.rule = rule
	return t, ok
}

func (g *Gateway) handle(conn net.Conn) { g.pass(conn, conn.LocalAddr(), g.askerOf(conn)) }

// pass passes a connection on to what the sandbox meant by an address.
func (g *Gateway) pass(conn net.Conn, to net.Addr, by Asker) {
	t, ok := g.targetOf(to)
	t.by = by
	if !ok {
		g.refuse(conn, t, "")
		return
	}
	g.passTo(conn, t)
}

// passTo passes a connection on to a target that a rule allows.
func (g *Gateway) passTo(conn net.Conn, t target) {
	var err error
	switch {
	case g.swap != nil && g.swap.swap.covers(t):
		err = g.swap.pass(conn, t)
	case t.port == 443 && t.name:
		err = g.passTLS(conn, t)
	case t.port == 80 && t.name:
		err = g.passHTTP(conn, t)
	default:
		err = g.passAny(conn, t)
	}
	if e, ok := errors.AsType[*refusedError](err); ok {
		g.refuse(conn, t, e.why)
		return
	}
	if err != nil {
		reset(conn) // the client must see a failure, not a clean end
		return
	}
	conn.Close()
}

// refusedError is a connection that the rules do not allow after all.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return "refused: " + e.why }

func (g *Gateway) refuse(conn net.Conn, t target, why string) {
	g.deny(t, why)
	reset(conn)
}

// deny notes that a target was refused.
func (g *Gateway) deny(t target, why string) { g.denials.add(t.by, t.String(), why) }

// helloTimeout is how long a client may take to say whom it wants. One that opens hundreds of connections before it speaks on the first needs long.
const helloTimeout = time.Minute

// passTLS dials only when the client has named the host it resolved: a connection
// to one allowed host must not be a way to others behind the same front.
func (g *Gateway) passTLS(conn net.Conn, t target) error {
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	hello, name, err := readHello(g.ctx, nil, conn)
	if err != nil {
		return err
	}
	if err := checkName(name, t); err != nil {
		return err
	}
	return g.passFrom(conn, t, hello)
}

// passFrom passes on a connection that has said whom it wants, and that from its beginning.
func (g *Gateway) passFrom(conn net.Conn, t target, beginning []byte) error {
	up, end, err := g.openFrom(conn, t, beginning)
	if err != nil {
		return err
	}
	defer end()
	return g.relay(conn, up)
}

// openFrom connects to the host for a client that has said whom it wants, and passes on what that was.
func (g *Gateway) openFrom(conn net.Conn, t target, beginning []byte) (up net.Conn, end func(), err error) {
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	if up, err = g.connect(t); err != nil {
		return nil, nil, err
	}
	end = g.closing(up)
	if _, err := up.Write(beginning); err != nil {
		end()
		return nil, nil, err
	}
	return up, end, nil
}

// passAny lets either side speak first, and still checks the name if the client turns out to speak TLS.
func (g *Gateway) passAny(conn net.Conn, t target) error {
	up, err := g.connect(t)
	if err != nil {
		return err
	}
	defer g.closing(up)()
	if !t.name {
		return g.relay(conn, up)
	}
	back := make(chan error, 1)
	go func() { back <- g.copyHalf(conn, up) }()
	head := make([]byte, 2)
	n, err := io.ReadAtLeast(conn, head, 1)
	if n == 0 {
		// The client ended its side without a word; the answer may still be on its way.
		if errors.Is(err, io.EOF) {
			closeWrite(up)
			return <-back
		}
		return err
	}
	if n == 1 && head[0] >= recordFirst && head[0] <= recordLast {
		if _, err := io.ReadFull(conn, head[1:]); err == nil {
			n = 2
		}
	}
	head = head[:n]
	if n == 2 && looksLikeTLS(head) {
		if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
			return err
		}
		var name string
		head, name, err = readHello(g.ctx, head, conn)
		if err == nil {
			err = checkName(name, t)
		}
		if err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
	if _, err := up.Write(head); err != nil {
		return err
	}
	err = g.copyHalf(up, conn)
	return errors.Join(err, <-back)
}

func checkName(sni string, t target) error {
	if sni == "" {
		return &refusedError{"TLS without a server name"}
	}
	if name, ok := CanonicalName(sni); !ok || name != t.host {
		return &refusedError{fmt.Sprintf("TLS server name %s", oneWord(sni))}
	}
	return nil
}

func (g *Gateway) connect(t target) (net.Conn, error) {
	vet := publicOnly
	if t.rule.MayBePrivate() {
		vet = func(netip.Addr) error { return nil }
	}
	return g.dial(g.ctx, t.host, t.port, vet)
}

// relay copies both ways until both sides have ended.
func (g *Gateway) relay(a, b net.Conn) error {
	errs := make([]error, 2)
	var wg sync.WaitGroup
	wg.Go(func() { errs[0] = g.copyHalf(b, a) })
	wg.Go(func() { errs[1] = g.copyHalf(a, b) })
	wg.Wait()
	return errors.Join(errs...)
}

// copyHalf copies one direction and passes the end of the stream on. After an error both ends are
// broken: the other direction would wait for ever, and a stream that was cut off must not look like one that ended.
func (g *Gateway) copyHalf(dst, src net.Conn) error {
	over, err := g.pipes.move(dst, src)
	if !over {
		_, err = io.Copy(dst, src)
	}
	if err != nil {
		reset(dst)
		reset(src)
		return err
	}
	closeWrite(dst)
	return nil
}

func closeWrite(c net.Conn) {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite() // the peer may be gone already
		return
	}
	c.Close()
}

// reset closes with RST, so that the client fails at once instead of seeing an empty answer.
func reset(c net.Conn) {
	if tcp, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // at worst it is a clean end after all
	}
	c.Close()
}
