package bootstrap

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// authorities are those of SSL_CERT_FILE and SSL_CERT_DIR, which Go itself reads on some systems only.
type authorities struct {
	pem []byte // what SSL_CERT_FILE has
	dir string
}

// authoritiesOf reads the environment. A file that cannot be used fails with [fault.Usage].
func authoritiesOf(environ []string) (authorities, error) {
	a := authorities{dir: firstEnv(environ, "SSL_CERT_DIR")}
	file := firstEnv(environ, "SSL_CERT_FILE")
	if file == "" {
		return a, nil
	}
	var err error
	if a.pem, err = os.ReadFile(file); err == nil && !bytes.Contains(a.pem, []byte("-----BEGIN CERTIFICATE-----")) {
		err = errors.New(file + " has no certificate in it")
	}
	if err != nil {
		return authorities{}, fault.New(fault.Usage, "SSL_CERT_FILE: %w", err).Hint("unset it, or name a file of certificates (PEM)")
	}
	return a, nil
}

// pool has the system's authorities as well; nil, which is only those, where neither variable is set.
func (a authorities) pool() *x509.CertPool {
	if a.pem == nil && a.dir == "" {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pool.AppendCertsFromPEM(a.pem)
	for _, dir := range filepath.SplitList(a.dir) {
		entries, _ := os.ReadDir(dir) // one that is not there has no certificates, as for Go and OpenSSL
		for _, e := range entries {
			if pem, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
				pool.AppendCertsFromPEM(pem)
			}
		}
	}
	return pool
}

// lazyTransport reads the authorities at the first request that is encrypted: to parse all of them takes longer
// than all the rest of a start with a cached Amp.
type lazyTransport struct {
	plain  *http.Transport // has no authorities
	secure func() *http.Transport
}

func newLazyTransport(n Network) (*lazyTransport, error) {
	a, err := authoritiesOf(n.Environ)
	if err != nil {
		return nil, err
	}
	timeouts := n.Timeouts.orDefault()
	return &lazyTransport{
		plain:  newTransport(n.Environ, timeouts, x509.NewCertPool()),
		secure: sync.OnceValue(func() *http.Transport { return newTransport(n.Environ, timeouts, a.pool()) }),
	}, nil
}

// RoundTrip encrypts what is for a server, or goes by a proxy, that wants it.
func (t *lazyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" {
		if proxy, err := t.plain.Proxy(r); err == nil && (proxy == nil || proxy.Scheme == "http") {
			return t.plain.RoundTrip(r)
		}
	}
	return t.secure().RoundTrip(r)
}
