package gateway

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// dialTimeout bounds connecting to one host, name lookup included.
const dialTimeout = 30 * time.Second

// Dialer connects from the host's side, through the user's own HTTPS proxy where one is configured.
type Dialer struct {
	// Proxy is the user's proxy configuration; nil connects directly.
	Proxy *httpproxy.Config
}

// Dial connects to host and port. Directly, only addresses that vet accepts are used; a
// proxy resolves the name itself.
func (d *Dialer) Dial(ctx context.Context, host string, port int, vet func(netip.Addr) error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	hostport := net.JoinHostPort(host, strconv.Itoa(port))
	if d.Proxy != nil {
		scheme := "https"
		if port == 80 {
			scheme = "http"
		}
		proxy, err := d.Proxy.ProxyFunc()(&url.URL{Scheme: scheme, Host: hostport})
		if err != nil {
			return nil, fmt.Errorf("proxy for %s: %w", hostport, err)
		}
		if proxy != nil {
			if err := vetBehindProxy(ctx, host, vet); err != nil {
				return nil, err
			}
			return dialThrough(ctx, proxy, hostport)
		}
	}
	return dialDirect(ctx, host, port, vet)
}

// vetBehindProxy refuses a host whose addresses, as far as this machine knows them, are not to be
// reached. Behind some proxies names resolve at the proxy only; then there is nothing to vet.
func vetBehindProxy(ctx context.Context, host string, vet func(netip.Addr) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil //nolint:nilerr // not known here: the proxy's business
	}
	for _, a := range addrs {
		if err := vet(a.Unmap()); err != nil {
			return err
		}
	}
	return nil
}

func dialDirect(ctx context.Context, host string, port int, vet func(netip.Addr) error) (net.Conn, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var nd net.Dialer
	var errs []error
	for _, a := range addrs {
		a = a.Unmap()
		if err := vet(a); err != nil {
			errs = append(errs, err)
			continue
		}
		conn, err := nd.DialContext(ctx, "tcp", netip.AddrPortFrom(a, uint16(port)).String())
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialThrough asks an HTTP proxy for a tunnel (RFC 9110, 9.3.6).
func dialThrough(ctx context.Context, proxy *url.URL, hostport string) (net.Conn, error) {
	if proxy.Scheme != "http" {
		return nil, fmt.Errorf("proxy %s: only http proxies are supported", proxy.Redacted())
	}
	addr := proxy.Host
	if proxy.Port() == "" {
		addr = net.JoinHostPort(proxy.Hostname(), "80")
	}
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: hostport}, Host: hostport, Header: http.Header{}}
	if u := proxy.User; u != nil {
		pw, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+pw)))
	}
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	br := bufio.NewReader(io.LimitReader(conn, 64<<10))
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		conn.Close()
		return nil, fmt.Errorf("proxy %s refused %s: %s", proxy.Redacted(), hostport, resp.Status)
	}
	return readFirst(conn, nil, br), nil // a host that speaks first may have done so
}

// privatePrefixes are addresses that are somebody's own network besides those that
// netip knows: RFC 6890 and 6598, and the ways to write an IPv4 address in IPv6.
var privatePrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("fec0::/10"),
	// Documentation, relays and discard; and the address at which Azure serves its machines.
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("3fff::/20"),
}

// nat64 is how networks without IPv4 write its addresses (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// publicOnly refuses addresses that do not belong to the public internet.
func publicOnly(a netip.Addr) error {
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		return publicOnly(netip.AddrFrom4([4]byte(b[12:])))
	}
	private := !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast()
	for _, p := range privatePrefixes {
		private = private || p.Contains(a)
	}
	if private {
		return &refusedError{"its address " + a.String() + " is private"}
	}
	return nil
}
