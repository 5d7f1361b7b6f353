package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// KeySwap keeps the service's key out of the sandbox: on connections to the service's own host, and only there, the
// gateway puts the key where the sandbox has a placeholder. For that it ends TLS itself, with a certificate of an
// authority that exists for one run and only in this process's memory.
type KeySwap struct {
	Host        string // canonical name, or an address
	Port        int
	TLS         bool
	Placeholder string
	Key         func() string // a function, so that no printed structure shows it

	// Roots are what the service's certificate is checked against; nil means the system's.
	Roots func() (*x509.CertPool, error)

	authority []byte                           // PEM
	leaf      func() (*tls.Certificate, error) // made when it is first asked for
}

// keyHeaders are those that Amp sends the key in.
var keyHeaders = [...]string{"Authorization", "X-Api-Key"}

// certificateLife is longer than any turn and short enough that a stolen certificate is soon worth nothing.
const certificateLife = 7 * 24 * time.Hour

// Authority is the certificate, as PEM, that clients in the sandbox have to trust; nil without TLS. It makes it when first called, which must be
// before the swap is used.
func (s *KeySwap) Authority() ([]byte, error) {
	if !s.TLS || s.authority != nil {
		return s.authority, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "sesame, for this run only"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		// If its private key ever got out, this authority could still vouch for nobody else.
		PermittedDNSDomainsCritical: true,
	}
	if ip := net.ParseIP(s.Host); ip != nil {
		ca.PermittedIPRanges = []*net.IPNet{{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}}
		if v4 := ip.To4(); v4 != nil {
			ca.PermittedIPRanges[0] = &net.IPNet{IP: v4, Mask: net.CIDRMask(32, 32)}
		}
	} else {
		ca.PermittedDNSDomains = []string{s.Host}
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	s.authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	// It takes as long again, and the command need not wait for that.
	s.leaf = sync.OnceValues(func() (*tls.Certificate, error) { return s.vouchedFor(ca, key) })
	return s.authority, nil
}

// certificate is what the gateway shows to clients in the sandbox.
func (s *KeySwap) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.leaf == nil {
		return nil, errors.New("nobody was told of this run's authority")
	}
	return s.leaf()
}

// vouchedFor is a certificate for the service by the authority.
func (s *KeySwap) vouchedFor(ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: new(big.Int).Add(ca.SerialNumber, big.NewInt(1)), Subject: pkix.Name{CommonName: "sesame"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(s.Host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{s.Host}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// covers tells whether a connection goes to the service.
func (s *KeySwap) covers(t target) bool {
	return s != nil && t.port == s.Port && (t.host == s.Host || !t.name && t.rule.Host == s.Host)
}

// swapServer speaks HTTP with the sandbox on the one side and with the service on the other.
type swapServer struct {
	gateway *Gateway
	swap    *KeySwap
	http    *http.Server
	conns   chan net.Conn
	roots   func() (*x509.CertPool, error)
	open    atomic.Int64 // connections
}

func newSwapServer(g *Gateway, swap *KeySwap) *swapServer {
	s := &swapServer{gateway: g, swap: swap, conns: make(chan net.Conn)}
	s.roots = sync.OnceValues(func() (*x509.CertPool, error) {
		if swap.Roots == nil {
			return nil, nil
		}
		return swap.Roots()
	})
	proxy := &httputil.ReverseProxy{
		Rewrite:       s.rewrite,
		Transport:     roundTripper(s.roundTrip),
		FlushInterval: -1, // what the service sends is passed on when it comes
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			s.noteUntrusted(swapConnOf(r), err)
			panic(http.ErrAbortHandler) // a broken connection, as without a gateway; an answer would look like the service's
		},
		ModifyResponse: s.hideKey,
		BufferPool:     newBodyBuffers(&s.open),
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	s.http = &http.Server{
		Handler:     s.admit(proxy),
		BaseContext: func(net.Listener) context.Context { return g.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, swapConnKey{}, swapConnBelow(c))
		},
		ConnState:         func(c net.Conn, state http.ConnState) { swapConnBelow(c).setIdle(state == http.StateIdle) },
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
		// One protocol is enough, and it is the one that carries websockets.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	go func() { _ = s.http.Serve(s) }() // ends with the gateway
	return s
}

// Accept, Close and Addr make the server a listener whose connections come from the gateway.
func (s *swapServer) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.gateway.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (s *swapServer) Close() error   { return nil }
func (s *swapServer) Addr() net.Addr { return &net.TCPAddr{} }

// pass serves one connection of the sandbox until it is closed.
func (s *swapServer) pass(conn net.Conn, t target) error {
	s.open.Add(1)
	defer s.open.Add(-1)
	c := &swapConn{Conn: conn, target: t, done: make(chan struct{})}
	c.upstream = &http.Transport{
		DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			up, err := s.gateway.connect(t)
			if err != nil {
				if e, ok := errors.AsType[*refusedError](err); ok {
					s.gateway.deny(t, e.why)
				}
				return nil, err
			}
			if s.swap.TLS {
				c.records = s.inRecords(up)
				up = c.records
			}
			return &upstreamConn{Conn: up, client: c}, nil
		},
		TLSHandshakeTimeout: dialTimeout,
		MaxConnsPerHost:     1,
	}
	if s.open.Load() > crowd {
		c.upstream.ReadBufferSize, c.upstream.WriteBufferSize = headBufferCrowd, headBufferCrowd
	}
	defer c.upstream.CloseIdleConnections()
	var served net.Conn = c
	if s.swap.TLS {
		roots, err := s.roots()
		if err != nil {
			return fmt.Errorf("read the certificates that the service is checked against: %w", err)
		}
		c.upstream.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: s.swap.Host, MinVersion: tls.VersionTLS12}
		server := tls.Server(c, s.serverConfig(t))
		if err := s.handshake(server); err != nil {
			return err
		}
		served = server
	}
	select {
	case s.conns <- served:
		<-c.done
		return nil
	case <-s.gateway.ctx.Done():
		return s.gateway.ctx.Err()
	}
}

// handshake needs a large stack, which this goroutine would keep for as long as the connection lasts.
func (s *swapServer) handshake(server *tls.Conn) error {
	ctx, cancel := context.WithTimeout(s.gateway.ctx, helloTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(ctx) }()
	return <-done
}

func (s *swapServer) serverConfig(t target) *tls.Config {
	return &tls.Config{
		GetCertificate: s.swap.certificate,
		NextProtos:     []string{"http/1.1"},
		MinVersion:     tls.VersionTLS12,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if !t.name && h.ServerName == "" {
				return nil, nil // an address has no server name
			}
			want := t
			want.host = s.swap.Host
			return nil, checkName(h.ServerName, want)
		},
	}
}

// admit turns away what could make the service show its client's headers, or send the key to another host.
func (s *swapServer) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, port := splitHost(r.Host)
		t := swapConnOf(r).target
		if name := strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), ".")); name != s.swap.Host && name != t.host || port != "" && port != strconv.Itoa(t.port) {
			s.gateway.deny(t, "HTTP for the host "+oneWord(r.Host))
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodTrace || r.Method == http.MethodConnect {
			http.Error(w, "sesame passes no "+r.Method, http.StatusMethodNotAllowed)
			return
		}
		// Or an answer would wait for the end of what it is the answer to.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(corked{w, swapConnOf(r)}, r)
	})
}

func (s *swapServer) rewrite(r *httputil.ProxyRequest) {
	scheme := "http"
	if s.swap.TLS {
		scheme = "https"
	}
	r.Out.URL = &url.URL{Scheme: scheme, Host: swapConnOf(r.In).target.String(), Path: r.In.URL.Path, RawPath: r.In.URL.RawPath, RawQuery: r.In.URL.RawQuery, ForceQuery: r.In.URL.ForceQuery}
	r.Out.Host = r.In.Host
	// The request is the client's, with these as it sent them.
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = v
		}
	}
	if _, ok := r.Out.Header["User-Agent"]; !ok {
		r.Out.Header["User-Agent"] = nil
	}
	// The key is looked for in what comes back.
	r.Out.Header.Set("Accept-Encoding", "identity")
	for _, name := range keyHeaders {
		for i, v := range r.Out.Header[name] {
			r.Out.Header[name][i] = strings.ReplaceAll(v, s.swap.Placeholder, s.swap.Key())
		}
	}
}

// roundTrip asks the service, and hides the key in what comes before the answer itself.
func (s *swapServer) roundTrip(r *http.Request) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		s.hideKeyIn(h)
		return nil
	}})
	return swapConnOf(r).upstream.RoundTrip(r.WithContext(ctx))
}

// hideKey keeps an answer from bringing the key back in, as far as that stands there in plain.
func (s *swapServer) hideKey(r *http.Response) error {
	r.Status = fmt.Sprintf("%d %s", r.StatusCode, http.StatusText(r.StatusCode))
	s.hideKeyIn(r.Header)
	if r.StatusCode != http.StatusSwitchingProtocols { // its body is a connection, and has no trailer
		body := r.Body
		if from := swapConnOf(r.Request).records; from != nil && r.ContentLength >= bulk {
			body = &bulkBody{body, from}
		}
		if key := s.swap.Key(); key != "" {
			body = newKeyless(body, key, s.swap.Placeholder)
		}
		r.Body = &trailed{ReadCloser: body, atEnd: func() { s.hideKeyIn(r.Trailer) }}
	}
	return nil
}

func (s *swapServer) hideKeyIn(header map[string][]string) {
	key := s.swap.Key()
	lower := strings.ToLower(key)
	for name, values := range header {
		if strings.Contains(strings.ToLower(name), lower) {
			delete(header, name)
			continue
		}
		for i, v := range values {
			if values[i] = strings.ReplaceAll(v, key, s.swap.Placeholder); strings.Contains(strings.ToLower(values[i]), lower) {
				values[i] = s.swap.Placeholder // in other letters
			}
		}
	}
}

// trailed is a body after which there may be trailers.
type trailed struct {
	io.ReadCloser
	atEnd func()
}

func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		t.atEnd()
	}
	return n, err
}

// noteUntrusted tells the user of a service that could not prove who it is.
func (s *swapServer) noteUntrusted(c *swapConn, err error) {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		s.gateway.deny(c.target, "the service's certificate is not trusted: "+e.Err.Error())
	}
}

type swapConnKey struct{}

func swapConnOf(r *http.Request) *swapConn {
	c, _ := r.Context().Value(swapConnKey{}).(*swapConn)
	return c
}

// swapConnBelow is the connection that carries TLS, or is itself without.
func swapConnBelow(c net.Conn) *swapConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	sc, _ := c.(*swapConn)
	return sc
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// swapConn is a connection of the sandbox. It has a connection to the service of its own and ends with it, as it would without a
// gateway: a request is never sent twice nor on a connection that the client does not know of.
type swapConn struct {
	net.Conn
	target   target
	upstream *http.Transport
	once     sync.Once
	done     chan struct{}
	idle     atomic.Bool
	ended    atomic.Bool // the service's side
	records  *recordConn // to the service, if that speaks TLS

	mu     sync.Mutex // of what follows, and of writing
	corked bool
	held   []byte // what was written meanwhile
}

func (c *swapConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// cork holds what is written from now on.
func (c *swapConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// uncork sends it.
func (c *swapConn) uncork() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	if len(c.held) > 0 {
		_, err = c.Conn.Write(c.held)
	}
	c.held = c.held[:0]
	return err
}

func (c *swapConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}

// CloseWrite lets half-closed websockets pass.
func (c *swapConn) CloseWrite() error { closeWrite(c.Conn); return nil }

func (c *swapConn) setIdle(idle bool) {
	c.idle.Store(idle)
	if !idle {
		return
	}
	c.mu.Lock()
	c.held = nil // it may idle for long
	c.mu.Unlock()
	if c.ended.Load() {
		c.Close()
	}
}

type upstreamConn struct {
	net.Conn
	client *swapConn
}

func (u *upstreamConn) Close() error {
	u.client.ended.Store(true)
	if u.client.idle.Load() {
		u.client.Close()
	}
	return u.Conn.Close()
}
