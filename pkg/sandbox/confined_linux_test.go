package sandbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newConfined is a host whose sandbox shares its network, processes and files.
func newConfined(t *testing.T) *host {
	h := newHost(t)
	h.policy.Tier = Landlock
	return h
}

// What Landlock does not look at: owners, modes, times and attributes of files that are not the sandbox's.
func TestConfinedMetadata(t *testing.T) {
	h := newConfined(t)
	outside := filepath.Join(filepath.Dir(h.policy.Home), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	then := time.Unix(1e9, 0)
	if err := os.Chtimes(outside, then, then); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(h.policy.Workspace, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	f := "'" + outside + "'"
	h.refuse([]attack{
		{"chmod", `chmod 666 ` + f + ` && echo GOT; chmod 600 ` + f, true},
		{"chmod by a link", `chmod 666 link && echo GOT; chmod 600 ` + f, true},
		{"chmod by a path with dots", `chmod 666 "$PWD/../../../outside" && echo GOT; chmod 600 ` + f, true},
		{"chmod relative to a descriptor", `python3 -c 'import os, sys; d = os.open("/", os.O_PATH); os.chmod(sys.argv[1][1:], 0o666, dir_fd=d); print("GOT")' ` + f + `; chmod 600 ` + f, true},
		{"chmod by a descriptor", `python3 -c 'import os, sys; os.chmod("/proc/self/fd/%d" % os.open(sys.argv[1], os.O_PATH), 0o666); print("GOT")' ` + f + `; chmod 600 ` + f, true},
		{"fchmod of what may be read", `python3 -c 'import os; os.fchmod(os.open("/etc/passwd", os.O_RDONLY), 0o644); print("GOT")'`, os.Getuid() == 0},
		{"chown", `chown $(id -u) ` + f + ` && echo GOT`, true},
		{"touch", `touch -d 2020-01-01 ` + f + ` && echo GOT`, true},
		{"attributes", `python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.x", b"1"); print("GOT")' ` + f, unix.Setxattr(outside, "user.test", []byte("1"), 0) == nil},
		{"truncate", `python3 -c 'import os, sys; os.truncate(sys.argv[1], 0); print("GOT")' ` + f, true},
		{"cut by opening", `python3 -c 'import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_TRUNC); print("GOT")' ` + f, true},
		{"hard link into the workspace", `ln ` + f + ` hard && echo GOT; rm -f hard`, true},
		{"rename away", `mv ` + f + ` moved && echo GOT; mv moved ` + f, true},
	})
	out := h.sh(`
touch -d 2001-02-03 x; stat -c %y x | cut -c1-10; chmod 741 x; stat -c %a x; chown $(id -u):$(id -g) x
ln -s x l; touch -h -d 2002-03-04 l; stat -c %y l | cut -c1-10; chmod 640 l; stat -c %a x
python3 -c 'import os; f = os.open("y", os.O_CREAT | os.O_RDWR); os.fchmod(f, 0o604); os.utime(f, (1, 2)); os.utime("y"); print(oct(os.stat(f).st_mode & 0o777))'
mkdir d; tar cf t.tar x l; tar xpf t.tar -C d; stat -c %a d/x; cp -a d e; install -m 600 x z; stat -c %a z`)
	if want := "2001-02-03\n741\n2002-03-04\n640\n0o604\n640\n600\n"; out != want {
		t.Errorf("in the workspace: %q, want %q", out, want)
	}
}

// Everything that could connect, or wait for connections, past the supervisor.
func TestConfinedNetwork(t *testing.T) {
	h := newConfined(t)
	s, hits := hostServer(t)
	to := port(t, s)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_, uport, err := net.SplitHostPort(udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo([]byte("HEARD"), from)
		}
	}()
	py := python
	const answered = `; s.settimeout(1); print("GOT" if s.recv(9) == b"HEARD" else "no")`
	h.refuse([]attack{
		{"fast open", py(`import socket as k; s = k.socket(); s.sendto(b"GET / HTTP/1.0\r\n\r\n", 0x20000000, ("127.0.0.1", ` + to + `)); print("GOT" if b"SERVED" in s.recv(999) else "no")`), true},
		{"fast open by message", py(`import socket as k; s = k.socket(); s.sendmsg([b"GET / HTTP/1.0\r\n\r\n"], [], 0x20000000, ("127.0.0.1", ` + to + `)); print("GOT" if b"SERVED" in s.recv(999) else "no")`), true},
		{"fast open by option", py(`import socket as k; s = k.socket(); s.setsockopt(6, 30, 1); s.connect(("127.0.0.1", ` + to + `)); s.send(b"GET / HTTP/1.0\r\n\r\n"); print("GOT" if b"SERVED" in s.recv(999) else "no")`), true},
		{"connected twice", py(`import socket as k; s = k.socket(); s.bind(("127.0.0.1", 0)); s.connect(("127.0.0.1", ` + to + `)); print("GOT")`), true},
		{"datagram without connecting", py(`import socket as k; s = k.socket(k.AF_INET, k.SOCK_DGRAM); s.sendto(b"out", ("127.0.0.1", ` + uport + `))` + answered), true},
		{"datagram by message", py(`import socket as k; s = k.socket(k.AF_INET, k.SOCK_DGRAM); s.sendmsg([b"out"], [], 0, ("127.0.0.1", ` + uport + `))` + answered), true},
		{"datagram, connected", py(`import socket as k; s = k.socket(k.AF_INET, k.SOCK_DGRAM); s.connect(("127.0.0.1", ` + uport + `)); s.send(b"out")` + answered), true},
		{"listen on all addresses", py(`import socket as k, os; s = k.socket(); s.bind(("0.0.0.0", 0)); s.listen(); print("GOT" if not s.getsockname()[0].startswith("127.") else "no")`), true},
		{"listen without an address", py(`import socket as k; s = k.socket(); s.listen(); print("GOT")`), true},
		{"take a port of the host's loopback", py(`import socket as k; s = k.socket(); s.bind(("127.0.0.1", 0)); print("GOT" if s.getsockname()[0] == "127.0.0.1" else "no")`), true},
		{"unix datagrams", py(`import socket as k; k.socket(k.AF_UNIX, k.SOCK_DGRAM); print("GOT")`), true},
		{"a pair of unix datagrams", py(`import socket as k; k.socketpair(k.AF_UNIX, k.SOCK_DGRAM); print("GOT")`), true},
		{"a pair of raw unix sockets, which are datagrams", py(`import socket as k; k.socketpair(k.AF_UNIX, k.SOCK_RAW); print("GOT")`), true},
		{"SCTP", py(`import socket as k; k.socket(k.AF_INET, k.SOCK_STREAM, 132); print("GOT")`), socketOpens(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)},
		{"ping", py(`import socket as k; k.socket(k.AF_INET, k.SOCK_DGRAM, 1); print("GOT")`), socketOpens(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)},
	})
	outside := hits()
	if outside == 0 && os.Getenv(worldVariable) == "" {
		t.Error("the attacks fail outside, too")
	}
	// What raced to change its address while it was looked at got nowhere.
	race := h.run("python3", "-c", racing, to)
	if hits() != outside || !strings.Contains(race.out, "tried") {
		t.Errorf("an address that changes under the supervisor's eyes gets through: %s", race.out)
	}
}

// racing connects to an allowed-looking address that another thread turns into the host's again and again.
const racing = `
import ctypes, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
good = struct.pack("=HH4s8x", 2, socket.htons(1), bytes([127, 0, 0, 1]))
bad = struct.pack("=HH4s8x", 2, socket.htons(int(sys.argv[1])), bytes([127, 0, 0, 1]))
netlink = struct.pack("=HHII4x", 16, 0, 0, 0)
buf = ctypes.create_string_buffer(16)
stop = False
def flip():
    while not stop:
        for b in (good, bad, netlink):
            ctypes.memmove(buf, b, 16)
threading.Thread(target=flip, daemon=True).start()
end = time.time() + 2
while time.time() < end:
    s = socket.socket()
    if libc.connect(s.fileno(), buf, 16) == 0:
        try:
            s.send(b"GET / HTTP/1.0\r\n\r\n")
        except OSError:
            pass # the gateway refuses by a reset, which may come before
    s.close()
    s = socket.socket()
    if libc.bind(s.fileno(), buf, 16) == 0 and libc.listen(s.fileno(), 1) == 0 and not s.getsockname()[0].startswith("127."):
        print("LISTENING", s.getsockname())
    s.close()
stop = True
print("tried")
`

// Servers inside, of all kinds that programs are.
func TestConfinedServers(t *testing.T) {
	h := newConfined(t)
	out := h.sh(`
python3 - <<'X'
import multiprocessing as m, socket as k, threading, os
from multiprocessing.connection import Listener, Client
def echo(l):
    c, _ = l.accept(); c.sendall(c.recv(9)); c.close()
def ask(l, family, to):
    threading.Thread(target=echo, args=(l,)).start()
    c = k.socket(family, k.SOCK_STREAM); c.connect(to); c.send(b"hi"); print(c.recv(9).decode(), end=" ")
for family, host, to in ((k.AF_INET, "127.0.0.1", "127.0.0.1"), (k.AF_INET, "0.0.0.0", "127.0.0.1"), (k.AF_INET6, "::1", "::1"), (k.AF_INET6, "::", "::1"), (k.AF_INET, "localhost", "localhost")):
    l = k.socket(family); l.bind((host, 0)); l.listen(); ask(l, family, (to, l.getsockname()[1]))
l = k.socket(); l.bind(("", 0)); l.listen(); ask(l, k.AF_INET, l.getsockname())
for name in ("./s", os.path.abspath("t"), os.environ["TMPDIR"] + "/u", "\0abstract"):
    l = k.socket(k.AF_UNIX); l.bind(name); l.listen(); ask(l, k.AF_UNIX, name)
a, b = k.socketpair(); a.send(b"pair"); print(b.recv(9).decode(), end=" ")
print(m.Manager().list([1, 2]), m.Pool(2).map(abs, [-1]), end=" ")
s = k.socket(); s.settimeout(5)
try: s.connect(("127.0.0.1", 9))
except ConnectionRefusedError: print("refused")
X
ls -l s | cut -c1-10
node -e '
const http = require("http");
const s = http.createServer((q, r) => r.end("node " + q.url)).listen(0, () => fetch("http://localhost:" + s.address().port + "/x").then(r => r.text()).then(t => { console.log(t); s.close() }))'
`)
	if want := "hi hi hi hi hi hi hi hi hi hi pair [1, 2] [1] refused\nsrwx"; !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "\nnode /x\n") {
		t.Errorf("servers inside: %q", out)
	}
}

// A socket of the host's does not become one of the sandbox's by being where that listens.
func TestConfinedUnixSockets(t *testing.T) {
	h := newConfined(t)
	path := filepath.Join(h.policy.Workspace, "host.sock")
	hostSocket(t, path)
	h.refuse([]attack{
		{"under the name of one of ours", `python3 -c 'import os, socket as k
l = k.socket(k.AF_UNIX); l.bind("ours"); l.listen(); os.rename("host.sock", "ours")
c = k.socket(k.AF_UNIX); c.connect("ours"); print("GOT")'; mv ours host.sock`, true},
		{"by a link", `ln -s host.sock l; python3 -c 'import socket as k; k.socket(k.AF_UNIX).connect("l"); print("GOT")'; rm l`, true},
		// A race against the supervisor, who is not there outside.
		{"while it is made", `timeout 3 python3 -c 'import os, socket as k, threading
def swap():
    while True:
        try: os.link("host.sock", "n"); os.rename("n", "made")
        except OSError: pass
threading.Thread(target=swap, daemon=True).start()
for i in range(3000):
    try:
        l = k.socket(k.AF_UNIX); l.bind("made"); l.listen()
        c = k.socket(k.AF_UNIX); c.connect("made"); c.settimeout(0.2)
        if c.recv(1) == b"": print("GOT"); break
    except OSError: pass
    try: os.unlink("made")
    except OSError: pass'; rm -f made`, false},
	})
}

// The user's other processes.
func TestConfinedProcesses(t *testing.T) {
	h := newConfined(t)
	victim := exec.CommandContext(t.Context(), "sleep", "301")
	victim.Env = []string{"TOKEN=VICTIM-SECRET"}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Wait() }()
	defer func() { _ = victim.Process.Kill() }()
	pid := fmt.Sprint(victim.Process.Pid)
	h.refuse([]attack{
		{"signal", `kill -0 ` + pid + ` && echo GOT`, true},
		{"signal by descriptor", `python3 -c 'import os, signal; signal.pidfd_send_signal(os.pidfd_open(` + pid + `), 0); print("GOT")'`, true},
		{"signal to the keeper", `kill -0 $PPID && echo GOT`, true},
		{"environment", `grep -az VICTIM /proc/` + pid + `/environ && echo GOT`, true},
		{"memory", `head -c 1 /proc/` + pid + `/maps | grep . && echo GOT`, true},
		{"files", `ls /proc/` + pid + `/fd/ /proc/` + pid + `/root/ /proc/` + pid + `/cwd/ && echo GOT`, true},
		{"limits", `python3 -c 'import resource; print("GOT" if resource.prlimit(` + pid + `, resource.RLIMIT_CPU) else "no")'`, true},
		{"shared memory", `python3 -c 'import ctypes; print("GOT" if ctypes.CDLL(None).shmget(0x5e5a3e, 4096, 0o1600) >= 0 else "no")'; ipcrm -M 0x5e5a3e`, true},
		{"message queue", `python3 -c 'import ctypes, os; l = ctypes.CDLL("librt.so.1"); q = b"/sesame-%d" % os.getpid(); print("GOT" if l.mq_open(q, 0o102, 0o600, None) >= 0 else "no"); l.mq_unlink(q)'`, true},
	})
	if victim.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("the host's process is gone")
	}
}

// Without variables of ours, with resolvers of their own.
func TestConfinedResolvers(t *testing.T) {
	h := newConfined(t)
	h.allow("allowed.example")
	h.write("src/project/resolve.go", `package main

import ("fmt"; "net")

func main() { fmt.Println(net.LookupHost("allowed.example")); _, err := net.LookupHost("other.example"); fmt.Println(err != nil) }
`)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "resolve", "resolve.go")
	build.Dir = h.policy.Workspace
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GO111MODULE=off")
	if out, err := build.CombinedOutput(); err != nil && os.Getuid() == 0 {
		t.Fatalf("%v\n%s", err, out)
	} else if err == nil {
		if got := h.sh(`./resolve; env -i ./resolve`); got != strings.Repeat("[198.18.0.1] <nil>\ntrue\n", 2) {
			t.Errorf("Go's resolver: %q", got)
		}
	}
	if got := h.sh(`node -e 'require("dns").lookup("allowed.example", (e, a) => console.log(a)); require("dns").lookup("localhost", (e, a) => console.log(a))' | sort`); got != "127.0.0.1\n198.18.0.1\n" {
		t.Errorf("Node's: %q", got)
	}
	if got := h.run("/bin/bash", "-c", `env -i /usr/bin/getent ahostsv4 allowed.example`); !strings.HasPrefix(got.out, "198.18.0.1 ") {
		t.Errorf("the C library's, without variables: %q", got.out)
	}
}
