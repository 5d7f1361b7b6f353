package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/http/httpproxy"
)

type world struct {
	t *testing.T
	g *Gateway
}

func newWorld(t *testing.T, dial func(context.Context, string, int, func(netip.Addr) error) (net.Conn, error), rules ...string) *world {
	t.Helper()
	var rs Rules
	for _, s := range rules {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	w := &world{t, New(t.Context(), Options{Rules: rs, Dial: dial})}
	t.Cleanup(w.g.Close)
	return w
}

// connect is what a program in the sandbox does that connects to address:port.
func (w *world) connect(addr netip.Addr, port uint16) *net.TCPConn {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	to := net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, port))
	if err := w.g.begin(s, w.g.conns, func(conn net.Conn) { w.g.pass(conn, to, nil) }); err != nil {
		w.t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// lookup asks the stub for a name.
func (w *world) lookup(name string) (netip.Addr, dnsmessage.RCode) {
	w.t.Helper()
	q := dnsmessage.Question{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	return w.g.resolve(q, nil)
}

// toServer dials a test server whatever the name, as if the name's address were addr.
func toServer(s *httptest.Server, addr string) func(context.Context, string, int, func(netip.Addr) error) (net.Conn, error) {
	return func(ctx context.Context, _ string, _ int, vet func(netip.Addr) error) (net.Conn, error) {
		if err := vet(netip.MustParseAddr(addr)); err != nil {
			return nil, err
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
	}
}

const public = "93.184.216.34"

func okServer(t *testing.T, start func(http.Handler) *httptest.Server) *httptest.Server {
	s := start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "SERVED") }))
	t.Cleanup(s.Close)
	return s
}

func TestTLSNeedsTheNameThatWasResolved(t *testing.T) {
	s := okServer(t, httptest.NewTLSServer)
	w := newWorld(t, toServer(s, public), "example.com", "*.other.com")
	addr, _ := w.lookup("example.com")
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	get := func(sni string) error {
		c := tls.Client(w.connect(addr, 443), &tls.Config{ServerName: sni, RootCAs: roots, InsecureSkipVerify: sni == ""})
		return c.HandshakeContext(t.Context())
	}
	if err := get("example.com"); err != nil {
		t.Errorf("the right name: %v", err)
	}
	for _, sni := range []string{"", "x.other.com", "evil.com"} {
		if get(sni) == nil {
			t.Errorf("server name %q got through", sni)
		}
	}
	c := w.connect(addr, 443)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("plain HTTP on 443 got through")
	}
	var reasons []string
	for _, d := range w.g.Denials() {
		if d.Target != "example.com:443" {
			t.Errorf("denied %+v", d)
		}
		reasons = append(reasons, d.Reason)
	}
	if got := strings.Join(reasons, "; "); got != "TLS without a server name; TLS server name x.other.com; TLS server name evil.com; not TLS" {
		t.Errorf("reasons: %s", got)
	}
}

func TestTLSNameIsCheckedOnOtherPortsToo(t *testing.T) {
	s := okServer(t, httptest.NewTLSServer)
	w := newWorld(t, toServer(s, public), "example.com:8443")
	addr, _ := w.lookup("example.com")
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if err := tls.Client(w.connect(addr, 8443), &tls.Config{ServerName: "example.com", RootCAs: roots}).HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	if tls.Client(w.connect(addr, 8443), &tls.Config{ServerName: "evil.com", RootCAs: roots}).HandshakeContext(t.Context()) == nil {
		t.Error("another server name got through")
	}
}

func TestTLSBehindAnotherRecordIsStillChecked(t *testing.T) {
	s := okServer(t, httptest.NewTLSServer)
	w := newWorld(t, toServer(s, public), "example.com:8443")
	addr, _ := w.lookup("example.com")
	c := w.connect(addr, 8443)
	if _, err := c.Write([]byte{21, 3, 1, 0, 2, 1, 90}); err != nil { // a warning, which Go's servers skip
		t.Fatal(err)
	}
	if tls.Client(c, &tls.Config{ServerName: "evil.com", InsecureSkipVerify: true}).HandshakeContext(t.Context()) == nil {
		t.Error("another server name got through")
	}
}

func TestServerMaySpeakFirst(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
		got, _ := io.ReadAll(c)
		_, _ = c.Write(got)
	}()
	w := newWorld(t, func(context.Context, string, int, func(netip.Addr) error) (net.Conn, error) {
		return net.Dial("tcp", l.Addr().String())
	}, "git.example:22")
	addr, _ := w.lookup("git.example")
	c := w.connect(addr, 22)
	banner := make([]byte, 11)
	if _, err := io.ReadFull(c, banner); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("after the half-close: %q, %v", got, err)
	}
}

func TestPrivateTargets(t *testing.T) {
	s := okServer(t, httptest.NewServer)
	for rule, want := range map[string]bool{"rebound.evil.example": false, "*.evil.example": false, "*.evil.example:80": false, "rebound.evil.example:80": true} {
		w := newWorld(t, toServer(s, "10.0.0.7"), rule)
		addr, _ := w.lookup("rebound.evil.example")
		c := w.connect(addr, 80)
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		got, _ := io.ReadAll(c)
		if strings.Contains(string(got), "SERVED") != want {
			t.Errorf("%s: %q", rule, got)
		}
		if !want && (len(w.g.Denials()) != 1 || !strings.Contains(w.g.Denials()[0].Reason, "private")) {
			t.Errorf("%s: denials %+v", rule, w.g.Denials())
		}
	}
}

func TestUnknownAddressesAndPortsAreRefused(t *testing.T) {
	dialed := false
	w := newWorld(t, func(context.Context, string, int, func(netip.Addr) error) (net.Conn, error) {
		dialed = true
		return nil, errors.New("dialed")
	}, "example.com", "git.example:22")
	known, _ := w.lookup("example.com")
	for _, target := range []netip.AddrPort{
		netip.MustParseAddrPort("1.1.1.1:443"),
		netip.MustParseAddrPort("198.18.200.200:443"),
		netip.AddrPortFrom(known, 22),
	} {
		c := w.connect(target.Addr(), target.Port())
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, want a reset", target, err)
		}
	}
	if dialed {
		t.Error("the host was asked to connect")
	}
	var got []string
	for _, d := range w.g.Denials() {
		got = append(got, d.Target)
	}
	if strings.Join(got, " ") != "1.1.1.1:443 198.18.200.200:443 example.com:22" {
		t.Errorf("denials %q", got)
	}
}

func TestLookup(t *testing.T) {
	w := newWorld(t, nil, "ampcode.com", "*.ampcode.com")
	for _, name := range []string{"ampcode.com", "AMPCODE.com", "x.y.ampcode.com"} {
		if a, code := w.lookup(name); code != dnsmessage.RCodeSuccess || !fakePrefix.Contains(a) {
			t.Errorf("%s: %v %v", name, a, code)
		}
	}
	a, _ := w.lookup("ampcode.com")
	if b, _ := w.lookup("AmpCode.com"); a != b {
		t.Errorf("one name, two addresses: %v, %v", a, b)
	}
	for _, name := range []string{"evilampcode.com", "ampcode.com.evil.com", "com", "a b.ampcode.com", "a\x00.ampcode.com", "a\r\n.ampcode.com", "\x1b[2J.evil.com"} {
		if _, code := w.lookup(name); code != dnsmessage.RCodeNameError {
			t.Errorf("%q: %v", name, code)
		}
	}
	for _, d := range w.g.Denials() {
		if strings.ContainsAny(d.Target, "\x00\r\n\x1b") {
			t.Errorf("a denial that would talk to a terminal: %q", d.Target)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	n := newNames(nil)
	for i := range maxNames {
		if _, ok := n.addr(strconv.Itoa(i)); !ok {
			t.Fatalf("full after %d", i)
		}
	}
	if _, ok := n.addr("one more"); ok {
		t.Error("no bound")
	}
	if a, ok := n.addr("7"); !ok || !fakePrefix.Contains(a) {
		t.Error("a known name is lost")
	}
}

func TestThroughProxy(t *testing.T) {
	s := okServer(t, httptest.NewServer)
	var asked, auth string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, auth = r.Method+" "+r.Host, r.Header.Get("Proxy-Authorization")
		if r.Host == "refused.example:80" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		up, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		_ = (&Gateway{}).relay(c, up)
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "secret")
	d := &Dialer{Proxy: &httpproxy.Config{HTTPProxy: u.String(), HTTPSProxy: u.String()}}
	w := newWorld(t, d.Dial, "example.com", "refused.example")
	addr, _ := w.lookup("example.com")
	c := w.connect(addr, 80)
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	got, _ := io.ReadAll(c)
	if !strings.Contains(string(got), "SERVED") || asked != "CONNECT example.com:80" || auth != "Basic bWU6c2VjcmV0" {
		t.Errorf("%q, asked %q with %q", got, asked, auth)
	}
	if _, err := d.Dial(t.Context(), "refused.example", 80, publicOnly); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("refusal: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	msg := dnsmessage.Message{Header: dnsmessage.Header{ID: 1}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("ampcode.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	seed, err := msg.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		g := New(t.Context(), Options{Rules: Rules{{Host: "ampcode.com"}}})
		defer g.Close()
		if a := g.answer(data, nil); len(a) > 512 {
			t.Errorf("%d bytes", len(a))
		}
	})
}
