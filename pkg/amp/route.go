package amp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// stepTimeout is less than a check has, so that a step ends with an answer of its own.
const stepTimeout = 4 * time.Second

// The clock's error that Amp's service, and TLS, live with, and that which they may not.
const (
	clockLate  = 2 * time.Minute
	clockWrong = 24 * time.Hour
)

// Route is the way to the service, gone step by step, so that the step that fails is known.
// A step may be gone once the one before it was.
type Route struct {
	Base     string            // of the service
	Proxy    *httpproxy.Config // the user's; nil for none
	Resolver *net.Resolver     // nil: the system's
	RootCAs  *x509.CertPool    // nil: the system's
	Thread   string            // one that the service has, for a websocket to be opened; "" for none

	mu    sync.Mutex // of what follows
	url   *url.URL
	via   *url.URL // the proxy that is used, or nil
	addrs []netip.Addr
	date  time.Time // by the service's clock, when it answered
	asked time.Time // by ours
}

// step is a part of the way.
type step struct {
	name, title string
	run         func(*Route, context.Context) check.Result
}

// steps are in their order.
func steps() []step {
	return []step{
		{"proxy", "proxy", (*Route).stepProxy},
		{"dns", "name", (*Route).stepName},
		{"tcp", "connection", (*Route).stepConnection},
		{"tls", "certificate", (*Route).stepCertificate},
		{"host", "answer", (*Route).stepAnswer},
		{"websocket", "websocket", (*Route).stepWebsocket},
	}
}

// CheckRoute is a check for each step from this machine to the service, and one of the clock.
func CheckRoute(r *Route, needs ...string) []check.Check {
	var checks []check.Check
	for _, s := range steps() {
		id := "service." + s.name
		checks = append(checks, check.Check{
			ID: id, Group: "service, from this machine", Title: s.title, Needs: needs,
			Run: func(ctx context.Context) check.Result { return r.timed(ctx, s) },
		})
		needs = []string{id}
	}
	return append(checks, check.Check{
		ID: "service.clock", Group: "service, from this machine", Title: "clock", Needs: []string{CheckHostID},
		Run: func(context.Context) check.Result { return r.clock() },
	})
}

func (r *Route) timed(ctx context.Context, s step) check.Result {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return s.run(r, ctx)
}

// unreachable is the failure of a step.
func unreachable(hints []string, format string, args ...any) check.Result {
	e := fault.New(fault.ServiceUnreachable, format, args...)
	e.Hints = hints
	return check.Failed(e)
}

func (r *Route) stepProxy(context.Context) check.Result {
	u, err := url.Parse(r.Base)
	if err != nil {
		return check.Failed(fault.New(fault.Usage, "%s is not the URL of a service", r.Base))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.url = u
	if r.Proxy == nil {
		return check.Passed("none in use")
	}
	via, err := r.Proxy.ProxyFunc()(u)
	// An address that cannot be read is taken for none by the library.
	for _, proxy := range []string{r.Proxy.HTTPSProxy, r.Proxy.HTTPProxy} {
		if _, bad := url.Parse(proxy); bad != nil && err == nil {
			_, err = url.Parse("http://" + proxy)
		}
	}
	switch {
	case err != nil:
		return unreachable([]string{"set HTTPS_PROXY to an address such as http://proxy.example:3128, or unset it"}, "the proxy's address cannot be read: HTTPS_PROXY or HTTP_PROXY is no URL")
	case via == nil:
		return check.Passed("none for %s", u.Host)
	case via.Scheme != "http":
		return unreachable([]string{"set HTTPS_PROXY to an http:// proxy: the traffic in it is encrypted all the same"}, "the sandbox cannot use the proxy %s: only http proxies work", via.Redacted())
	}
	r.via = via
	return check.Passed("%s, by HTTPS_PROXY or HTTP_PROXY", via.Redacted())
}

// next is what is connected to: the proxy, or the service.
func (r *Route) next() (host, port, what string) {
	u, what := r.url, "the service"
	if r.via != nil {
		u, what = r.via, "the proxy"
	}
	port = u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Hostname(), port, what
}

func (r *Route) resolver() *net.Resolver {
	if r.Resolver != nil {
		return r.Resolver
	}
	return net.DefaultResolver
}

func (r *Route) stepName(ctx context.Context) check.Result {
	host, _, what := r.next()
	if addr, err := netip.ParseAddr(host); err == nil {
		r.addrs = []netip.Addr{addr}
		return check.Passed("%s is an address", host)
	}
	addrs, err := r.resolver().LookupNetIP(ctx, "ip", host)
	if err != nil {
		var dns *net.DNSError
		switch {
		case errors.As(err, &dns) && dns.IsNotFound:
			return unreachable([]string{"is it spelled right in amp.url (or HTTPS_PROXY)? ask by hand: `getent hosts " + host + "`"},
				"the name of %s, %s, does not exist", what, host)
		case errors.As(err, &dns) && (dns.IsTimeout || dns.IsTemporary):
			return unreachable([]string{"see which name servers this machine asks: `cat /etc/resolv.conf`", "check the network: `getent hosts " + host + "`"},
				"no name server answers for %s: %w", host, err)
		}
		return unreachable([]string{"ask by hand: `getent hosts " + host + "`"}, "%s cannot be looked up: %w", host, err)
	}
	var texts []string
	for _, a := range addrs {
		r.addrs = append(r.addrs, a.Unmap())
		texts = append(texts, a.Unmap().String())
	}
	p := check.Passed("%s is %s", host, texts[0])
	p.Details = texts
	return p
}

// connect goes to the service or its proxy, at one of the addresses that the name has.
func (r *Route) connect(ctx context.Context) (net.Conn, error) {
	_, port, _ := r.next()
	var d net.Dialer
	var errs []error
	for _, a := range r.addrs {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (r *Route) stepConnection(ctx context.Context) check.Result {
	host, port, what := r.next()
	conn, err := r.connect(ctx)
	if err != nil {
		hints := []string{"a firewall must allow connections to " + net.JoinHostPort(host, port) + "; try it by hand: `curl -v " + r.Base + "`"}
		if r.via != nil {
			hints = []string{"is the proxy's address right? it is taken from HTTPS_PROXY or HTTP_PROXY"}
		}
		return unreachable(hints, "%s at %s takes no connection: %w", what, net.JoinHostPort(host, port), lastCause(err))
	}
	defer conn.Close()
	return check.Passed("%s accepts", conn.RemoteAddr())
}

// lastCause is what the kernel says of a connection, without the addresses.
func lastCause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		if op.Timeout() {
			return errors.New("no answer in time")
		}
		return op.Err
	}
	return err
}

// transport makes connections of its own, by the addresses and the proxy that were found.
func (r *Route) transport() *http.Transport {
	t := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: r.RootCAs, MinVersion: tls.VersionTLS12},
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return r.connect(ctx) },
		DisableKeepAlives: true,
	}
	if r.via != nil {
		t.Proxy = http.ProxyURL(r.via)
	}
	return t
}

func (r *Route) stepCertificate(ctx context.Context) check.Result {
	if r.url.Scheme == "http" {
		return check.Passed("none: plain http, on loopback only")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Base, http.NoBody)
	if err != nil {
		return check.Failed(err)
	}
	resp, err := r.transport().RoundTrip(req)
	if err != nil {
		return r.badCertificate(err)
	}
	defer resp.Body.Close()
	if resp.TLS == nil || len(resp.TLS.PeerCertificates) == 0 {
		return check.Passed("none")
	}
	leaf := resp.TLS.PeerCertificates[0]
	p := check.Passed("signed by %s, %s", check.Issuer(leaf), tls.VersionName(resp.TLS.Version))
	for _, c := range resp.TLS.PeerCertificates {
		p.Details = append(p.Details, fmt.Sprintf("%s, signed by %s, until %s", c.Subject, c.Issuer, c.NotAfter.Format("2006-01-02")))
	}
	return p
}

// badCertificate explains why no TLS came about.
func (r *Route) badCertificate(err error) check.Result {
	host := r.url.Hostname()
	var bad *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	if errors.As(err, &bad) && len(bad.UnverifiedCertificates) > 0 {
		by := check.Issuer(bad.UnverifiedCertificates[0])
		switch {
		case errors.As(err, &unknown):
			return unreachable([]string{
				"if that is your company's proxy, make its certificate known: `sudo cp CA.crt /usr/local/share/ca-certificates/ && sudo update-ca-certificates`",
				"or name a bundle that has it: `export SSL_CERT_FILE=BUNDLE.pem NODE_EXTRA_CA_CERTS=CA.pem`",
				"if it is nobody you know, somebody is between you and the service: use another network",
			}, "the certificate of %s is signed by %s, whom this machine does not trust", host, by)
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			return unreachable([]string{"is this machine's clock right? `date -u` and `timedatectl`", "if it is, the service's certificate has to be renewed"},
				"the certificate of %s, signed by %s, is not valid at this time: %w", host, by, invalid)
		case errors.As(err, &name):
			return unreachable([]string{"a captive portal or a proxy answers in the service's place: open a browser and log in to the network", "or correct amp.url"},
				"the certificate is for another name than %s (signed by %s)", host, by)
		}
		return unreachable(nil, "the certificate of %s, signed by %s, is refused: %w", host, by, err)
	}
	if r.via != nil {
		return unreachable([]string{
			"does the proxy want a user name? HTTPS_PROXY=http://USER:PASSWORD@" + r.via.Host,
			"does the proxy allow " + r.url.Host + "?",
		}, "the proxy %s does not connect to %s: %w", r.via.Host, r.url.Host, err)
	}
	return unreachable([]string{"what answers at " + r.url.Host + " speaks no TLS: is the port in amp.url right?"}, "no encrypted connection to %s: %w", r.url.Host, lastCause(err))
}

// noting keeps what the service says of the time.
type noting struct {
	http.RoundTripper
	route *Route
}

func (n noting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := n.RoundTripper.RoundTrip(req)
	if err == nil {
		if date, dateErr := http.ParseTime(resp.Header.Get("Date")); dateErr == nil {
			n.route.mu.Lock()
			n.route.date, n.route.asked = date, time.Now()
			n.route.mu.Unlock()
		}
	}
	return resp, err
}

// stepAnswer asks the service something without a key, and takes its refusal for the sign of life that it is.
func (r *Route) stepAnswer(ctx context.Context) check.Result {
	client := &http.Client{Timeout: stepTimeout, Transport: noting{r.transport(), r}}
	if _, err := NewService(r.Base, "", client).UserInfo(ctx); err != nil && fault.CodeOf(err) != fault.KeyRejected {
		return check.Failed(err)
	}
	return check.Passed("%s answers", r.Base)
}

// clock compares this machine's with the service's.
func (r *Route) clock() check.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.date.IsZero() {
		return check.Skipped("the service does not say what time it has")
	}
	off := r.asked.Sub(r.date).Round(time.Second)
	how := "ahead of"
	size := off
	if off < 0 {
		how, size = "behind", -off
	}
	const set = "set the clock: `sudo timedatectl set-ntp true`"
	switch {
	case size >= clockWrong:
		return check.Failed(fmt.Errorf("this machine's clock is %s %s the service's: certificates and keys will be refused", size, how)).Hint(set)
	case size >= clockLate:
		return check.Warned("this machine's clock is %s %s the service's", size, how).Hint(set)
	}
	return check.Passed("as the service's, within %s", clockLate)
}
