package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// passHTTP passes one request for the host that was resolved, and its answer. Many hosts are served at one address, and what says
// which one is meant must not be another one than the rules have allowed, in this request or in one behind it.
func (g *Gateway) passHTTP(conn net.Conn, t target) error {
	req, br, err := readHead(conn)
	if err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		return &refusedError{"not HTTP"}
	}
	if req.ProtoMajor != 1 {
		return &refusedError{"not HTTP/1"}
	}
	if !isFor(req.Host, t) {
		return &refusedError{"HTTP for the host " + oneWord(req.Host)}
	}
	begun, _ := br.Peek(br.Buffered()) // which is there
	head, changes := originForm(req, t)
	if changes {
		return g.passUpgrade(conn, t, head, begun)
	}
	return g.passFrom(conn, t, append(head, begun...))
}

// passUpgrade passes what is behind a request to change to another protocol when the host has changed: one that does not
// would take it for more requests, for whatever host.
func (g *Gateway) passUpgrade(conn net.Conn, t target, head, begun []byte) error {
	up, end, err := g.openFrom(conn, t, head)
	if err != nil {
		return err
	}
	defer end()
	const changes = "HTTP/1.1 101"
	answer := make([]byte, len(changes))
	if _, err := io.ReadFull(up, answer); err != nil {
		return err
	}
	if _, err := conn.Write(answer); err != nil {
		return err
	}
	if string(answer) != changes {
		go func() {
			_, _ = io.Copy(io.Discard, conn)
			closeWrite(up) // nobody waits for the answer
		}()
		return g.copyHalf(conn, up)
	}
	if _, err := up.Write(begun); err != nil {
		return err
	}
	return g.relay(conn, up)
}

// maxHead bounds a request without its body.
const maxHead = 64 << 10

// readHead reads a request as far as its body, of which the reader may have the beginning. The connection has a deadline then.
func readHead(conn net.Conn) (*http.Request, *bufio.Reader, error) {
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, nil, err
	}
	br := bufio.NewReader(io.LimitReader(conn, maxHead))
	req, err := http.ReadRequest(br)
	return req, br, err
}

// isFor tells whether the host that a request is for is a target. HTTP/1.0 need not name one.
func isFor(host string, t target) bool {
	if host == "" {
		return true
	}
	name, port := splitHost(host)
	name, ok := CanonicalName(name)
	return ok && name == t.host && (port == "" || port == strconv.Itoa(t.port))
}

// splitHost takes the port off a host, if there is one.
func splitHost(s string) (host, port string) {
	if host, port, err := net.SplitHostPort(s); err == nil {
		return host, port
	}
	return s, ""
}

// hopHeaders are between the client and the proxy only.
var hopHeaders = []string{"Proxy-Authorization", "Proxy-Connection", "Proxy-Authenticate", "Keep-Alive", "Te", "Connection"}

// originForm is the head of a request as the host itself gets it. It is the last one on its connection, since the next
// could be for another host; unless the connection changes to another protocol, which the request may ask for.
func originForm(req *http.Request, t target) (head []byte, changes bool) {
	upgrade := ""
	for _, v := range req.Header.Values("Connection") {
		for option := range strings.SplitSeq(v, ",") {
			if option = textproto.TrimString(option); strings.EqualFold(option, "Upgrade") {
				// In other protocols than this one there are requests again, for whatever host (h2c).
				if v := req.Header.Get("Upgrade"); strings.EqualFold(v, "websocket") {
					upgrade = v
				}
			} else if option != "" && !strings.EqualFold(option, "close") {
				req.Header.Del(option)
			}
		}
	}
	for _, name := range hopHeaders {
		req.Header.Del(name)
	}
	if upgrade == "" {
		req.Header.Del("Upgrade")
		req.Header.Set("Connection", "close")
	} else {
		req.Header.Set("Connection", "Upgrade")
	}
	// These two say where the body ends, which goes on as it comes.
	if len(req.TransferEncoding) > 0 {
		req.Header.Del("Content-Length")
		req.Header.Set("Transfer-Encoding", strings.Join(req.TransferEncoding, ", "))
	}
	host := t.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.port != 80 {
		host += ":" + strconv.Itoa(t.port)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.%d\r\nHost: %s\r\n", req.Method, req.URL.RequestURI(), min(req.ProtoMinor, 1), host)
	_ = req.Header.Write(&b) // into memory
	b.WriteString("\r\n")
	return b.Bytes(), upgrade != ""
}
