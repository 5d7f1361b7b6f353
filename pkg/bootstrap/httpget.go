package bootstrap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Timeouts bound how long a silent server is waited for. Slow ones that keep
// sending are never cut off. A zero field has the default.
type Timeouts struct {
	Connect time.Duration // default 10 s
	Header  time.Duration // from the request to the answer's header; default 30 s
	Idle    time.Duration // without any byte of the body; default 30 s
	Latest  time.Duration // for a source to name its newest version; default 15 s
	Retry   time.Duration // before the second attempt at a source, doubled for each further one; default 500 ms
}

func (t Timeouts) orDefault() Timeouts {
	set := func(d *time.Duration, fallback time.Duration) {
		if *d <= 0 {
			*d = fallback
		}
	}
	set(&t.Connect, 10*time.Second)
	set(&t.Header, 30*time.Second)
	set(&t.Idle, 30*time.Second)
	set(&t.Latest, 15*time.Second)
	set(&t.Retry, 500*time.Millisecond)
	return t
}

const maxRedirects = 10

var (
	errNoHeader = errors.New("no answer in time")
	errStalled  = errors.New("stalled: no byte in time")
	errNoAnswer = errors.New("the server ended the connection without an answer")
)

// statusError is an answer other than 200, 404 and 410.
type statusError struct {
	status int
	after  time.Duration // when the server wants to be asked again; 0 where it does not say
}

func (e *statusError) Error() string {
	text := strings.ToLower(http.StatusText(e.status))
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		text += " (a firewall, a proxy, or a missing token?)"
	}
	return fmt.Sprintf("http status %d %s", e.status, text)
}

// proxyError is a proxy's refusal to make a connection.
type proxyError struct {
	proxy  string // host and port
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s refused the connection: http status %d %s", e.proxy, e.status, strings.ToLower(http.StatusText(e.status)))
}

// newTransport makes the transport of all sources: proxies from environ, no
// decompression behind our back (what is hashed is what was sent).
func newTransport(environ []string, t Timeouts, roots *x509.CertPool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	config := httpproxy.Config{
		HTTPProxy:  firstEnv(environ, "HTTP_PROXY", "http_proxy"),
		HTTPSProxy: firstEnv(environ, "HTTPS_PROXY", "https_proxy"),
		NoProxy:    firstEnv(environ, "NO_PROXY", "no_proxy"),
	}
	proxy := config.ProxyFunc()
	dialer := &net.Dialer{Timeout: t.Connect}
	return &http.Transport{
		Proxy:               func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: t.Connect,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DisableCompression:  true,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     30 * time.Second,
		// HTTP/2 would send all parts of a file over one connection, and several are the point.
		Protocols: protocols,
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return &proxyError{proxy: proxy.Host, status: resp.StatusCode}
			}
			return nil
		},
	}
}

// getter makes GET requests with the package's rules: no way from https to
// http, credentials for the first host only, and an end to every silence.
type getter struct {
	client    *http.Client
	userAgent string
	timeouts  Timeouts
}

func newGetter(rt http.RoundTripper, userAgent string, t Timeouts) *getter {
	return &getter{
		client:    &http.Client{Transport: rt, CheckRedirect: checkRedirect},
		userAgent: userAgent,
		timeouts:  t,
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	last := via[len(via)-1]
	if last.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("refused a redirect from https to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	// net/http keeps the header for subdomains; a registry's token is for the registry alone.
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

// get returns the answer to a GET when its status is 200, or the one that is wanted instead.
// Closing the body ends the request.
func (g *getter) get(ctx context.Context, address string, header http.Header, also ...int) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		cancel(nil)
		return nil, errors.New("not a usable address")
	}
	for key, values := range header {
		req.Header[key] = values
	}
	req.Header.Set("Accept-Encoding", "identity")
	if g.userAgent != "" {
		req.Header.Set("User-Agent", g.userAgent)
	}
	late := time.AfterFunc(g.timeouts.Header, func() { cancel(errNoHeader) })
	resp, err := g.client.Do(req)
	late.Stop()
	if err != nil {
		err = reason(ctx, err)
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && !slices.Contains(also, resp.StatusCode) {
		resp.Body.Close()
		cancel(nil)
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
			return nil, fmt.Errorf("%w (http status %d)", ErrNotFound, resp.StatusCode)
		}
		return nil, &statusError{status: resp.StatusCode, after: retryAfter(resp.Header)}
	}
	resp.Body = &watchedBody{body: resp.Body, ctx: ctx, cancel: cancel, idle: g.timeouts.Idle}
	return resp, nil
}

// text gets a small document, of at most limit bytes.
func (g *getter) text(ctx context.Context, address string, header http.Header, limit int64) ([]byte, error) {
	resp, err := g.get(ctx, address, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	return data, nil
}

// reason strips the address from err, which may carry a secret in its query,
// and puts our own cause in the place of "context canceled".
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return errNoAnswer
	}
	return err
}

// watchedBody ends a read that gets no byte for the idle time. The clock runs
// only while somebody reads, so a slow disk is not taken for a slow server.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context //nolint:containedctx // the body lives as long as its request
	cancel context.CancelCauseFunc
	idle   time.Duration
}

func (b *watchedBody) Read(p []byte) (int, error) {
	stall := time.AfterFunc(b.idle, func() { b.cancel(errStalled) })
	n, err := b.body.Read(p)
	stall.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = reason(b.ctx, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// publicURL returns the address as it may be shown and stored: no user, password, query.
func publicURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(an address that cannot be read)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// firstEnv returns the first of the variables that is set to something.
func firstEnv(environ []string, names ...string) string {
	for _, name := range names {
		if v, ok := lookupEnv(environ, name); ok && v != "" {
			return v
		}
	}
	return ""
}

// lookupEnv finds a variable; of several with one name the last counts, as with os/exec.
func lookupEnv(environ []string, name string) (string, bool) {
	for i := len(environ) - 1; i >= 0; i-- {
		if key, value, ok := strings.Cut(environ[i], "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}
