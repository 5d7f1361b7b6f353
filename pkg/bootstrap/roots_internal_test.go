package bootstrap

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
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
	rt, ok := list[0].(*tree).get.client.Transport.(lazyTransport)
	if !ok {
		t.Fatal("the transport is another one")
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Verify(x509.VerifyOptions{Roots: rt().TLSClientConfig.RootCAs}); err != nil {
		t.Error(err)
	}
}
