package sandbox

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

const (
	atOnce    = 200       // connections
	shareSize = 1_000_000 // bytes that each of them gets
	realKey   = "sgamp_user_TEST0000000000000000_0123456789abcdef0123456789abcdef"
	innerKey  = "sgamp_user_INSIDE00000000000000_fedcba9876543210fedcba9876543210"
)

// traffic is a server on the host whose answers can be told from each other.
type traffic struct {
	url     string
	key     string // what requests have to bring, if anything
	mu      sync.Mutex
	waiting int
	all     chan struct{}      // closed when as many requests as are to be there at once are
	bulk    chan [32]byte      // the sum of each large answer
	size    int64              // of a large answer
	share   func(n int) []byte // what the nth gets
}

func (s *traffic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.key != "" && r.Header.Get("Authorization") != "Bearer "+s.key {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if r.URL.Path == "/bulk" {
		s.sendBulk(w)
		return
	}
	n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.mu.Lock()
	if s.waiting++; s.waiting == atOnce {
		close(s.all)
	}
	s.mu.Unlock()
	select {
	case <-s.all:
		_, _ = w.Write(s.share(n)) // who does not get it finds the wrong sum
	case <-r.Context().Done():
	}
}

// sendBulk sends blocks that are all different.
func (s *traffic) sendBulk(w http.ResponseWriter) {
	w.Header().Set("Content-Length", strconv.FormatInt(s.size, 10))
	sum, block := sha256.New(), make([]byte, 256<<10)
	for left := s.size; left > 0; left -= int64(len(block)) {
		binary.LittleEndian.PutUint64(block, uint64(left))
		block = block[:min(left, int64(len(block)))]
		sum.Write(block)
		if _, err := w.Write(block); err != nil {
			return
		}
	}
	s.bulk <- [32]byte(sum.Sum(nil))
}

// newTraffic makes a host with such a server, on a way that is passed on as it is or on that to the service.
func newTraffic(t *testing.T, size int64, swapped bool) (*host, *traffic) {
	h := newHost(t)
	s := &traffic{all: make(chan struct{}), bulk: make(chan [32]byte, 1), size: size}
	s.share = func(n int) []byte {
		data := make([]byte, shareSize)
		random := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
		if _, err := io.ReadFull(random, data); err != nil {
			panic(err) // it never fails
		}
		return data
	}
	server := httptest.NewUnstartedServer(s)
	if !swapped {
		server.Start()
	} else {
		s.key = realKey
		server.StartTLS()
	}
	t.Cleanup(server.Close)
	s.url = server.URL
	h.allow("127.0.0.1:" + port(t, server))
	if swapped {
		n, err := strconv.Atoi(port(t, server))
		if err != nil {
			t.Fatal(err)
		}
		h.policy.Swap = &gateway.KeySwap{
			Host: "127.0.0.1", Port: n, TLS: true, Placeholder: innerKey, Key: func() string { return realKey },
			Roots: func() (*x509.CertPool, error) {
				roots := x509.NewCertPool()
				roots.AddCert(server.Certificate())
				return roots, nil
			},
		}
		if h.env, err = h.policy.TrustSwap(h.env); err != nil {
			t.Fatal(err)
		}
	}
	return h, s
}

// curlCommand is how the sandbox fetches. To read all authorities for each of many connections takes curl long.
const curlCommand = `curl -sSf --http1.1 ${NODE_EXTRA_CA_CERTS:+--cacert "$NODE_EXTRA_CA_CERTS"} -H 'Authorization: Bearer ` + innerKey + `' `

var ways = []struct {
	name    string
	swapped bool
}{{"passed on", false}, {"key swapped", true}}

// The server answers nobody before all are there, and each gets its own answer.
func TestCrowdGetsTheRightBytes(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			h, s := newTraffic(t, 0, way.swapped)
			out := h.sh(fmt.Sprintf(`%s -Z --parallel-immediate --parallel-max %d --max-time 100 -o 'share-#1' '%s/[1-%d]' 2>/dev/null
for i in $(seq %d); do sha256sum "share-$i"; done`, curlCommand, atOnce, s.url, atOnce, atOnce))
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if len(lines) != atOnce {
				t.Fatalf("%d answers:\n%s", len(lines), out)
			}
			for i, line := range lines {
				sum := sha256.Sum256(s.share(i + 1))
				if want := fmt.Sprintf("%x  share-%d", sum, i+1); line != want {
					t.Errorf("got %s, want %s", line, want)
				}
			}
		})
	}
}

// However much is transferred, it does not stay in memory. What this process takes is what the gateway and the server take.
func TestLargeTransferTakesNoMemory(t *testing.T) {
	const size, most = 2_000_000_000, 16 << 20
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			h, s := newTraffic(t, size, way.swapped)
			h.sh(curlCommand + "-o /dev/null -r 0-0 " + s.url + "/1 --max-time 1 || true") // the first takes more
			debug.FreeOSMemory()
			// The peak is the present, from now on (proc(5), clear_refs).
			if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := memory(t, "VmHWM:")
			out := h.sh(curlCommand + s.url + "/bulk | sha256sum")
			grown := memory(t, "VmHWM:") - before
			sum := <-s.bulk
			if want := hex.EncodeToString(sum[:]) + "  -\n"; out != want {
				t.Errorf("the sum is %q, want %q", out, want)
			}
			t.Logf("grew by %.1f MB", float64(grown)/1e6)
			if grown > most {
				t.Errorf("the transfer of %d MB took %.1f MB of memory", size/1_000_000, float64(grown)/1e6)
			}
		})
	}
}

// What is sent comes back, both ways at once. No program can keep that in one buffer.
func TestLargeEcho(t *testing.T) {
	for name, h := range map[Tier]*host{Namespaces: newHost(t), Landlock: newConfined(t)} {
		t.Run(string(name), func(t *testing.T) {
			h.t = t
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				_, _ = io.Copy(w, r.Body)
			}))
			t.Cleanup(s.Close)
			h.allow("127.0.0.1:" + port(t, s))
			h.sh(`head -c 100000001 /dev/urandom >sent
curl -sSf --http1.1 -H Expect: -T sent ` + s.URL + ` >back
cmp sent back`)
		})
	}
}

// The host's congestion control may be one that sends by the clock: to the gateway it is not used.
func TestConfinedConnectionsAreNotPaced(t *testing.T) {
	const control = `import socket as k; s = k.socket(); s.connect(("127.0.0.1", %s)); print(s.getsockopt(k.IPPROTO_TCP, k.TCP_CONGESTION, 16).rstrip(b"\0").decode())`
	h := newConfined(t)
	s, _ := hostServer(t)
	code := python(fmt.Sprintf(control, port(t, s)))
	h.allow("127.0.0.1:" + port(t, s))
	outside, err := exec.CommandContext(t.Context(), "/bin/bash", "-c", code).Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(outside) == "reno\n" {
		t.Skip("it is the host's as well")
	}
	if inside := h.sh(code); inside != "reno\n" {
		t.Errorf("%q inside, %q outside", inside, outside)
	}
}

// memory is a number of bytes from this process's status.
func memory(t *testing.T, name string) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\n"+name)
	var kilobytes int64
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return kilobytes << 10
}
