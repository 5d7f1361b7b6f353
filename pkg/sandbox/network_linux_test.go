package sandbox

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// port is the port of a test server on the host's loopback.
func port(t *testing.T, s *httptest.Server) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

func hostServer(t *testing.T) (s *httptest.Server, hits func() int) {
	var mu sync.Mutex
	n := 0
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n++
		mu.Unlock()
		_, _ = io.Copy(w, r.Body)
		fmt.Fprint(w, "SERVED")
	}))
	t.Cleanup(s.Close)
	return s, func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func targets(ds []Denial) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.Target)
	}
	return out
}

func TestHostsNotAllowed(t *testing.T) {
	h := newHost(t)
	h.allow("allowed.example")
	s, _ := hostServer(t)
	own := port(t, s)
	h.refuse([]attack{
		{"a service on the host's loopback", `curl -sS -m 5 http://127.0.0.1:` + own + `/ | grep SERVED && echo GOT`, true},
		{"the same by name", `curl -sS -m 5 http://localhost:` + own + `/ | grep SERVED && echo GOT`, true},
		{"the same in other clothes", `for a in 2130706433 127.1 0x7f.1 017700000001 0.0.0.0 '[::ffff:127.0.0.1]' '[::1]'; do curl -sS -m 5 http://$a:` + own + `/ | grep SERVED && echo GOT; done`, true},
		{"another interface", python(`import socket; print("GOT" if "` + hostInterface(t) + `" in [name for _, name in socket.if_nameindex()] else "no")`), hostInterface(t) != "none"},
	})
}

// hostInterface is the name of an interface that leads out of this machine, or "none".
func hostInterface(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			return i.Name
		}
	}
	return "none"
}

func TestRefusalsAreReported(t *testing.T) {
	h := newHost(t)
	h.allow("allowed.example")
	start := time.Now()
	r := h.run("/bin/bash", "-c", `curl -sS https://example.com; curl -sS https://192.0.2.7; curl -sS http://allowed.example:8080/; curl -sSk https://allowed.example/ --connect-to allowed.example:443:192.0.2.8:443; exit 0`)
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("refusals took %v: they must come at once", d)
	}
	got := targets(r.denials)
	for _, want := range []string{"example.com", "192.0.2.7:443", "192.0.2.8:443"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not among the denials %q\n%s", want, got, r.out)
		}
	}
	if !strings.Contains(r.out, "Could not resolve host: example.com") {
		t.Errorf("curl says %q", r.out)
	}
}

func TestAllowedAddress(t *testing.T) {
	h := newHost(t)
	s, _ := hostServer(t)
	h.allow("127.0.0.1:" + port(t, s))
	out := h.sh(`env -i /usr/bin/curl -sS -m 10 -d body http://127.0.0.1:` + port(t, s) + `/`)
	if out != "bodySERVED" {
		t.Errorf("the allowed server says %q", out)
	}
}

func TestAllowedNameWithPortMayBePrivate(t *testing.T) {
	h := newHost(t)
	s, _ := hostServer(t)
	h.allow("localhost:" + port(t, s))
	if out := h.sh(`curl -sS -m 10 http://localhost:` + port(t, s) + `/`); out != "SERVED" {
		t.Errorf("the allowed server says %q", out)
	}
}

// A rule for localhost is not one for the other addresses of the loopback interface, where other users listen, and in one tier the sandbox.
func TestLocalhostIsNoOtherAddress(t *testing.T) {
	h := newHost(t)
	s, _ := hostServer(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.77:"+port(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reached := make(chan struct{}, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			reached <- struct{}{}
			c.Close()
		}
	}()
	h.allow("localhost:" + port(t, s))
	if out := h.sh(`curl -sS -m 10 http://127.0.0.1:` + port(t, s) + `/; curl -sS -m 10 http://127.0.0.77:` + port(t, s) + `/ 2>&1 || true`); !strings.HasPrefix(out, "SERVED") {
		t.Errorf("the allowed server says %q", out)
	}
	select {
	case <-reached:
		t.Error("another address was reached")
	default:
	}
}

// A program that asks a name server of its own choice gets the same answers.
func TestEveryNameServerIsOurs(t *testing.T) {
	h := newHost(t)
	h.allow("allowed.example")
	ask := `
import socket, struct
def ask(server, name, kind):
    q = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0)
    q += b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0" + struct.pack(">HH", 1, 1)
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(5)
    s.connect((server, 53))
    if kind == socket.SOCK_STREAM:
        q = struct.pack(">H", len(q)) + q
    s.send(q)
    a = s.recv(512)
    if kind == socket.SOCK_STREAM:
        if len(a) == 2: a += s.recv(512)
        a = a[2:]
    return a[3] & 15, a[-4:]
for server in ("127.0.0.1", "192.0.2.53"):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        print(ask(server, "allowed.example", kind)[0], ask(server, "secret-data.evil.example", kind)[0])
print(socket.inet_ntoa(ask("127.0.0.1", "ALLOWED.example", socket.SOCK_DGRAM)[1]))
`
	out := h.run("python3", "-c", ask)
	if want := strings.Repeat("0 3\n", 4) + "198.18.0.1\n"; out.out != want {
		t.Errorf("answers %q, want %q", out.out, want)
	}
}

func TestServersInside(t *testing.T) {
	h := newHost(t)
	out := h.sh(`
python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 &
for i in $(seq 100); do curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8123/ && break; sleep 0.05; done
python3 -c 'import multiprocessing as m; p = m.Pool(2); print(p.map(abs, [-1, -2]))'
`)
	if !strings.Contains(out, "200[1, 2]") {
		t.Errorf("inside: %q", out)
	}
}

// As many ports as the tier can have work, and more are said.
func TestManyPorts(t *testing.T) {
	if testTier() == Landlock {
		t.Skip("nobody listens on ports there")
	}
	h := newHost(t)
	h.allow("[2001:db8::1]:443")
	if out := h.sh("exec 3<>/dev/tcp/2001:db8::1/443 && echo usual"); out != "usual\n" {
		t.Errorf("%q", out)
	}
	h.allow("[2001:db8::1]:1001")
	for port := 1002; len(gateway.Rules(h.policy.AllowHosts).Ports()) < shim.MaxPorts; port++ {
		h.allow("allowed.example:" + strconv.Itoa(port))
	}
	const last = 1000 + shim.MaxPorts - len(gateway.DefaultPorts)
	if out := h.sh("exec 3<>/dev/tcp/allowed.example/" + strconv.Itoa(last) + " 4<>/dev/tcp/2001:db8::1/1001 && echo both"); out != "both\n" {
		t.Errorf("%q", out)
	}
	h.allow("allowed.example:" + strconv.Itoa(last+1))
	_, err := h.start(t.Context(), nil, "true")
	if fault.CodeOf(err) != fault.SandboxUnavailable || !strings.Contains(err.Error(), "121 ports") {
		t.Errorf("with one more: %v", err)
	}
}

// A server inside that listens at all addresses is reached by those that are the sandbox's own, from any of them, and by no other.
func TestServerAtAllAddressesInside(t *testing.T) {
	if testTier() == Landlock {
		t.Skip("a server has one address there: TestConfinedServers")
	}
	h := newHost(t)
	h.allow("allowed.example")
	r := h.run("python3", "-c", `
import socket
sockets = []
def attempt(to, port, source=""):
    s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
    s.settimeout(5)
    sockets.append(s)
    try:
        if source:
            s.bind((source, 0))
        s.connect((to, port))
        return "reached"
    except OSError as e:
        return e.strerror or str(e)
servers = [socket.create_server(("0.0.0.0", 3000)), socket.create_server(("::", 3000), family=socket.AF_INET6)]
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) # how programs find out their own address
u.connect(("192.0.2.7", 80))
own = u.getsockname()[0]
name = socket.gethostbyname("allowed.example")
for to, source in ("127.0.0.1", ""), ("127.1.2.3", ""), (own, ""), ("127.0.0.1", own), (own, "127.0.0.1"), ("::1", ""), ("::1", "::1"), ("192.0.2.7", ""), ("192.0.2.7", own), ("192.0.2.7", "127.0.0.1"), (name, ""), ("2001:db8::1", ""):
    print(to.replace(own, "own").replace(name, "name"), source.replace(own, "own"), attempt(to, 3000, source))
for to in "127.0.0.1", own, "::1":
    print(attempt(to, 3001))`)
	const want = `127.0.0.1  reached
127.1.2.3  reached
own  reached
127.0.0.1 own reached
own 127.0.0.1 reached
::1  reached
::1 ::1 reached
192.0.2.7  Connection refused
192.0.2.7 own Connection refused
192.0.2.7 127.0.0.1 Connection refused
name  Connection refused
2001:db8::1  Connection refused
Connection refused
Connection refused
Connection refused
`
	if r.out != want {
		t.Errorf("got\n%swant\n%s", r.out, want)
	}
	told := map[string]Denial{}
	for _, d := range r.denials {
		told[d.Target] = d
	}
	for target, count := range map[string]int{"192.0.2.7:3000": 3, "allowed.example:3000": 1, "[2001:db8::1]:3000": 1} {
		if want := (Denial{Kind: "network", Target: target, Program: "python3", Count: count}); told[target] != want {
			t.Errorf("told was %+v, want %+v", told[target], want)
		}
	}
}

func TestSocketFamilies(t *testing.T) {
	h := newHost(t)
	try := func(args string) string { return python(`import socket; socket.socket(` + args + `); print("GOT")`) }
	h.refuse([]attack{
		{"packet", `root ` + try("socket.AF_PACKET, socket.SOCK_RAW"), true},
		{"raw", `root ` + try("socket.AF_INET, socket.SOCK_RAW, 1"), true},
		{"vsock", try("40, 1"), socketOpens(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
		{"netlink audit", try("16, 3, 9"), socketOpens(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)},
		{"netlink events", try("16, 3, 15"), true},
		{"alg", try("38, 5"), socketOpens(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
		{"bluetooth", try("31, 3, 1"), socketOpens(unix.AF_BLUETOOTH, unix.SOCK_RAW, 1)},
		{"MPTCP", try("socket.AF_INET, socket.SOCK_STREAM, 262"), socketOpens(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
		{"MPTCP over IPv6", try("socket.AF_INET6, socket.SOCK_STREAM, 262"), socketOpens(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
		{"ping", try("socket.AF_INET, socket.SOCK_DGRAM, 1"), socketOpens(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)},
		{"SCTP", try("socket.AF_INET, socket.SOCK_STREAM, 132"), socketOpens(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)},
	})
	// Whether or not this kernel has them, it is not asked: it would load modules.
	for name, args := range map[string]string{"SCTP": "2, 1, 132", "SMC": "2, 1, 256", "L2TP": "2, 2, 115", "ping": "2, 2, 1", "UDP-Lite": "2, 2, 136", "UDP-Lite over IPv6": "10, 2, 136", "packets": "2, 5"} {
		if out := h.sh(python(`import errno, socket
try: socket.socket(` + args + `); print("GOT")
except OSError as e: print(errno.errorcode[e.errno])`)); out != "EAFNOSUPPORT\n" {
			t.Errorf("%s: %s", name, out)
		}
	}
	if out := h.sh(try("socket.AF_INET6") + "; " + try("socket.AF_UNIX") + "; " + try("16, 3, 0")); out != "GOT\nGOT\nGOT\n" {
		t.Errorf("sockets that programs need: %q", out)
	}
}

// socketOpens tells whether this kernel has such sockets and its user may have one.
func socketOpens(domain, kind, protocol int) bool {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// hostSocket is a program of the host that takes every connection to a unix socket.
func hostSocket(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

func TestHostSockets(t *testing.T) {
	h := newHost(t)
	hostSocket(t, "@sesame-test-abstract")
	h.refuse([]attack{
		{"abstract socket", `python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect("\0sesame-test-abstract"); print("GOT")'`, true},
	})
}

func TestManyConnections(t *testing.T) {
	h := newHost(t)
	s, hits := hostServer(t)
	h.allow("127.0.0.1:" + port(t, s))
	out := h.sh(`
for i in $(seq 200); do echo "url = http://127.0.0.1:` + port(t, s) + `/"; done > urls
curl -s -Z --parallel-max 200 -K urls 2>/dev/null | tr -d '\n' | sed 's/SERVED/x/g' | wc -c`)
	if strings.TrimSpace(out) != "200" || hits() != 200 {
		t.Errorf("%s answers, %d hits", out, hits())
	}
}

// A read-only directory's sockets can be talked to; so can those in the workspace.
func TestHostSocketsInFiles(t *testing.T) {
	h := newHost(t)
	var attacks []attack
	for _, dir := range []string{filepath.Dir(h.policy.Home), h.policy.Home, h.policy.Workspace} {
		path := filepath.Join(dir, "s.sock")
		hostSocket(t, path)
		attacks = append(attacks, attack{path, `python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print("GOT")' '` + path + `'`, true})
	}
	h.refuse(attacks)
}

// Resolvers that look what the machine can reach first must find that it can reach IPv4.
func TestResolversThatLookFirst(t *testing.T) {
	h := newHost(t)
	h.allow("allowed.example")
	if out := h.sh(`getent ahostsv4 allowed.example; python3 -c 'import socket; print(socket.getaddrinfo("allowed.example", 443, socket.AF_INET, 0, 0, socket.AI_ADDRCONFIG)[0][4][0])'`); !strings.Contains(out, "198.18.0.1 ") || !strings.HasSuffix(out, "\n198.18.0.1\n") {
		t.Errorf("answers %q", out)
	}
}

// A socket in a directory of another user's cannot be covered, and need not be; root's sandboxes must start all the same.
func TestSocketInSomebodyElsesDirectory(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(filepath.Dir(h.policy.Home), "other")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s.sock")
	hostSocket(t, path)
	if os.Getuid() == 0 { // to anybody else it is a socket like the others
		if err := os.Chown(dir, 31400, 31400); err != nil {
			t.Fatal(err)
		}
	}
	if r := h.run("python3", "-c", `import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])`, path); r.code == 0 {
		t.Error("connected")
	}
}

// A socket that goes while the sandbox is made needs no cover: nothing is put in its place, and what is read-only keeps nobody from starting.
func TestSocketsThatGo(t *testing.T) {
	h := newHost(t)
	shown := filepath.Join(filepath.Dir(h.policy.Home), "shown")
	if err := os.Mkdir(shown, 0o755); err != nil {
		t.Fatal(err)
	}
	h.policy.AllowRead = []string{shown}
	paths := []string{filepath.Join(shown, "s.sock"), filepath.Join(h.policy.Workspace, "s.sock")}
	ctx, cancel := context.WithCancel(t.Context())
	var coming sync.WaitGroup
	for _, path := range paths {
		coming.Go(func() {
			for ctx.Err() == nil {
				l, err := net.Listen("unix", path)
				if err != nil {
					t.Errorf("a file in the socket's place? %v", err)
					return
				}
				time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
				l.Close() // removes it, too
			}
		})
	}
	for range 40 {
		h.sh("true")
	}
	cancel()
	coming.Wait()
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

// What is not promised: mounts cover the sockets that are there when the sandbox begins.
func TestSocketThatComesLater(t *testing.T) {
	for profile, want := range map[Profile]bool{Standard: testTier() == Namespaces, Strict: false} {
		h := newHost(t)
		h.policy.Profile = profile
		out := &lockedBuffer{}
		p, err := h.start(t.Context(), out, "/bin/bash", "-c", `echo ready; until [ -e s.sock ]; do sleep 0.02; done; `+
			`/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("s.sock"); print("GOT")'; exit 0`)
		if err != nil {
			t.Fatal(err)
		}
		out.waitFor(t, "ready")
		hostSocket(t, filepath.Join(h.policy.Workspace, "s.sock"))
		if st, err := p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		if got := strings.Contains(out.String(), "GOT"); got != want {
			t.Errorf("%s: connected %v, want %v: %s", profile, got, want, out)
		}
	}
}
