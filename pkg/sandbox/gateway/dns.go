package gateway

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// fakePrefix is where made-up addresses come from: RFC 2544's benchmark range,
// which no real service uses and which programs do not treat as private.
var fakePrefix = netip.MustParsePrefix("198.18.0.0/15")

// maxNames bounds the table of names: under a wildcard the sandbox can make up as many as it likes.
const maxNames = 1 << 16

// names gives every allowed name an address of its own and finds it again.
type names struct {
	mu     sync.Mutex
	byName map[string]netip.Addr
	byAddr map[netip.Addr]string
	next   netip.Addr
}

// newNames begins with the names that rules name outright: names made up under a
// wildcard cannot take their places.
func newNames(rules Rules) *names {
	n := &names{
		byName: map[string]netip.Addr{},
		byAddr: map[netip.Addr]string{},
		next:   fakePrefix.Addr().Next(),
	}
	for _, r := range rules {
		if _, ok := CanonicalName(r.Host); ok {
			n.addr(r.Host)
		}
	}
	return n
}

func (n *names) addr(name string) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.byName[name]; ok {
		return a, true
	}
	if len(n.byName) >= maxNames {
		return netip.Addr{}, false
	}
	a := n.next
	n.next = a.Next()
	n.byName[name], n.byAddr[a] = a, name
	return a, true
}

func (n *names) name(a netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.byAddr[a]
	return s, ok
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// ServeDNS answers questions on a UDP socket until it is closed. Where the socket
// delivers packet info, answers leave from the address that was asked.
func (g *Gateway) ServeDNS(conn *net.UDPConn) error {
	buf, oob := make([]byte, 1500), make([]byte, 128)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return err
		}
		if answer := g.answer(buf[:n], g.askerAt("udp", from, netip.AddrPort{})); answer != nil {
			// An answer that cannot be sent is a lost datagram: the client asks again.
			_, _, _ = conn.WriteMsgUDPAddrPort(answer, replyFrom(oob[:oobn]), from)
		}
	}
}

// ServeDNSStream answers questions over TCP until the listener is closed.
func (g *Gateway) ServeDNSStream(l net.Listener) error {
	return g.serve(l, g.queries, func(conn net.Conn) { g.answerStream(conn, g.askerOf(conn)) })
}

func (g *Gateway) answerStream(conn net.Conn, by Asker) {
	defer conn.Close()
	for {
		if conn.SetDeadline(time.Now().Add(queryTimeout)) != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		answer := g.answer(msg, by)
		if answer == nil {
			return
		}
		out := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := conn.Write(append(out, answer...)); err != nil {
			return
		}
	}
}

// queryTimeout is how long a client may take over one question by TCP.
const queryTimeout = 10 * time.Second

// answer makes the reply to one question, nil for what is no question. Nothing is
// ever asked of another server on behalf of the sandbox: a question could carry data out.
func (g *Gateway) answer(msg []byte, by Asker) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(msg)
	if err != nil || head.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	reply := dnsmessage.Header{
		ID: head.ID, Response: true, Authoritative: true,
		RecursionDesired: head.RecursionDesired, RecursionAvailable: true,
	}
	addr, code := g.resolve(q, by)
	reply.RCode = code
	b := dnsmessage.NewBuilder(nil, reply)
	b.EnableCompression()
	if b.StartQuestions() != nil || b.Question(q) != nil || b.StartAnswers() != nil {
		return nil
	}
	if addr.IsValid() {
		rr := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
		if b.AResource(rr, dnsmessage.AResource{A: addr.As4()}) != nil {
			return nil
		}
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

func (g *Gateway) resolve(q dnsmessage.Question, by Asker) (netip.Addr, dnsmessage.RCode) {
	asked := strings.TrimSuffix(q.Name.String(), ".")
	name, ok := CanonicalName(asked)
	if ok && slices.Contains(g.local, name) {
		if q.Type != dnsmessage.TypeA || q.Class != dnsmessage.ClassINET {
			return netip.Addr{}, dnsmessage.RCodeSuccess
		}
		return loopback, dnsmessage.RCodeSuccess
	}
	if !ok || !g.rules.Resolves(name) {
		// Clients ask for A and AAAA together; one attempt should count once.
		if q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeAAAA && !g.denials.has(asked) {
			g.denials.add(by, asked, "")
		}
		return netip.Addr{}, dnsmessage.RCodeNameError
	}
	if q.Type != dnsmessage.TypeA || q.Class != dnsmessage.ClassINET {
		return netip.Addr{}, dnsmessage.RCodeSuccess // the name exists, it has just no such record
	}
	addr, ok := g.names.addr(name)
	if !ok {
		return netip.Addr{}, dnsmessage.RCodeServerFailure
	}
	return addr, dnsmessage.RCodeSuccess
}
