package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// At one address there are many hosts. On port 80 only the one that was resolved is asked, whatever a request says, or one behind it.
func TestHTTPIsForTheNameThatWasResolved(t *testing.T) {
	asked := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Host + r.URL.Path
		_, _ = io.Copy(w, r.Body)
		_, _ = fmt.Fprint(w, "SERVED over ", r.Proto)
	}))
	defer s.Close()
	const first = "GET /1 HTTP/1.1\r\nHost: example.com\r\n\r\n"
	for name, test := range map[string]struct {
		request, want string // what is asked, "" for nothing
	}{
		"its own name":        {first, "example.com/1"},
		"in capitals":         {"GET /1 HTTP/1.1\r\nHost: EXAMPLE.com.:80\r\n\r\n", "example.com/1"},
		"without":             {"GET /1 HTTP/1.0\r\n\r\n", "example.com/1"},
		"with a body":         {"POST /1 HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nbody", "example.com/1"},
		"in absolute form":    {"GET http://example.com/1 HTTP/1.1\r\nHost: evil.com\r\n\r\n", "example.com/1"}, // RFC 9112, 3.2.2
		"another":             {"GET /1 HTTP/1.1\r\nHost: evil.com\r\n\r\n", ""},
		"another port":        {"GET /1 HTTP/1.1\r\nHost: example.com:81\r\n\r\n", ""},
		"an address":          {"GET /1 HTTP/1.1\r\nHost: 1.1.1.1\r\n\r\n", ""},
		"two":                 {"GET /1 HTTP/1.1\r\nHost: example.com\r\nHost: evil.com\r\n\r\n", ""},
		"absolute":            {"GET http://evil.com/1 HTTP/1.1\r\nHost: example.com\r\n\r\n", ""},
		"HTTP/2":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
		"no HTTP":             {"\x00\x01\x02\r\n\r\n", ""},
		"one behind":          {first + "GET /2 HTTP/1.1\r\nHost: evil.com\r\n\r\n", "example.com/1"},
		"one behind a body":   {"POST /1 HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: evil.com\r\n\r\n", "example.com/1"},
		"HTTP/2 by upgrade":   {"GET /1 HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n", "example.com/1"},
		"one's end elsewhere": {"GET /1 HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Content-Length\r\nContent-Length: 42\r\n\r\nGET /2 HTTP/1.1\r\nHost: evil.com\r\nX: 012345", "example.com/1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, toServer(s, public), "example.com")
			addr, _ := w.lookup("example.com")
			c := w.connect(addr, 80)
			if _, err := io.WriteString(c, test.request); err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(c)
			if served := strings.Contains(string(answer), "SERVED"); served != (test.want != "") {
				t.Errorf("the answer is %q", answer)
			}
			if test.want == "" && len(w.g.Denials()) != 1 {
				t.Errorf("told was %+v", w.g.Denials())
			}
			var all []string
			for len(asked) > 0 {
				all = append(all, <-asked)
			}
			if got := strings.Join(all, " "); got != test.want {
				t.Errorf("the server was asked for %q", got)
			}
		})
	}
}

// A websocket is one connection for good.
func TestWebsocketWithoutTLS(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			t.Errorf("the request is %v", r.Header)
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.CopyN(c, rw, 5)
	}))
	defer s.Close()
	w := newWorld(t, toServer(s, public), "example.com")
	addr, _ := w.lookup("example.com")
	c := w.connect(addr, 80)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", resp, err)
	}
	defer resp.Body.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// A server that does not change to websocket is asked nothing more.
func TestIgnoredUpgradeIsTheLastRequest(t *testing.T) {
	asked := make(chan string, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Host + r.URL.Path
		_, _ = io.WriteString(w, "SERVED "+r.Host)
	}))
	s.Config.IdleTimeout = 300 * time.Millisecond // it closes then
	s.Start()
	defer s.Close()
	const first, second = "GET /1 HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: evil.com\r\n\r\n"
	for name, later := range map[string]bool{"in one": false, "when it was answered": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, toServer(s, public), "example.com")
			addr, _ := w.lookup("example.com")
			c := w.connect(addr, 80)
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			request := first
			if !later {
				request += second
			}
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != "SERVED example.com" {
				t.Errorf("%q, %v", body, err)
			}
			if later {
				_, _ = io.WriteString(c, second) // it may be closed
			}
			if more, _ := io.ReadAll(r); len(more) > 0 {
				t.Errorf("answered, too: %q", more)
			}
			if got := <-asked; got != "example.com/1" || len(asked) > 0 {
				t.Errorf("asked for %q, and %d more", got, len(asked))
			}
		})
	}
}

// What stands for localhost is one address: at others in 127.0.0.0/8 anybody may listen.
func TestLocalhostIsOneAddress(t *testing.T) {
	s := okServer(t, httptest.NewServer)
	swap := &KeySwap{Host: "localhost", Port: 8765, Placeholder: placeholder, Key: func() string { return realKey }}
	for addr, want := range map[string]bool{"127.0.0.1": true, "127.0.0.77": false, "127.1.2.3": false, "::1": false} {
		w := newWorld(t, toServer(s, addr), "localhost:8765")
		to, ok := w.g.targetOf(&net.TCPAddr{IP: net.ParseIP(addr), Port: swap.Port})
		if ok != want {
			t.Errorf("%s is allowed: %v", addr, ok)
		}
		if swap.covers(to) != want {
			t.Errorf("%s: whether it gets the key is not %v", addr, want)
		}
	}
}
