package gateway

import (
	"bufio"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Proxy is the gateway's way in for a sandbox whose network cannot be captured: programs inside are told to use it
// as their HTTP proxy, and everything else is refused by the sandbox itself. It listens on the host's loopback
// interface, where others could connect as well, so it asks for the run's own token.
type Proxy struct {
	gateway  *Gateway
	listener net.Listener
	token    string
}

// proxyUser is the name that goes with the token: a URL cannot have a password without one.
const proxyUser = "sesame"

// Proxy listens until it is closed.
func (g *Gateway) Proxy() (*Proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(g.ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Proxy{gateway: g, listener: l, token: rand.Text()}, nil
}

// Port is the port of 127.0.0.1 that the proxy listens on.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// URL is what proxy variables name, token included.
func (p *Proxy) URL() string {
	u := url.URL{Scheme: "http", User: url.UserPassword(proxyUser, p.token), Host: p.listener.Addr().String()}
	return u.String()
}

// Close ends the listener.
func (p *Proxy) Close() error { return p.listener.Close() }

// Serve passes connections on until the proxy is closed.
func (p *Proxy) Serve() error { return p.gateway.serve(p.listener, p.gateway.conns, p.handle) }

// handle serves one request, CONNECT or one with an absolute URL (RFC 9112, 3.2). From then on the connection is one
// to the host that it named, under the same rules as if it had been captured.
func (p *Proxy) handle(conn net.Conn) {
	req, br, err := readHead(conn)
	if err != nil {
		answer(conn, http.StatusBadRequest, "this is an HTTP proxy, and that was no request for one")
		return
	}
	if !p.authentic(req) {
		answer(conn, http.StatusProxyAuthRequired, "the proxy is for the sandbox only")
		return
	}
	t, err := proxyTarget(req)
	if err != nil {
		p.gateway.denials.add(nil, req.Host, err.Error())
		answer(conn, http.StatusBadRequest, err.Error())
		return
	}
	t, ok := p.gateway.allow(t)
	if !ok {
		p.gateway.deny(t, "")
		answer(conn, http.StatusForbidden, "no rule allows "+t.String()+": it would take --allow-host "+t.String())
		return
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		reset(conn)
		return
	}
	if req.Method == http.MethodConnect {
		if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			reset(conn)
			return
		}
		p.gateway.passTo(readFirst(conn, nil, br), t)
		return
	}
	head, _ := originForm(req, t)
	p.gateway.passTo(readFirst(conn, head, br), t)
}

// authentic tells whether a request has the run's token.
func (p *Proxy) authentic(req *http.Request) bool {
	scheme, value, _ := strings.Cut(req.Header.Get("Proxy-Authorization"), " ")
	given, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	return err == nil && strings.EqualFold(scheme, "Basic") && subtle.ConstantTimeCompare(given, []byte(proxyUser+":"+p.token)) == 1
}

// proxyTarget is where a request wants to go.
func proxyTarget(req *http.Request) (target, error) {
	host, port := req.URL.Hostname(), req.URL.Port()
	switch {
	case req.Method == http.MethodConnect && port == "":
		return target{}, fmt.Errorf("CONNECT without a port")
	case req.Method == http.MethodConnect:
	case req.URL.Scheme != "http":
		return target{}, fmt.Errorf("a request for %q: the proxy takes http:// URLs and CONNECT", req.URL.Scheme)
	case req.URL.User != nil:
		return target{}, fmt.Errorf("a URL with a user in it")
	case port == "":
		port = "80"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return target{}, fmt.Errorf("port %s", printable(port))
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return target{}, fmt.Errorf("an address with a zone")
		}
		return target{host: addr.Unmap().String(), port: int(n)}, nil
	}
	name, ok := CanonicalName(host)
	if !ok || looksNumeric(name) {
		return target{}, fmt.Errorf("%s is neither a host name nor an address in the usual form", printable(host))
	}
	return target{host: name, port: int(n), name: true}, nil
}

// readFirst is a connection that first reads what is in head and in the reader's buffer.
func readFirst(conn net.Conn, head []byte, br *bufio.Reader) net.Conn {
	buffered, _ := br.Peek(br.Buffered()) // which are there
	if len(head)+len(buffered) == 0 {
		return conn
	}
	return &prefixedConn{Conn: conn, prefix: append(head, buffered...)}
}

// prefixedConn is a connection of which some was read before.
type prefixedConn struct {
	net.Conn
	prefix []byte
}

func (c *prefixedConn) Read(p []byte) (int, error) {
	if len(c.prefix) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.prefix)
	c.prefix = c.prefix[n:]
	return n, nil
}

// CloseWrite and SetLinger are those of the connection itself.
func (c *prefixedConn) CloseWrite() error { closeWrite(c.Conn); return nil }

func (c *prefixedConn) SetLinger(sec int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		return tcp.SetLinger(sec)
	}
	return nil
}

// answer refuses a request in words that tools show.
func answer(conn net.Conn, status int, why string) {
	defer conn.Close()
	authenticate := ""
	if status == http.StatusProxyAuthRequired {
		authenticate = "Proxy-Authenticate: Basic realm=\"sesame\"\r\n"
	}
	text := "sesame: " + printable(why) + "\n"
	// If the client is gone nobody misses the answer.
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), authenticate, len(text), text)
}
