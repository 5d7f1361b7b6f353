package amp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The ports that the service sends a browser back to.
const (
	firstCallbackPort = 35789
	lastCallbackPort  = 35798
)

const (
	loginTokenBytes  = 32
	loginHeaderBytes = 16 << 10
	loginClosing     = 2 * time.Second // for the browser to fetch its last page
)

// Login waits on a loopback port for the browser to bring the key, as `amp login` does. One
// key is taken, from who knows the token that went to the service with the page's address.
type Login struct {
	url    string
	token  string
	hosts  []string // that this server has names for
	server *http.Server
	served sync.WaitGroup
	key    chan string
	seen   chan struct{} // closed when the browser has its last page

	mu    sync.Mutex
	taken bool
}

// StartLogin listens for the browser that the service at base will send back. The error
// is that all ports are taken.
func StartLogin(ctx context.Context, base string) (*Login, error) {
	raw := make([]byte, loginTokenBytes)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("make a login's token: %w", err)
	}
	l := &Login{token: hex.EncodeToString(raw), key: make(chan string, 1), seen: make(chan struct{})}
	listeners, port, err := listenForBrowser(ctx)
	if err != nil {
		return nil, err
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]"} {
		l.hosts = append(l.hosts, host+":"+strconv.Itoa(port))
	}
	query := url.Values{"authToken": {l.token}, "callbackPort": {strconv.Itoa(port)}}
	l.url = strings.TrimRight(base, "/") + "/auth/cli-login?" + query.Encode()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /auth/callback", l.callback)
	mux.HandleFunc("GET /auth/done", l.done)
	l.server = &http.Server{
		Handler:           l.guard(mux),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      5 * time.Second,
		MaxHeaderBytes:    loginHeaderBytes,
		ErrorLog:          log.New(io.Discard, "", 0), // what strangers send is nobody's news
	}
	for _, listener := range listeners {
		l.served.Go(func() { _ = l.server.Serve(listener) }) // always fails in the end: with ErrServerClosed
	}
	return l, nil
}

// listenForBrowser takes one port on every loopback address that there is. "localhost" may
// be either to a browser, and on the one left out another user of this machine could listen.
func listenForBrowser(ctx context.Context) ([]net.Listener, int, error) {
	var lc net.ListenConfig
	hosts := []string{"127.0.0.1"}
	if probe, err := lc.Listen(ctx, "tcp", "[::1]:0"); err == nil {
		_ = probe.Close()
		hosts = append(hosts, "::1")
	}
	for port := firstCallbackPort; port <= lastCallbackPort; port++ {
		var listeners []net.Listener
		for _, host := range hosts {
			listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				break
			}
			listeners = append(listeners, listener)
		}
		if len(listeners) == len(hosts) {
			return listeners, port, nil
		}
		for _, listener := range listeners {
			_ = listener.Close()
		}
	}
	return nil, 0, fmt.Errorf("the ports %d to %d, which the service sends the browser back to, are all taken", firstCallbackPort, lastCallbackPort)
}

// URL is the service's page that asks the user and sends the browser back with the key.
func (l *Login) URL() string { return l.url }

// Wait waits for the key until ctx ends.
func (l *Login) Wait(ctx context.Context) (string, error) {
	select {
	case key := <-l.key:
		// The browser is on its way to the page without the key in its address.
		late := time.NewTimer(loginClosing)
		defer late.Stop()
		select {
		case <-l.seen:
		case <-late.C:
		case <-ctx.Done():
		}
		return key, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Close stops listening.
func (l *Login) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), loginClosing)
	defer cancel()
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	l.served.Wait()
	return err
}

// guard lets through what was sent to this server by a name of its own: a page of a
// stranger that has its name resolve to this machine is not.
func (l *Login) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		for _, host := range l.hosts {
			if strings.EqualFold(r.Host, host) {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, "not here", http.StatusMisdirectedRequest)
	})
}

func (l *Login) callback(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if subtle.ConstantTimeCompare([]byte(q.Get("authToken")), []byte(l.token)) != 1 {
		http.Error(w, "this is not the login that sesame waits for", http.StatusForbidden)
		return
	}
	key := q.Get("apiKey")
	if key == "" {
		key = q.Get("accessToken")
	}
	if key == "" {
		http.Error(w, "the service sent no key", http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	first := !l.taken
	l.taken = true
	l.mu.Unlock()
	if !first {
		http.Error(w, "this login was used already", http.StatusGone)
		return
	}
	// On to an address that may stand in the browser's history.
	http.Redirect(w, r, "/auth/done", http.StatusSeeOther)
	l.key <- key
}

const donePage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>sesame</title>
<body style="font-family:sans-serif;margin:4em"><h1>You can close this</h1><p>sesame has the key. Go on in your terminal.</p></body></html>
`

func (l *Login) done(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	taken := l.taken
	l.mu.Unlock()
	if !taken {
		http.Error(w, "sesame waits for the login", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, donePage) // a browser that is gone needs no page
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.seen:
	default:
		close(l.seen)
	}
}
