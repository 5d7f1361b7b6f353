package bootstrap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// way is how a source was gone to, step by step as it really happened: with the proxies and authorities
// that fetching from it has. Of several connections the last one counts.
type way struct {
	mu        sync.Mutex
	to        string // host:port that was connected to: the source's, or its proxy's
	addrs     []netip.Addr
	connected string // the address that accepted
	state     tls.ConnectionState
	lookup    error // what each step failed with
	connect   error
	encrypt   error
	answered  bool
}

// traced is ctx with which the requests of a source are noted down.
func (w *way) traced(ctx context.Context) context.Context {
	note := func(f func()) {
		w.mu.Lock()
		defer w.mu.Unlock()
		f()
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(to string) {
			note(func() { w.to, w.connected, w.lookup, w.connect, w.encrypt, w.answered = to, "", nil, nil, nil, false })
		},
		DNSDone: func(info httptrace.DNSDoneInfo) {
			note(func() {
				w.lookup, w.addrs = info.Err, nil
				for _, a := range info.Addrs {
					if addr, ok := netip.AddrFromSlice(a.IP); ok {
						w.addrs = append(w.addrs, addr.Unmap())
					}
				}
			})
		},
		ConnectDone: func(_, addr string, err error) {
			note(func() {
				if w.connect = err; err == nil {
					w.connected = addr
				}
			})
		},
		TLSHandshakeDone:     func(state tls.ConnectionState, err error) { note(func() { w.state, w.encrypt = state, err }) },
		GotFirstResponseByte: func() { note(func() { w.answered = true }) },
	})
}

// proxy is the proxy that was gone through on the way to address; "" for none.
func (w *way) proxy(address string) string {
	u, err := url.Parse(address)
	if err != nil || w.to == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if own := net.JoinHostPort(u.Hostname(), port); strings.EqualFold(own, w.to) {
		return ""
	}
	return w.to
}

// signer says who signed the certificate of the source, and of what kind the connection is.
func (w *way) signer() string {
	if len(w.state.PeerCertificates) == 0 {
		return ""
	}
	return fmt.Sprintf("signed by %s, %s", check.Issuer(w.state.PeerCertificates[0]), tls.VersionName(w.state.Version))
}

// steps are the details of the check: a line for each step that was gone.
func (w *way) steps(address string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	proxy := w.proxy(address)
	if proxy == "" {
		lines = append(lines, "proxy: none in use")
	} else {
		lines = append(lines, "proxy: "+proxy)
	}
	host, _, _ := net.SplitHostPort(w.to)
	if len(w.addrs) > 0 {
		texts := make([]string, len(w.addrs))
		for i, a := range w.addrs {
			texts[i] = a.String()
		}
		lines = append(lines, fmt.Sprintf("name: %s is %s", host, strings.Join(texts, ", ")))
	}
	if w.connected != "" {
		lines = append(lines, "connection: "+w.connected+" accepts")
	}
	if signed := w.signer(); signed != "" {
		lines = append(lines, "certificate: "+signed)
	}
	return lines
}

// summary is what there is to say of a source that answers, besides its answer.
func (w *way) summary(address string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := ""
	if signed := w.signer(); signed != "" {
		text += ", " + signed
	}
	if proxy := w.proxy(address); proxy != "" {
		text += ", through the proxy " + proxy
	}
	return text
}

// remedies are for the step that failed; none where all were gone and it is the answer that is wrong.
func (w *way) remedies(address string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	host, _, _ := net.SplitHostPort(w.to)
	proxy := w.proxy(address)
	switch {
	case w.lookup != nil:
		return []string{"the name cannot be looked up; ask by hand: `getent hosts " + host + "`"}
	case w.connect != nil && w.connected == "" && proxy != "":
		return []string{"is the proxy's address right? it is taken from HTTPS_PROXY or HTTP_PROXY, for npm also from its configuration"}
	case w.connect != nil && w.connected == "":
		return []string{"a firewall must allow connections to " + w.to}
	case w.encrypt != nil:
		var bad *tls.CertificateVerificationError
		var unknown x509.UnknownAuthorityError
		if errors.As(w.encrypt, &bad) && len(bad.UnverifiedCertificates) > 0 && errors.As(w.encrypt, &unknown) {
			return []string{fmt.Sprintf("its certificate is signed by %s: if that is your company's proxy, name the file of its authority in SSL_CERT_FILE (for npm: cafile)",
				check.Issuer(bad.UnverifiedCertificates[0]))}
		}
		return []string{"no encrypted connection came about: is a proxy or a captive portal in between?"}
	}
	return nil
}

// addresses are those that the source's own name has for this machine: none where a proxy looks it up.
func (w *way) addresses(address string) []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.proxy(address) != "" {
		return nil
	}
	return slices.Clone(w.addrs)
}

// reached tells whether anything answered there.
func (w *way) reached() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered
}

// addressOf is the base that a source is gone to; "" for one that needs no network, or whose configuration cannot be read.
func addressOf(ctx context.Context, s Source) string {
	switch s := s.(type) {
	case *tree:
		return s.base
	case *npm:
		if setup, err := s.prepare(ctx); err == nil {
			return setup.registry
		}
	}
	return ""
}
