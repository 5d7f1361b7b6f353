package cmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// dnsStub is a name server on loopback that knows names ending in ".test", says code of all others, and nothing at all where silent.
func dnsStub(t *testing.T, code dnsmessage.RCode, silent bool) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if silent || m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, code, nil
			if strings.HasSuffix(q.Name.String(), ".test.") {
				m.RCode = dnsmessage.RCodeSuccess
				if q.Type == dnsmessage.TypeA {
					m.Answers = []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
						Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
					}}
				}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// certificate is one that a CA made for the test signed, and the CA.
func certificate(t *testing.T, name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Nosy Proxy CA", Organization: []string{"Example Corp"}},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// onTLS makes the world's service one over TLS, at https://amp.test.
func onTLS(t *testing.T, w *world, s *amptest.Service, name string, until time.Time, trusted bool) {
	t.Helper()
	cert, roots := certificate(t, name, until)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, s.Handler())
	if trusted {
		w.rootCAs = roots
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w.env["AMP_URL"] = "https://amp.test:" + port + "/"
	w.resolver = dnsStub(t, dnsmessage.RCodeNameError, false)
}

func serve(t *testing.T, l net.Listener, handler http.Handler) {
	t.Helper()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

// behind puts a handler before the world's service.
func behind(t *testing.T, w *world, handler func(*httputil.ReverseProxy) http.HandlerFunc) {
	t.Helper()
	to, err := url.Parse(w.env["AMP_URL"])
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(handler(httputil.NewSingleHostReverseProxy(to)))
	t.Cleanup(front.Close)
	w.env["AMP_URL"] = front.URL + "/"
}

func portOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// listener is one on loopback, and what it does with each connection.
func listener(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go do(conn)
		}
	}()
	return l.Addr().String()
}

// TestDoctorRouteFaults breaks one step of the way to the service each.
func TestDoctorRouteFaults(t *testing.T) {
	tomorrow := time.Now().Add(30 * time.Minute)
	proxyAnswering := func(status int) func(*testing.T, *world, *amptest.Service) []string {
		return func(t *testing.T, w *world, s *amptest.Service) []string {
			onTLS(t, w, s, "amp.test", tomorrow, true)
			proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", status) }))
			t.Cleanup(proxy.Close)
			w.env["HTTPS_PROXY"] = proxy.URL
			return nil
		}
	}
	proxyAt := func(address string) func(*testing.T, *world, *amptest.Service) []string {
		return func(t *testing.T, w *world, s *amptest.Service) []string {
			onTLS(t, w, s, "amp.test", tomorrow, true)
			w.env["HTTPS_PROXY"] = address
			return nil
		}
	}
	resolvedBy := func(code dnsmessage.RCode, silent bool) func(*testing.T, *world, *amptest.Service) []string {
		return func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.env["AMP_URL"] = "https://amp.example/"
			w.resolver = dnsStub(t, code, silent)
			return nil
		}
	}
	fronted := func(handler func(*httputil.ReverseProxy) http.HandlerFunc) func(*testing.T, *world, *amptest.Service) []string {
		return func(t *testing.T, w *world, _ *amptest.Service) []string {
			behind(t, w, handler)
			return nil
		}
	}
	answering := func(status int, kind, body string) func(*testing.T, *world, *amptest.Service) []string {
		return fronted(func(*httputil.ReverseProxy) http.HandlerFunc {
			return func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", kind)
				rw.Header().Set("Location", "https://elsewhere.example/")
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, body)
			}
		})
	}
	dated := func(off time.Duration) func(*testing.T, *world, *amptest.Service) []string {
		return fronted(func(p *httputil.ReverseProxy) http.HandlerFunc {
			p.ModifyResponse = func(r *http.Response) error {
				r.Header.Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
				return nil
			}
			return p.ServeHTTP
		})
	}
	tests := []doctorFault{
		{name: "no such name", spoil: resolvedBy(dnsmessage.RCodeNameError, false), failed: []string{"service.dns"}, summary: "amp.example, does not exist", remedy: "`getent hosts amp.example`"},
		{name: "name server in trouble", spoil: resolvedBy(dnsmessage.RCodeServerFailure, false), failed: []string{"service.dns"}, summary: "no name server answers", remedy: "`cat /etc/resolv.conf`"},
		{name: "name server is silent", spoil: resolvedBy(0, true), failed: []string{"service.dns"}, summary: "amp.example", remedy: "getent hosts"},
		{name: "certificate of a stranger's CA", spoil: func(t *testing.T, w *world, s *amptest.Service) []string {
			onTLS(t, w, s, "amp.test", tomorrow, false)
			return nil
		}, failed: []string{"service.tls"}, summary: "signed by Nosy Proxy CA (Example Corp), whom this machine does not trust", remedy: "update-ca-certificates"},
		{name: "certificate expired", spoil: func(t *testing.T, w *world, s *amptest.Service) []string {
			onTLS(t, w, s, "amp.test", time.Now().Add(-time.Hour), true)
			return nil
		}, failed: []string{"service.tls"}, summary: "is not valid at this time", remedy: "timedatectl"},
		{name: "certificate of another name", spoil: func(t *testing.T, w *world, s *amptest.Service) []string {
			onTLS(t, w, s, "portal.test", tomorrow, true)
			return nil
		}, failed: []string{"service.tls"}, summary: "for another name than amp.test", remedy: "captive portal"},
		{name: "no TLS at the port", spoil: func(t *testing.T, w *world, s *amptest.Service) []string {
			w.env["AMP_URL"] = "https://127.0.0.1:" + portOf(t, s.URL()) + "/"
			return nil
		}, failed: []string{"service.tls"}, summary: "no encrypted connection", remedy: "is the port in amp.url right?"},
		{name: "connection is cut", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.env["AMP_URL"] = "https://" + listener(t, func(c net.Conn) { c.Close() }) + "/"
			return nil
		}, failed: []string{"service.tls"}, summary: "no encrypted connection"},
		{name: "proxy is no address", spoil: proxyAt("http://%zz"), failed: []string{"service.proxy"}, summary: "HTTPS_PROXY or HTTP_PROXY is no URL", remedy: "set HTTPS_PROXY"},
		{name: "proxy of a kind that cannot be used", spoil: proxyAt("socks5://user:secret@127.0.0.1:1"), failed: []string{"service.proxy"}, summary: "socks5://user:xxxxx@127.0.0.1:1: only http proxies work", remedy: "http:// proxy"},
		{name: "proxy is down", spoil: proxyAt("http://127.0.0.1:1"), failed: []string{"service.tcp"}, summary: "the proxy at 127.0.0.1:1 takes no connection", remedy: "HTTPS_PROXY"},
		{name: "proxy's name", spoil: proxyAt("http://proxy.example:3128"), failed: []string{"service.dns"}, summary: "the name of the proxy, proxy.example, does not exist"},
		{name: "proxy wants a user", spoil: proxyAnswering(407), failed: []string{"service.tls"}, summary: "does not connect to amp.test", remedy: "HTTPS_PROXY=http://USER:PASSWORD@"},
		{name: "proxy forbids the service", spoil: proxyAnswering(403), failed: []string{"service.tls"}, summary: "does not connect to amp.test", remedy: "does the proxy allow amp.test"},
		{name: "captive portal", spoil: answering(200, "text/html", "<html>log in"), failed: []string{"service.host"}, summary: "a web page answers", remedy: "log in to the network"},
		{name: "redirected", spoil: answering(302, "text/plain", ""), failed: []string{"service.host"}, summary: "redirects to elsewhere.example"},
		{name: "service is ill", spoil: answering(503, "application/json", "{}"), failed: []string{"service.host"}, summary: "503"},
		{name: "something else answers", spoil: answering(200, "application/json", `{"hello":1}`), failed: []string{"service.host"}, summary: "it answers: it does not say which"},
		{name: "never answers", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.env["AMP_URL"] = "http://" + listener(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) + "/"
			return nil
		}, failed: []string{"service.host"}, summary: "does not answer in time"},
		{name: "websockets kept back", spoil: fronted(func(p *httputil.ReverseProxy) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") != "" {
					http.Error(rw, "no upgrades here", http.StatusBadGateway)
					return
				}
				p.ServeHTTP(rw, r)
			}
		}), exit: -1, warned: []string{"inside.websocket", "service.websocket"}, summary: "502 Bad Gateway", remedy: "`Upgrade: websocket`"},
		{name: "clock days off", spoil: dated(-72 * time.Hour), failed: []string{"service.clock"}, code: fault.Internal, summary: "ahead of the service's", remedy: "timedatectl set-ntp true"},
		{name: "clock minutes off", spoil: dated(10 * time.Minute), exit: -1, warned: []string{"service.clock"}, summary: "behind the service's", remedy: "set-ntp"},
	}
	for _, test := range tests {
		switch {
		case test.exit == -1:
			test.exit = 0
		case test.code == "":
			test.exit, test.code = 1, fault.ServiceUnreachable
		default:
			test.exit = 1
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.test(t)
		})
	}
}

// A good way over TLS, straight and through a proxy.
func TestDoctorRouteOverTLS(t *testing.T) {
	for _, proxied := range []bool{false, true} {
		w, s := newPatientWorld(t)
		onTLS(t, w, s, "amp.test", time.Now().Add(time.Hour), true)
		w.checkKey = func(context.Context, string, config.Key) (account, error) { return account{ID: "u"}, nil }
		want := "none in use"
		if proxied {
			proxy := httptest.NewServer(http.HandlerFunc(tunnel))
			t.Cleanup(proxy.Close)
			w.env["HTTPS_PROXY"], want = proxy.URL, proxy.URL
		}
		r, code := w.examine(t, "--only", "service")
		if code != 0 || !strings.Contains(r.Checks["service.proxy"].Summary, want) || !strings.HasPrefix(r.Checks["service.tls"].Summary, "signed by Nosy Proxy CA (Example Corp), TLS 1.3") {
			t.Errorf("exit %d: %s", code, w.out)
		}
	}
}

// tunnel is what a proxy does, where every name is this machine's.
func tunnel(w http.ResponseWriter, r *http.Request) {
	_, port, _ := net.SplitHostPort(r.Host)
	to, err := net.Dial("tcp", "127.0.0.1:"+port)
	if r.Method != http.MethodConnect || err != nil {
		http.Error(w, "no", http.StatusBadGateway)
		return
	}
	defer to.Close()
	// Whoever is answered first sends what the server would still read for itself.
	from, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	if _, err := io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() { _, _ = io.Copy(to, from) }()
	_, _ = io.Copy(from, to)
}
