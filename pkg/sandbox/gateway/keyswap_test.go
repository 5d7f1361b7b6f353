package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

const placeholder, realKey = "sgamp_user_PLACEHOLDER", "sgamp_user_REAL"

// swapWorld is a gateway that swaps the key for example.com:443 (or :80 without TLS), which is server.
func swapWorld(t *testing.T, server *httptest.Server, trusted bool) (*world, *http.Client) {
	t.Helper()
	swap := &KeySwap{Host: "example.com", Port: 80, Placeholder: placeholder, Key: func() string { return realKey }}
	roots := x509.NewCertPool()
	if server.TLS != nil {
		swap.Port, swap.TLS = 443, true
		swap.Roots = func() (*x509.CertPool, error) { return roots, nil }
		if trusted {
			roots.AddCert(server.Certificate())
		}
	}
	authority, err := swap.Authority()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, New(t.Context(), Options{Rules: Rules{{Host: "example.com"}, {Host: "other.com"}}, Dial: toServer(server, public), Swap: swap})}
	t.Cleanup(w.g.Close)
	inside := x509.NewCertPool()
	inside.AppendCertsFromPEM(authority)
	addr, _ := w.lookup("example.com")
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{RootCAs: inside},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return w.connect(addr, uint16(swap.Port)), nil
		},
	}}
	t.Cleanup(client.CloseIdleConnections)
	return w, client
}

func TestKeyIsSwappedForTheService(t *testing.T) {
	for scheme, start := range map[string]func(http.Handler) *httptest.Server{"https": httptest.NewTLSServer, "http": httptest.NewServer} {
		got := make(chan *http.Request, 1)
		s := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Echo", r.Header.Get("X-Api-Key"))
			_, _ = w.Write(body)
			got <- r
		}))
		defer s.Close()
		_, client := swapWorld(t, s, true)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scheme+"://example.com/a%2Fb?x=%zz;y", strings.NewReader("body "+placeholder))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{
			"Authorization": {"Bearer " + placeholder}, "X-Api-Key": {placeholder}, "X-Other": {placeholder}, "X-Forwarded-For": {"1.2.3.4"}, "User-Agent": {""},
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		r := <-got
		if err != nil || string(body) != "body "+placeholder {
			t.Errorf("%s: body %q, %v", scheme, body, err)
		}
		if a, x := r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"); a != "Bearer "+realKey || x != realKey {
			t.Errorf("%s: the service got %q and %q", scheme, a, x)
		}
		if r.Header.Get("X-Other") != placeholder || resp.Header.Get("X-Echo") != placeholder {
			t.Errorf("%s: other header %q, echoed %q", scheme, r.Header.Get("X-Other"), resp.Header.Get("X-Echo"))
		}
		if r.RequestURI != "/a%2Fb?x=%zz;y" || r.Host != "example.com" || len(r.Header["X-Forwarded-For"]) != 1 || r.UserAgent() != "" {
			t.Errorf("%s: the request was changed: %s %s %v", scheme, r.RequestURI, r.Host, r.Header)
		}
	}
}

func TestSwapStreamsBothWays(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.EnableFullDuplex()
		w.Header().Set("Content-Type", "text/event-stream")
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = io.WriteString(w, "echo "+lines.Text()+"\n")
			_ = c.Flush()
		}
	}))
	defer s.Close()
	_, client := swapWorld(t, s, true)
	up, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://example.com/", up)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(send, "one\n") }()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answers := bufio.NewReader(resp.Body)
	for _, word := range []string{"one", "two", "three"} {
		// Each is sent only after the one before has come back: anything that buffers would hang here.
		if got, err := answers.ReadString('\n'); err != nil || got != "echo "+word+"\n" {
			t.Fatalf("%q, %v", got, err)
		}
		if next := map[string]string{"one": "two\n", "two": "three\n"}[word]; next != "" {
			if _, err := io.WriteString(send, next); err != nil {
				t.Fatal(err)
			}
		}
	}
	send.Close()
}

// A long body goes through in large pieces, but what has come of it is never held back for more.
func TestSwapPassesBulkOn(t *testing.T) {
	const size = 3 << 20
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	read := make(chan int, size) // how much the client has
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		sent := 0
		for _, piece := range []int{1, 100, 16 << 10, 16<<10 + 1, 70_000, 1 << 20, 5, size} {
			next := min(sent+piece, size)
			_, _ = w.Write(content[sent:next])
			_ = c.Flush()
			sent = next
			for have := 0; have < sent && sent < size; { // more comes when all of that is there
				select {
				case have = <-read:
				case <-r.Context().Done():
					return
				}
			}
		}
	}))
	defer s.Close()
	_, client := swapWorld(t, s, true)
	for _, path := range []string{"/known", "/chunked"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 0, size)
		for buffer := make([]byte, 30_000); ; {
			n, err := resp.Body.Read(buffer)
			got = append(got, buffer[:n]...)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
			read <- len(got)
		}
		for len(read) > 0 {
			<-read
		}
		if !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes that are not what was sent", path, len(got))
		}
		resp.Body.Close()
	}
}

func TestSwapCarriesWebsockets(t *testing.T) {
	got := make(chan string, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
		_, _ = io.Copy(c, rw)
	}))
	defer s.Close()
	w, client := swapWorld(t, s, true)
	addr, _ := w.lookup("example.com")
	config := client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com"
	c := tls.Client(w.connect(addr, 443), config)
	_, err := io.WriteString(c, "GET /actors HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer "+placeholder+"\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	if key := <-got; key != "Bearer "+realKey {
		t.Errorf("the service got %q", key)
	}
	if _, err := io.WriteString(c, " there"); err != nil {
		t.Fatal(err)
	}
	all := make([]byte, len("hello there"))
	if _, err := io.ReadFull(r, all); err != nil || string(all) != "hello there" {
		t.Errorf("%q, %v", all, err)
	}
}

func TestSwapRefusals(t *testing.T) {
	asked := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer s.Close()
	w, client := swapWorld(t, s, true)
	do := func(method, url, host string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	if code, err := do(http.MethodTrace, "https://example.com/", ""); code != http.StatusMethodNotAllowed {
		t.Errorf("TRACE, which shows the key: %d, %v", code, err)
	}
	for _, host := range []string{"evil.com", "example.com:444", "example.com.evil.com"} {
		if code, err := do(http.MethodGet, "https://example.com/", host); err == nil {
			t.Errorf("Host %s got through: %d", host, code)
		}
	}
	addr, _ := w.lookup("example.com")
	config := client.Transport.(*http.Transport).TLSClientConfig.Clone()
	for _, name := range []string{"other.com", ""} {
		config.ServerName, config.InsecureSkipVerify = name, true
		if tls.Client(w.connect(addr, 443), config).HandshakeContext(t.Context()) == nil {
			t.Errorf("server name %q got through", name)
		}
	}
	if asked != 0 {
		t.Errorf("the service was asked %d times", asked)
	}
	if code, err := do(http.MethodGet, "https://example.com/", "EXAMPLE.com.:443"); code != http.StatusOK {
		t.Errorf("the same host in other words: %d, %v", code, err)
	}
}

func TestSwapVerifiesTheService(t *testing.T) {
	asked := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer s.Close()
	w, client := swapWorld(t, s, false)
	resp, err := client.Get("https://example.com/")
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || asked {
		t.Errorf("an unknown authority got the key: %v", err)
	}
	if d := w.g.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "certificate is not trusted") {
		t.Errorf("denials %+v", d)
	}
}

func TestOtherHostsAreNotOpened(t *testing.T) {
	s := okServer(t, httptest.NewTLSServer)
	w, _ := swapWorld(t, s, true)
	addr, _ := w.lookup("other.com")
	c := tls.Client(w.connect(addr, 443), &tls.Config{ServerName: "other.com", InsecureSkipVerify: true})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.ConnectionState().PeerCertificates[0]; !got.Equal(s.Certificate()) {
		t.Errorf("another certificate than the server's: %v", got.Subject)
	}
}

// TestSwapEndsWithTheService: a client must learn that its connection is gone as it would without a gateway, not by a request that fails.
func TestSwapEndsWithTheService(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) }))
	s.Config.IdleTimeout = 50 * time.Millisecond
	s.StartTLS()
	defer s.Close()
	w, client := swapWorld(t, s, true)
	addr, _ := w.lookup("example.com")
	config := client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com"
	c := tls.Client(w.connect(addr, 443), config)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); len(body) != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the service hung up: %v", err)
	}
}

func TestAuthorityIsForOneHost(t *testing.T) {
	swap := &KeySwap{Host: "example.com", Port: 443, TLS: true}
	if _, err := swap.certificate(nil); err == nil {
		t.Error("there is a certificate without an authority")
	}
	if _, err := swap.Authority(); err != nil {
		t.Fatal(err)
	}
	made, err := swap.certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(made.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if leaf.VerifyHostname("other.com") == nil {
		t.Error("the certificate is good for other hosts")
	}
	again, err := swap.Authority()
	if err != nil || string(again) != string(swap.authority) {
		t.Errorf("a second authority: %v", err)
	}
}
