package bootstrap

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAuthoritiesAreParsedWhenNeeded counts allocations: a start with a cached Amp asks nobody,
// and parsing a system's bundle would take it ten times as long.
func TestAuthoritiesAreParsedWhenNeeded(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	const bundle = 200
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, bytes.Repeat(one, bundle), 0o600); err != nil {
		t.Fatal(err)
	}
	var list []Source
	allocations := testing.AllocsPerRun(5, func() {
		list, err = ParseSources(nil, Network{Environ: []string{"SSL_CERT_FILE=" + file, "SSL_CERT_DIR=" + dir}})
	})
	if err != nil || allocations > bundle {
		t.Errorf("%.0f allocations, %v", allocations, err)
	}
	rt, ok := list[0].(*tree).get.client.Transport.(*lazyTransport)
	if !ok {
		t.Fatal("the transport is another one")
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Verify(x509.VerifyOptions{Roots: rt.secure().TLSClientConfig.RootCAs}); err != nil {
		t.Error(err)
	}
}

// TestPlainRequestsNeedNoAuthorities asks a server without encryption, and by a proxy with and without.
func TestPlainRequestsNeedNoAuthorities(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	for _, c := range []struct {
		name, proxy, url string
		secure           bool
	}{
		{"no proxy", "", server.URL, false},
		{"a plain proxy", server.URL, "http://mirror.example/", false},
		{"an encrypted proxy", "https://127.0.0.1:1", "http://mirror.example/", true},
		{"an encrypted server", "", "https://127.0.0.1:1/", true},
		{"a plain proxy, an encrypted server", server.URL, "https://mirror.example/", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			environ := []string{"HTTP_PROXY=" + c.proxy, "HTTPS_PROXY=" + c.proxy}
			rt, err := newLazyTransport(Network{Environ: environ})
			if err != nil {
				t.Fatal(err)
			}
			asked := false
			secure := rt.secure
			rt.secure = func() *http.Transport { asked = true; return secure() }
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := rt.RoundTrip(r)
			if err == nil {
				resp.Body.Close()
			} else if !c.secure {
				t.Error(err)
			}
			if asked != c.secure {
				t.Errorf("authorities read: %v", asked)
			}
		})
	}
}
