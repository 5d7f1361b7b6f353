package bootstrap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// transport returns base as npm's configuration wants it: its authorities, its
// proxy, its strictness. A base that is not one of ours stays as it is.
func (c *npmConfig) transport(base http.RoundTripper) (rt http.RoundTripper, warnings []string, err error) {
	lazy, ok := base.(*lazyTransport)
	if !ok {
		return base, nil, nil
	}
	t := lazy.secure().Clone()
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	roots, err := c.roots()
	if err != nil {
		return nil, nil, err
	}
	if roots != nil {
		t.TLSClientConfig.RootCAs = roots
	}
	if c.get("strict-ssl") == "false" {
		t.TLSClientConfig.InsecureSkipVerify = true //nolint:gosec // the user told npm so, and hears of it
		warnings = append(warnings, "npm's strict-ssl is off: the certificate of the registry is not checked")
	}
	if err := c.proxy(t); err != nil {
		return nil, nil, err
	}
	return t, warnings, nil
}

// roots returns the authorities of cafile or ca, which for npm stand in the
// place of the system's; nil where neither is configured.
func (c *npmConfig) roots() (*x509.CertPool, error) {
	var pem []byte
	if file := c.get("cafile"); file != "" {
		path, err := c.file(file)
		if err != nil {
			return nil, err
		}
		if pem, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("npm configuration: cafile: %w", err)
		}
	} else if c.get("ca") != "" {
		for _, ca := range c.values["ca"] {
			pem = append(pem, strings.ReplaceAll(ca, `\n`, "\n")+"\n"...)
		}
	}
	if pem == nil {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("npm configuration: cafile or ca has no certificate in it")
	}
	return pool, nil
}

// proxy sets what npm's https-proxy, proxy and noproxy say; without them the
// environment's proxy stays.
func (c *npmConfig) proxy(t *http.Transport) error {
	env := c.network.Environ
	https, plain := c.get("https-proxy"), c.get("proxy")
	no := strings.Join(c.values["noproxy"], ",")
	if https == "false" || plain == "false" {
		t.Proxy = nil
		return nil
	}
	if https == "" && plain == "" && no == "" {
		return nil
	}
	if https == "" {
		https = plain
	}
	if https == "" {
		https = firstEnv(env, "HTTPS_PROXY", "https_proxy")
	}
	if plain == "" {
		plain = firstEnv(env, "HTTP_PROXY", "http_proxy")
	}
	if no == "" {
		no = firstEnv(env, "NO_PROXY", "no_proxy")
	}
	for _, p := range []string{https, plain} {
		if _, err := url.Parse(p); err != nil {
			return errors.New("npm configuration: the proxy is no address")
		}
	}
	config := httpproxy.Config{HTTPSProxy: https, HTTPProxy: plain, NoProxy: no}
	choose := config.ProxyFunc()
	t.Proxy = func(r *http.Request) (*url.URL, error) { return choose(r.URL) }
	return nil
}
