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
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	br := bufio.NewReader(io.LimitReader(conn, maxHead))
	req, err := http.ReadRequest(br)
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
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	up, err := g.connect(t)
	if err != nil {
		return err
	}
	defer g.closing(up)()
	begun, _ := br.Peek(br.Buffered()) // which is there
	if _, err := up.Write(append(originForm(req, t), begun...)); err != nil {
		return err
	}
	return g.relay(conn, up)
}

// isFor tells whether the host that a request is for is a target. HTTP/1.0 need not name one.
func isFor(host string, t target) bool {
	if host == "" {
		return true
	}
	if h, port, err := net.SplitHostPort(host); err == nil {
		if port != strconv.Itoa(t.port) {
			return false
		}
		host = h
	}
	name, ok := CanonicalName(host)
	return ok && name == t.host
}

// hopHeaders are between the client and the proxy only.
var hopHeaders = []string{"Proxy-Authorization", "Proxy-Connection", "Proxy-Authenticate", "Keep-Alive", "Te", "Connection"}

// originForm is the head of a request as the host itself gets it. It is the last one on its connection, since the next
// could be for another host; unless the connection changes to another protocol.
func originForm(req *http.Request, t target) []byte {
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
	return b.Bytes()
}
