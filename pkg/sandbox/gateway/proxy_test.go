package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// proxyWorld is a gateway with a proxy in front, whose world is one server.
type proxyWorld struct {
	t     *testing.T
	g     *Gateway
	proxy *Proxy
}

func newProxyWorld(t *testing.T, o Options) *proxyWorld {
	t.Helper()
	g := New(t.Context(), o)
	p, err := g.Proxy()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.Serve() }()
	t.Cleanup(func() { p.Close(); g.Close() })
	return &proxyWorld{t, g, p}
}

// client is one that was told of the proxy, and trusts the certificates.
func (w *proxyWorld) client(roots *x509.CertPool) *http.Client {
	w.t.Helper()
	u, err := url.Parse(w.proxy.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	tr := &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{RootCAs: roots}}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// raw sends what no client would, and returns the answer's first line.
func (w *proxyWorld) raw(request string) string {
	w.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.proxy.Port()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		w.t.Fatal(err)
	}
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

func (w *proxyWorld) credentials() string {
	r, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
	r.SetBasicAuth(proxyUser, w.proxy.token)
	return "Proxy-Authorization: " + r.Header.Get("Authorization") + "\r\n"
}

func get(t *testing.T, c *http.Client, url string) (string, int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), resp.StatusCode, err
}

func rootsOf(s *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	if s.Certificate() != nil {
		pool.AddCert(s.Certificate())
	}
	return pool
}

func TestProxyPassesAllowedHosts(t *testing.T) {
	seen := make(chan *http.Request, 10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- r
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewTLSServer(handler)
	defer secure.Close()

	w := newProxyWorld(t, Options{Rules: Rules{{Host: "example.com"}, {Host: "*.example.com"}}, Dial: toServer(plain, public)})
	c := w.client(nil)
	// Twice and to another host on what could be one connection.
	for _, u := range []string{"http://example.com/a%2Fb?x=%20y", "http://EXAMPLE.com./two", "http://www.example.com:80/three"} {
		body, code, err := get(t, c, u)
		if err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %v", u, code, err)
		}
		parsed, _ := url.Parse(u)
		r := <-seen
		name, _ := CanonicalName(parsed.Hostname())
		if body != "GET "+parsed.RequestURI()+" " || r.Host != name || r.Header.Get("Proxy-Authorization") != "" {
			t.Errorf("%s: %q, the host got %s %v", u, body, r.Host, r.Header)
		}
	}
	// A body of unknown length, and one of known.
	for _, body := range []io.Reader{strings.NewReader("abc"), io.MultiReader(strings.NewReader("a"), strings.NewReader("bc"))} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.com/p", body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if <-seen; string(got) != "POST /p abc" {
			t.Errorf("post: %q", got)
		}
	}

	w = newProxyWorld(t, Options{Rules: Rules{{Host: "example.com"}}, Dial: toServer(secure, public)})
	if body, code, err := get(t, w.client(rootsOf(secure)), "https://example.com/s"); err != nil || code != http.StatusOK || body != "GET /s " {
		t.Errorf("https: %q %d %v", body, code, err)
	}
	if d := w.g.Denials(); len(d) != 0 {
		t.Errorf("denials %v", d)
	}
}

func TestProxyRefuses(t *testing.T) {
	s := okServer(t, httptest.NewTLSServer)
	rules := Rules{{Host: "example.com"}, {Host: "*.example.org"}, {Host: "192.0.2.7", Port: 443}}
	w := newProxyWorld(t, Options{Rules: rules, Dial: toServer(s, public)})
	auth := w.credentials()
	for request, want := range map[string]string{
		"CONNECT evil.com:443 HTTP/1.1\r\nHost: evil.com:443\r\n":            "HTTP/1.1 403",
		"CONNECT example.com:22 HTTP/1.1\r\nHost: example.com:22\r\n":        "HTTP/1.1 403",
		"CONNECT example.com.evil.com:443 HTTP/1.1\r\nHost: x\r\n":           "HTTP/1.1 403",
		"CONNECT evilexample.org:443 HTTP/1.1\r\nHost: x\r\n":                "HTTP/1.1 403",
		"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n":                    "HTTP/1.1 403",
		"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n":                      "HTTP/1.1 403",
		"CONNECT localhost:443 HTTP/1.1\r\nHost: x\r\n":                      "HTTP/1.1 403",
		"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n":                 "HTTP/1.1 403",
		"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n":                          "HTTP/1.1 403",
		"CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\nHost: x\r\n":             "HTTP/1.1 403",
		"CONNECT [fe80::1%25eth0]:443 HTTP/1.1\r\nHost: x\r\n":               "HTTP/1.1 400",
		"CONNECT 2130706433:443 HTTP/1.1\r\nHost: x\r\n":                     "HTTP/1.1 400",
		"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: x\r\n":                         "HTTP/1.1 400",
		"CONNECT example.com:0 HTTP/1.1\r\nHost: x\r\n":                      "HTTP/1.1 400",
		"CONNECT example.com HTTP/1.1\r\nHost: x\r\n":                        "HTTP/1.1 400",
		"CONNECT example.com%00.evil.com:443 HTTP/1.1\r\nHost: x\r\n":        "HTTP/1.1 400",
		"GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n":         "HTTP/1.1 400",
		"GET / HTTP/1.1\r\nHost: example.com\r\n":                            "HTTP/1.1 400",
		"GET http://evil.com/ HTTP/1.1\r\nHost: example.com\r\n":             "HTTP/1.1 403",
		"GET http://example.com@evil.com/ HTTP/1.1\r\nHost: example.com\r\n": "HTTP/1.1 400",
		"GET http://example.com:8080/ HTTP/1.1\r\nHost: example.com\r\n":     "HTTP/1.1 403",
		"PRI * HTTP/2.0\r\n": "HTTP/1.1 400",
		"GET http://example.com/ HTTP/1.1\r\nA: " + strings.Repeat("x", 70<<10) + "\r\n": "HTTP/1.1 400",
	} {
		if got := w.raw(request + auth + "\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("%.60q: %q, want %s", request, got, want)
		}
	}
	for _, other := range []string{"", "Proxy-Authorization: Basic c2VzYW1lOng=\r\n", "Proxy-Authorization: Bearer " + w.proxy.token + "\r\n"} {
		if got := w.raw("CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n" + other + "\r\n"); !strings.HasPrefix(got, "HTTP/1.1 407") {
			t.Errorf("with %q: %q", other, got)
		}
	}
	found := false
	for _, d := range w.g.Denials() {
		found = found || d.Target == "evil.com:443" && d.Reason == "" && d.Count == 1
		if d.Target == "example.com:443" {
			t.Errorf("somebody without the token is reported as the sandbox: %v", d)
		}
	}
	if !found {
		t.Errorf("denials %v", w.g.Denials())
	}
}

// What is behind the tunnel is checked as it is for a captured connection.
func TestProxyTunnelsAreChecked(t *testing.T) {
	s := okServer(t, httptest.NewTLSServer)
	w := newProxyWorld(t, Options{Rules: Rules{{Host: "example.com"}}, Dial: toServer(s, public)})
	c := w.client(rootsOf(s))
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "other.com"
	if _, _, err := get(t, c, "https://example.com/"); err == nil {
		t.Error("the tunnel to example.com leads to other.com")
	}
	if d := w.g.Denials(); len(d) != 1 || d[0].Reason != "TLS server name other.com" {
		t.Errorf("denials %v", d)
	}
	w = newProxyWorld(t, Options{Rules: Rules{{Host: "example.com"}}, Dial: toServer(s, "10.0.0.1")})
	if _, _, err := get(t, w.client(rootsOf(s)), "https://example.com/"); err == nil {
		t.Error("an allowed name led to a private address")
	}
	if d := w.g.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "private") {
		t.Errorf("denials %v", d)
	}
}

// swapProxy is a proxy that swaps the key for the server, which is example.com.
func swapProxy(t *testing.T, s *httptest.Server) (*proxyWorld, []byte) {
	t.Helper()
	swap := &KeySwap{Host: "example.com", Port: 80, Placeholder: placeholder, Key: func() string { return realKey }}
	if s.TLS != nil {
		swap.Port, swap.TLS = 443, true
		swap.Roots = func() (*x509.CertPool, error) { return rootsOf(s), nil }
	}
	authority, err := swap.Authority()
	if err != nil {
		t.Fatal(err)
	}
	return newProxyWorld(t, Options{Rules: Rules{{Host: "example.com"}, {Host: "other.com"}}, Dial: toServer(s, public), Swap: swap}), authority
}

func TestProxySwapsTheKey(t *testing.T) {
	for scheme, start := range map[string]func(http.Handler) *httptest.Server{"https": httptest.NewTLSServer, "http": httptest.NewServer} {
		got := make(chan string, 4)
		s := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got <- r.Header.Get("Authorization")
			if r.Header.Get("Upgrade") == "" {
				_, _ = io.WriteString(w, "fine")
				return
			}
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer func() { _ = c.CloseNow() }()
			for {
				kind, data, err := c.Read(r.Context())
				if err != nil {
					return
				}
				if err := c.Write(r.Context(), kind, append([]byte("echo "), data...)); err != nil {
					return
				}
			}
		}))
		defer s.Close()
		w, authority := swapProxy(t, s)
		inside := x509.NewCertPool()
		inside.AppendCertsFromPEM(authority)
		c := w.client(inside)
		header := http.Header{"Authorization": {"Bearer " + placeholder}}
		for range 2 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://example.com/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = header.Clone()
			resp, err := c.Do(req)
			if err != nil {
				t.Fatalf("%s: %v", scheme, err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if a := <-got; a != "Bearer "+realKey || string(body) != "fine" {
				t.Errorf("%s: the service got %q, the client %q", scheme, a, body)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		ws, _, err := websocket.Dial(ctx, scheme+"://example.com/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: c.Transport}, HTTPHeader: header})
		if err != nil {
			t.Fatalf("%s: websocket: %v", scheme, err)
		}
		if a := <-got; a != "Bearer "+realKey {
			t.Errorf("%s: by websocket the service got %q", scheme, a)
		}
		if err := ws.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := ws.Read(ctx); err != nil || string(data) != "echo hello" {
			t.Errorf("%s: websocket: %q %v", scheme, data, err)
		}
		_ = ws.CloseNow()
		if scheme == "http" {
			// A second request for another host on the service's connection gets no key.
			conn := w.raw("GET http://example.com/ HTTP/1.1\r\nHost: x\r\n" + w.credentials() + "Connection: keep-alive\r\n\r\n" +
				"GET http://other.com/ HTTP/1.1\r\nHost: other.com\r\nAuthorization: Bearer " + placeholder + "\r\n\r\n")
			if a := <-got; !strings.HasPrefix(conn, "HTTP/1.1 200") || a != "" {
				t.Errorf("first of two: %q, %q", conn, a)
			}
			select {
			case a := <-got:
				t.Errorf("the second request reached the service: %q", a)
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// Programs that are told by variables only, as they are.
func TestProxyByVariables(t *testing.T) {
	got := make(chan string, 4)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
		_, _ = io.WriteString(w, "fine")
	}))
	defer s.Close()
	w, authority := swapProxy(t, s)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	// For other.com the server's own certificate counts, as the system's would.
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(bundle, append(authority, own...), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HTTPS_PROXY=" + w.proxy.URL(), "https_proxy=" + w.proxy.URL(), "CURL_CA_BUNDLE=" + bundle, "SSL_CERT_FILE=" + bundle}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%s%v", out, err)
		}
		return string(out)
	}
	python := `import urllib.request as u; print(u.urlopen(u.Request("https://example.com/", headers={"Authorization": "Bearer ` + placeholder + `"})).read().decode(), end="")`
	for _, args := range [][]string{
		{"curl", "-sS", "-H", "Authorization: Bearer " + placeholder, "https://example.com/"},
		{"python3", "-c", python},
	} {
		if out := run(args...); out != "fine" {
			t.Errorf("%s: %s", args[0], out)
			continue
		}
		if a := <-got; a != "Bearer "+realKey {
			t.Errorf("%s: the service got %q", args[0], a)
		}
	}
	if out := run("curl", "-sS", "https://evil.com/"); !strings.Contains(out, "403") {
		t.Errorf("curl of a host that is not allowed: %s", out)
	}
}
