package sandbox

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

func TestDenialsNameTheProgram(t *testing.T) {
	h := newHost(t)
	h.allow("allowed.example")
	r := h.run("python3", "-c", question+`
import ctypes
ctypes.CDLL(None).prctl(15, b"\x1b[2J;x\n(allow it")
ask("by-disguise.example", 1)`)
	if r.code != 0 {
		t.Fatal(r.out)
	}
	r.denials = append(r.denials, h.run("/bin/bash", "-c", `
curl -sS http://by-name.example/; curl -sS http://by-name.example/
curl -sS https://192.0.2.7/
curl -sSk https://other.example/ --connect-to other.example:443:allowed.example:443
python3 -c '`+question+`
ask("by-question.example", 1)'
cat < /dev/tcp/by-shell.example/80
true`).denials...)
	programs := map[string]string{}
	for _, d := range r.denials {
		if _, twice := programs[d.Target]; twice {
			t.Errorf("%s is told twice: %+v", d.Target, r.denials)
		}
		programs[d.Target] = d.Program
	}
	for target, want := range map[string]string{
		"by-name.example": "curl", "192.0.2.7:443": "curl", "allowed.example:443": "curl", "by-question.example": "python3",
		"by-shell.example": "bash", "by-disguise.example": "??2J?x??allow",
	} {
		if got := programs[target]; got != want {
			t.Errorf("%s: asked for by %q, want %q", target, got, want)
		}
	}
	for _, d := range r.denials {
		if d.Target == "by-name.example" && d.Count != 2 {
			t.Errorf("by-name.example %d times", d.Count)
		}
	}
}

// What is refused fails at once, or a tool would be cut off before it can say so. A resolver asks again after 5 seconds
// (resolv.conf(5), timeout), and a connection that is not answered is tried for minutes: 2 seconds are neither.
func TestRefusalsComeAtOnce(t *testing.T) {
	h := newHost(t)
	h.allow("allowed.example")
	out := h.sh(`python3 - <<'END'
import json, socket, ssl, time
def name(host): return lambda: socket.getaddrinfo(host, 443)
def connect(host, port):
    def f():
        s = socket.create_connection((host, port), 60)
        s.sendall(b"GET / HTTP/1.0\r\n\r\n") # a captured connection is refused when it is there
        if not s.recv(1): raise OSError("ended")
    return f
def tls():
    c = ssl.create_default_context()
    c.wrap_socket(socket.create_connection(("allowed.example", 443), 60), server_hostname="other.example")
took = {}
for what, f in {"name": name("refused.example"), "name below an allowed one": name("x.allowed.example"), "address": connect("192.0.2.7", 443),
        "address on another port": connect("192.0.2.7", 8080), "IPv6 address": connect("2001:db8::7", 443), "another port": connect("allowed.example", 8080),
        "loopback": connect("127.0.0.1", 9), "another server name": tls}.items():
    begun = time.monotonic()
    try:
        f()
        took[what] = 1e6
    except OSError as e:
        took[what] = time.monotonic() - begun
print(json.dumps(took))
END`)
	var took map[string]float64
	if err := json.Unmarshal([]byte(out), &took); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(took) != 8 {
		t.Errorf("%d attempts", len(took))
	}
	for what, seconds := range took {
		if seconds > 2 {
			t.Errorf("%s: not refused within 2 s, but %.1f", what, seconds)
		}
	}
}

// A refusal is told when it happens, while the command still runs.
func TestRefusalsAreToldAsTheyHappen(t *testing.T) {
	h := newHost(t)
	var told atomic.Pointer[Denial]
	h.policy.Denied = func(d Denial) { told.Store(&d) }
	out := &watched{told: &told}
	p, err := h.start(t.Context(), out, "/bin/bash", "-c", "curl -s http://refused.example/; echo asked")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	want := Denial{Kind: "network", Target: "refused.example", Program: "curl", Count: 1}
	if out.known == nil || *out.known != want {
		t.Errorf("when curl had ended it had been told of %+v, want %+v", out.known, want)
	}
	if ds := p.Denials(); len(ds) != 1 || ds[0] != want {
		t.Errorf("at the end %+v", ds)
	}
}

// watched is the output of a command that says "asked"; it keeps what had been told by then.
type watched struct {
	told  *atomic.Pointer[Denial]
	known *Denial
}

func (w *watched) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "asked") {
		w.known = w.told.Load()
	}
	return len(p), nil
}

// So is a connection to a port that no rule names. What programs inside try with each other is their own affair.
func TestRefusalsOnAllPortsAreTold(t *testing.T) {
	h := newHost(t)
	h.allow("allowed.example")
	r := h.run("python3", "-c", `
import socket, time
sockets = [] # stay open
def attempt(host, port):
    try: # and UDP, of a socket that is connected and one that is not
        for (family, kind, *_, address) in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[:1]:
            for sends in lambda s: s.sendto(b"x", address), lambda s: (s.connect(address), s.send(b"x")):
                s = socket.socket(family, kind)
                try:
                    sends(s)
                except OSError:
                    pass
                sockets.append(s)
    except OSError as e:
        print("udp:", e)
    try:
        socket.create_connection((host, port), 5).recv(1)
    except ConnectionError: # a captured one is refused when it is there
        pass
for a in ("192.0.2.7", 22), ("192.0.2.7", 22), ("allowed.example", 8080), ("2001:db8::1", 26), ("2001:db8::1", 443), ("127.0.0.1", 3999), ("::1", 3999), ("localhost", 3999):
    attempt(*a)
s = socket.create_server(("127.0.0.1", 4000))
c = socket.create_connection(("127.0.0.1", 4000))
s.accept()[0].close()
c.close()
attempt("192.0.2.9", 65535)
time.sleep(1) # for who looks for the program`)
	if r.code != 0 {
		t.Fatal(r.out)
	}
	var want []Denial
	for _, d := range []Denial{{Target: "192.0.2.7:22", Count: 2}, {Target: "allowed.example:8080", Count: 1}, {Target: "[2001:db8::1]:26", Count: 1}, {Target: "[2001:db8::1]:443", Count: 1}, {Target: "192.0.2.9:65535", Count: 1}} {
		d.Kind, d.Program = "network", "python3"
		want = append(want, d)
		udp := d
		udp.Reason, udp.Count = "UDP", 2*d.Count
		if testTier() == Landlock {
			udp.Count = d.Count // a packet that is sent without connecting goes nowhere
			if strings.HasPrefix(d.Target, "allowed.example") {
				continue
			}
		}
		want = append(want, udp)
	}
	byTarget := func(a, b Denial) int { return strings.Compare(a.Target+a.Reason, b.Target+b.Reason) }
	slices.SortFunc(want, byTarget)
	if slices.SortFunc(r.denials, byTarget); !slices.Equal(r.denials, want) {
		t.Errorf("told was %+v, want %+v\n%s", r.denials, want, r.out)
	}
}

// Nor is one forgotten when there are many at once and nobody waits for the answers.
func TestRefusalsOfManyAtOnceAreTold(t *testing.T) {
	h := newHost(t)
	r := h.run("python3", "-c", `
import os, socket
sockets = [socket.socket() for _ in range(200)]
for i, s in enumerate(sockets):
    s.setblocking(False)
    s.connect_ex(("192.0.2.7", 2000 + i))
os._exit(0)`)
	told := map[string]int{}
	for _, d := range r.denials {
		told[d.Target] += d.Count
	}
	for i := range 200 {
		if target := "192.0.2.7:" + strconv.Itoa(2000+i); told[target] != 1 {
			t.Errorf("%s was told %d times", target, told[target])
		}
	}
}
