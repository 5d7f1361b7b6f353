package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// serviceName resolves nowhere: a build that does not use the proxy reaches nobody.
const serviceName = "amp.invalid"

// A native Amp that is told of the proxy by variables has a turn, by websocket, and has no key.
func TestNativeAmpHasATurnThroughTheProxy(t *testing.T) {
	for _, build := range amptest.Builds() {
		if !build.Native {
			continue // see the tier seatbelt's weaknesses
		}
		t.Run(build.Name, func(t *testing.T) {
			bin := build.InstallT(t, nil)
			cert, roots := certificate(t)
			service := amptest.New()
			if err := service.StartTLS(t.Context(), cert); err != nil {
				t.Fatal(err)
			}
			defer service.Close()
			_, portText, err := net.SplitHostPort(service.Addr())
			if err != nil {
				t.Fatal(err)
			}
			port, err := strconv.Atoi(portText)
			if err != nil {
				t.Fatal(err)
			}
			swap := &gateway.KeySwap{
				Host: serviceName, Port: port, TLS: true, Placeholder: "sgamp_user_PLACEHOLDER", Key: service.Key,
				Roots: func() (*x509.CertPool, error) { return roots, nil },
			}
			authority, err := swap.Authority()
			if err != nil {
				t.Fatal(err)
			}
			g := gateway.New(t.Context(), gateway.Options{
				Rules: gateway.Rules{{Host: serviceName, Port: port}}, Swap: swap,
				Dial: func(ctx context.Context, _ string, _ int, _ func(netip.Addr) error) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "tcp", service.Addr())
				},
			})
			defer g.Close()
			proxy, err := g.Proxy()
			if err != nil {
				t.Fatal(err)
			}
			defer proxy.Close()
			go func() { _ = proxy.Serve() }()

			home := t.TempDir()
			ca := filepath.Join(home, "ca.pem")
			if err := os.WriteFile(ca, authority, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, bin, "-x", "hello there", "--dangerously-allow-all", "--no-archive-after-execute")
			cmd.Dir = home
			cmd.Env = append(service.Env(home), "AMP_API_KEY="+swap.Placeholder, "AMP_URL=https://"+net.JoinHostPort(serviceName, portText)+"/",
				"HTTPS_PROXY="+proxy.URL(), "HTTP_PROXY="+proxy.URL(), "NO_PROXY=localhost,127.0.0.1,::1", "NODE_EXTRA_CA_CERTS="+ca)
			cmd.WaitDelay = time.Second
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "hello there") {
				t.Errorf("%v: %s", err, out)
			}
			if len(service.Requests()) == 0 {
				t.Error("the service heard nothing")
			}
			for _, d := range g.Denials() {
				if strings.HasPrefix(d.Target, serviceName) {
					t.Errorf("refused: %v", d)
				}
			}
		})
	}
}

// certificate is one for the service, and what vouches for it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serviceName}, DNSNames: []string{serviceName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
