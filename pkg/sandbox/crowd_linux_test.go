package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// bomb starts processes until there are no more to be had, and then has the other side of the sandbox do as much as it can.
// To be good to a machine they end by themselves.
const bomb = `
import os, socket, sys, time
port, until, forked, refused, served = int(sys.argv[1]), time.time() + 2, 0, 0, 0
def talk():
    global served
    connections = []
    for i in range(20):
        try:
            c = socket.create_connection(("127.0.0.1", port), timeout=5)
            c.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connections.append(c)
            socket.getaddrinfo("example%d.com" % i, 80)
        except OSError: pass
    for c in connections:
        try: served += b"SERVED" in c.recv(1000)
        except OSError: pass
        c.close()
while time.time() < until and forked < 3000:
    try: pid = os.fork()
    except OSError:
        refused += 1
        if refused % 20 == 1: talk()
        continue
    if pid == 0:
        time.sleep(4)
        os._exit(0)
    forked += 1
print("refused" if refused else "not refused", forked, "served" if served else "not served", flush=True)
os._exit(42)
`

// crowdedVariable says that a test runs where there are few processes to be had.
const crowdedVariable = "SESAME_TEST_CROWDED"

// A command that uses up all processes that it can have leaves those that sesame needs to tell how it ended.
func TestProcessesUsedUp(t *testing.T) {
	const few = 180
	switch os.Getenv(crowdedVariable) {
	case "":
		inCrowd(t)
		return
	case "user":
		for range 60 { // which are not the sandbox's, and are counted, too
			other := exec.CommandContext(t.Context(), "sleep", "60")
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = other.Wait() }()
			defer func() { _ = other.Process.Kill() }()
		}
		limit := uint64(tasks(t) + few)
		if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			t.Fatal(err)
		}
	case "root": // who is not held by it himself
		if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 2 * few, Max: 2 * few}); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := hostServer(t)
	for range 3 {
		h := newHost(t)
		h.allow("127.0.0.1:" + port(t, s))
		r := h.run("python3", "-c", bomb, port(t, s))
		if words := strings.Fields(r.out); r.code != 42 || len(words) != 3 || words[0] != "refused" || words[2] != "served" {
			t.Errorf("exit %d: %s", r.code, r.out)
		}
	}
}

// inCrowd runs a test again where the kernel has few processes to give: to a user.
func inCrowd(t *testing.T) {
	if os.Getenv(worldVariable) != "" {
		return // no namespaces can be made there
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(cmd *exec.Cmd, crowd string) {
		cmd.Args = append(cmd.Args, "-test.v", "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(append(os.Environ(), cmd.Env...), crowdedVariable+"="+crowd)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("as %s: %v\n%s", crowd, err, failuresOf(string(out)))
		}
	}
	if os.Getuid() != 0 {
		run(exec.CommandContext(t.Context(), exe), "user")
		return
	}
	run(ordinaryUser(t, 31338), "user")
	if testTier() == Namespaces && first.LimitsRoot() {
		run(exec.CommandContext(t.Context(), exe), "root")
	}
}

// tasks is how many threads the user's processes have.
func tasks(t *testing.T) int {
	t.Helper()
	threads, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, thread := range threads {
		if info, err := os.Stat(thread); err == nil && info.Sys().(*syscall.Stat_t).Uid == uint32(os.Getuid()) {
			n++
		}
	}
	return n
}
