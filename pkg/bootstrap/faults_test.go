package bootstrap_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func wantHint(t *testing.T, err error, words ...string) {
	t.Helper()
	hints := strings.Join(fault.HintsOf(err), "\n")
	for _, w := range words {
		if !strings.Contains(hints, w) {
			t.Errorf("no hint has %q:\n%s", w, hints)
		}
	}
}

func TestProxyThatRefuses(t *testing.T) {
	for status, words := range map[int]string{
		http.StatusProxyAuthRequired: "proxy authentication required",
		http.StatusForbidden:         "forbidden",
	} {
		proxy := newSite(t, func(http.Handler) *httptest.Server {
			return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		})
		in := installer(t, bootstrap.Options{Sources: sources(t,
			bootstrap.Network{Environ: []string{"HTTPS_PROXY=http://user:hunter2@" + proxy.Listener.Addr().String()}}, "https://mirror.invalid")})
		_, err := in.Install(t.Context(), newVersion)
		wantFault(t, err, fault.BootstrapFailed, "the proxy "+proxy.Listener.Addr().String()+" refused the connection", words, "https://mirror.invalid/")
		wantHint(t, err, "HTTPS_PROXY", "storage.googleapis.com")
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is shown: %v", err)
		}
	}
}

// TestHTTPSThroughProxy has a proxy lead to a host that only it can reach, unless it is not to be asked.
func TestHTTPSThroughProxy(t *testing.T) {
	now := time.Now()
	s, authority := certified(t, now.Add(-time.Hour), now.Add(time.Hour))
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	var asked atomic.Int32
	proxy := newSite(t, func(http.Handler) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect || r.Host != "mirror.invalid:443" || r.Header.Get("Proxy-Authorization") == "" {
				t.Errorf("%s %s", r.Method, r.Host)
			}
			asked.Add(1)
			there, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer there.Close()
			here, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer here.Close()
			_, _ = here.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			go func() { _, _ = io.Copy(there, here) }()
			_, _ = io.Copy(here, there)
		}))
	})
	environ := []string{"SSL_CERT_FILE=" + authority, "HTTPS_PROXY=http://user:hunter2@" + proxy.Listener.Addr().String()}
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{Environ: environ}, "https://mirror.invalid")})
	b, err := in.Install(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, data)
	before := asked.Load()
	if before == 0 {
		t.Error("the proxy was not asked")
	}
	environ = append(environ, "NO_PROXY=mirror.invalid")
	in = installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{Environ: environ}, "https://mirror.invalid")})
	_, err = in.Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "mirror.invalid")
	if asked.Load() != before {
		t.Error("NO_PROXY did not count")
	}
}

// certified is a server with a certificate of its own, valid as long as told.
func certified(t *testing.T, from, to time.Time) (s *site, authority string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mirror"}, NotBefore: from, NotAfter: to,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"mirror.invalid"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	authority = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return newSite(t, func(h http.Handler) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.Config.ErrorLog = silent()
		server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		server.StartTLS()
		return server
	}), authority
}

func TestAuthorities(t *testing.T) {
	now := time.Now()
	s, authority := certified(t, now.Add(-time.Hour), now.Add(time.Hour))
	s.publish(t, newVersion, bootstrap.LinuxX64)
	_, err := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, s.URL)}).Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "unknown authority", s.URL)
	wantHint(t, err, "SSL_CERT_FILE")
	trusting := bootstrap.Network{Environ: []string{"SSL_CERT_FILE=" + authority}}
	if _, err := installer(t, bootstrap.Options{Sources: sources(t, trusting, s.URL)}).Install(t.Context(), newVersion); err != nil {
		t.Errorf("SSL_CERT_FILE: %v", err)
	}
	trusting = bootstrap.Network{Environ: []string{"SSL_CERT_DIR=" + filepath.Dir(authority)}}
	if _, err := installer(t, bootstrap.Options{Sources: sources(t, trusting, s.URL)}).Install(t.Context(), newVersion); err != nil {
		t.Errorf("SSL_CERT_DIR: %v", err)
	}
	_, err = bootstrap.ParseSources(nil, bootstrap.Network{Environ: []string{"SSL_CERT_FILE=/nowhere"}})
	wantFault(t, err, fault.Usage, "SSL_CERT_FILE", "/nowhere")

	// A clock that is wrong looks like this from here.
	s, authority = certified(t, now.Add(time.Hour), now.Add(2*time.Hour))
	trusting = bootstrap.Network{Environ: []string{"SSL_CERT_FILE=" + authority}}
	_, err = installer(t, bootstrap.Options{Sources: sources(t, trusting, s.URL)}).Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "not yet valid")
	wantHint(t, err, "this machine's clock says "+now.UTC().Format("2006-01-02"))
}

func TestCaptivePortal(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.handle("/login", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html>pay here</html>"))
	})
	portal := newSite(t, func(http.Handler) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.URL+"/login", http.StatusFound)
		}))
	})
	for _, want := range []string{"latest", newVersion} {
		_, err := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, portal.URL)}).Install(t.Context(), want)
		wantFault(t, err, fault.BootstrapFailed, "a web page came instead", portal.URL)
		wantHint(t, err, "may want a login first")
	}
}

// TestCacheRemovedInMidRun has somebody clear the cache while a version comes into it.
func TestCacheRemovedInMidRun(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	cache := filepath.Join(t.TempDir(), "amp")
	s.handle(rawFile+".gz", nil)
	s.ranged(rawFile, data, func(sent int, _ *http.Request) {
		if sent > len(data)/2 {
			_ = os.RemoveAll(cache)
		}
	})
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
	_, err := in.Ensure(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "the cache of amp", cache)
	s.ranged(rawFile, data, nil)
	b, err := in.Ensure(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, data)
}

// TestCacheRemovedWhileWaiting has the one that waited make a cache of its own.
func TestCacheRemovedWhileWaiting(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	s.handle(rawFile+".gz", nil)
	begun, removed := make(chan struct{}, 1), make(chan struct{})
	s.ranged(rawFile, data, func(sent int, r *http.Request) {
		if s.hits(rawFile) == 1 && sent > len(data)/2 {
			select {
			case begun <- struct{}{}:
			default:
			}
			<-removed
		}
	})
	cache := filepath.Join(t.TempDir(), "amp")
	list := sources(t, bootstrap.Network{}, s.URL)
	first := make(chan error, 1)
	go func() {
		_, err := installer(t, bootstrap.Options{Dir: cache, Sources: list}).Ensure(t.Context(), newVersion)
		first <- err
	}()
	<-begun
	in := installer(t, bootstrap.Options{Dir: cache, Sources: list, Events: bootstrap.Events{Waiting: func(string) {
		if err := os.RemoveAll(cache); err != nil {
			t.Error(err)
		}
		close(removed)
	}}})
	b, err := in.Ensure(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, data)
	wantFault(t, <-first, fault.BootstrapFailed, "the cache of amp", cache)
}

// TestContentLengthThatIsWrong is of servers that promise less than the file has.
func TestContentLengthThatIsWrong(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	s.handle(rawFile+".gz", nil)
	s.handle(rawFile, func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
		_, _ = buf.Write(data[:1000])
		_ = buf.Flush()
	})
	cache := filepath.Join(t.TempDir(), "amp")
	_, err := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)}).Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "wrong sha256", s.URL+rawFile)
	wantEmpty(t, cache)
}
