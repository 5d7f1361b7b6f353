package amp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/amptest"
)

func startLogin(t *testing.T, base string) (l *amp.Login, token, port string) {
	t.Helper()
	l, err := amp.StartLogin(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	u, err := url.Parse(l.URL())
	if err != nil {
		t.Fatal(err)
	}
	return l, u.Query().Get("authToken"), u.Query().Get("callbackPort")
}

// call is a request of a browser that follows no redirects; host is what it takes the server for.
func call(t *testing.T, method, address, host string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestLoginByBrowser(t *testing.T) {
	s := amptest.StartT(t)
	l, token, _ := startLogin(t, s.URL())
	if !strings.HasPrefix(l.URL(), s.URL()+"auth/cli-login?") || len(token) != 64 {
		t.Errorf("URL %s", l.URL())
	}
	last := make(chan string, 1)
	go func() { // a browser
		resp, err := http.Get(l.URL())
		if err != nil {
			last <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		last <- resp.Request.URL.String() + " " + string(body)
	}()
	key, err := l.Wait(t.Context())
	if err != nil || key != s.Key() {
		t.Errorf("%q, %v", key, err)
	}
	page := <-last
	if !strings.Contains(page, "You can close this") || strings.Contains(page, token) || strings.Contains(page, s.Key()) {
		t.Errorf("the last page: %s", page)
	}
}

// Nobody but the browser that was sent out brings a key, and only once.
func TestLoginRefusesStrangers(t *testing.T) {
	l, token, port := startLogin(t, "https://amp.example/")
	base := "http://127.0.0.1:" + port
	good := base + "/auth/callback?authToken=" + token + "&apiKey=the-key"
	for name, test := range map[string]struct {
		method, address, host string
		status                int
	}{
		"no token":           {"GET", base + "/auth/callback?apiKey=evil", "", 403},
		"wrong token":        {"GET", base + "/auth/callback?authToken=" + strings.Repeat("0", 64) + "&apiKey=evil", "", 403},
		"beginning of it":    {"GET", base + "/auth/callback?authToken=" + token[:32] + "&apiKey=evil", "", 403},
		"no key":             {"GET", base + "/auth/callback?authToken=" + token, "", 400},
		"name rebound":       {"GET", good, "evil.example:" + port, 421},
		"other port":         {"GET", good, "localhost:1", 421},
		"form of a stranger": {"POST", good, "", 405},
		"other path":         {"GET", base + "/", "", 404},
		"page before login":  {"GET", base + "/auth/done", "", 404},
	} {
		if got, body, _ := call(t, test.method, test.address, test.host); got != test.status || strings.Contains(body, "evil") {
			t.Errorf("%s: %d %s", name, got, body)
		}
	}
	status, _, header := call(t, "GET", good, "localhost:"+port)
	if status != 303 || header.Get("Location") != "/auth/done" || header.Get("Referrer-Policy") != "no-referrer" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("good: %d %v", status, header)
	}
	if status, _, _ := call(t, "GET", strings.Replace(good, "the-key", "evil", 1), ""); status != 410 {
		t.Errorf("again: %d", status)
	}
	if status, body, _ := call(t, "GET", base+"/auth/done", ""); status != 200 || !strings.Contains(body, "You can close this") {
		t.Errorf("done: %d %s", status, body)
	}
	if key, err := l.Wait(t.Context()); err != nil || key != "the-key" {
		t.Errorf("%q, %v", key, err)
	}
}

// Only loopback is listened on, and all of it: who asks by another address of this machine finds nobody.
func TestLoginListensOnLoopbackOnly(t *testing.T) {
	_, _, port := startLogin(t, "https://amp.example/")
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip := a.(*net.IPNet).IP
		if ip.IsLinkLocalUnicast() {
			continue
		}
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip.String(), port), time.Second)
		if err == nil {
			conn.Close()
		}
		if loopback := ip.String() == "127.0.0.1" || ip.String() == "::1"; loopback != (err == nil) {
			t.Errorf("%s: %v", ip, err)
		}
	}
}

// A port that somebody has on one of the loopback addresses is not taken on the other.
func TestLoginPorts(t *testing.T) {
	_, _, first := startLogin(t, "https://amp.example/")
	_, _, second := startLogin(t, "https://amp.example/")
	if first == second {
		t.Errorf("both at %s", first)
	}
	var lc net.ListenConfig
	taken := 0
	for port := 35789; port <= 35798; port++ {
		l, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			taken++
			defer l.Close()
		}
	}
	if taken == 0 {
		t.Fatal("no port was left to take")
	}
	if _, err := amp.StartLogin(t.Context(), "https://amp.example/"); err == nil || !strings.Contains(err.Error(), "all taken") {
		t.Errorf("got %v", err)
	}
}

func TestLoginEnds(t *testing.T) {
	l, _, _ := startLogin(t, "https://amp.example/")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
