package sandbox

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// storm is a program that leaves hundreds of orphans in sessions of their own, and some that become others all the time,
// so that no list of processes has them. To be good to a machine without a sandbox they end by themselves.
const storm = `
import os, signal, sys, time
mark, until = sys.argv[1], time.time() + 4
def orphan(life):
    if os.fork(): return
    os.setsid()
    if os.fork(): os._exit(0)
    for fd in range(3): os.dup2(os.open("/dev/null", os.O_RDWR), fd) # or who reads the output waits for all
    for s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)
    life()
    os._exit(0)
def sleep(): os.execvp("sleep", ["sleep", mark])
def hop():
    while time.time() < until:
        if os.fork(): os._exit(0)
        os.setsid()
for i in range(200): orphan(sleep)
for i in range(5): orphan(hop)
time.sleep(0.5)
`

func TestOrphanStorm(t *testing.T) {
	for _, tier := range []Tier{testTier(), Off} {
		h := newHost(t)
		h.policy.Tier = tier
		mark := uniqueSleep()
		r := h.run("python3", "-c", storm, mark)
		if r.code != 0 {
			t.Fatalf("%s: %d, %s", tier, r.code, r.out)
		}
		left := running(t, mark)
		if tier != Off {
			// It has ended, so all have: no time is given.
			if waitGone(t, mark); len(left) > 0 {
				t.Errorf("%s: %d were there after the end", tier, len(left))
			}
			continue
		}
		if len(left) < 200 {
			t.Errorf("outside, too, only %d are left", len(left))
		}
		for end := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(end); left = running(t, mark) {
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// aloneVariable says that a test runs where it sees its own processes and files only.
const aloneVariable = "SESAME_TEST_ALONE"

// traces are what sandboxes could leave: mounts, processes, namespaces, temporary files.
func traces(t *testing.T) []string {
	t.Helper()
	var all []string
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		all = append(all, "mount "+strings.TrimSpace(line))
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range processes {
		all = append(all, "process "+dir)
		names, _ := filepath.Glob(dir + "/ns/*") // those of a process that has ended cannot be read
		for _, name := range names {
			if to, err := os.Readlink(name); err == nil {
				all = append(all, "namespace "+to)
			}
		}
	}
	for _, dir := range []string{os.TempDir(), "/tmp", "/dev/shm", os.Getenv("XDG_CACHE_HOME")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, "file "+filepath.Join(dir, e.Name()))
		}
	}
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil && !strings.HasPrefix(to, "/") {
			kind, _, _ := strings.Cut(to, ":")
			all = append(all, "descriptor of "+kind)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Fifty at once, and nothing is left of any.
func TestSideBySide(t *testing.T) {
	cache := t.TempDir()
	t.Cleanup(func() { removeAll(t, cache) })
	if !again(t, aloneVariable, unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWPID, "XDG_CACHE_HOME="+cache) {
		return
	}
	for dir, kind := range map[string]string{"/proc": "proc", "/tmp": "tmpfs", "/dev/shm": "tmpfs"} {
		if err := unix.Mount("none", dir, kind, 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", "/tmp")
	// The first one has Go's own threads, pollers and so on made.
	t.Run("first", func(t *testing.T) { newHost(t).sh("true") })
	before := traces(t)
	seen := map[string]bool{}
	t.Run("fifty", func(t *testing.T) {
		type one struct {
			p    *Process
			said *bufio.Reader
			goOn io.Closer
		}
		var all []one
		for i := range 50 {
			h := newHost(t)
			in, goOn := io.Pipe()
			said, out := io.Pipe()
			h.policy.HomeState = filepath.Join(h.policy.Home, "state") // in which something is left, as it should be
			h.policy.Private = nil
			p, err := Start(t.Context(), &h.policy, &Command{
				Args: []string{"/bin/bash", "-c", `(setsid sleep 500 &); touch x ~/x ${TMPDIR:-/tmp}/x; readlink /proc/self/ns/pid /proc/self/ns/mnt | tr '\n' ' '; echo; read; exit 7`},
				Env:  h.env, Stdin: in, Stdout: out, Stderr: out,
			})
			if err != nil {
				t.Fatalf("sandbox %d: %v", i, err)
			}
			all = append(all, one{p: p, said: bufio.NewReader(said), goOn: goOn})
		}
		for i := range all {
			line, err := all[i].said.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			seen[line] = true
		}
		for _, o := range all {
			o.goOn.Close()
			go func() { _, _ = io.Copy(io.Discard, o.said) }()
		}
		for i, o := range all {
			if st, err := o.p.Wait(); err != nil || st.Code != 7 {
				t.Errorf("sandbox %d: %+v, %v", i, st, err)
			}
		}
	})
	if testTier() == Namespaces && len(seen) != 50 {
		t.Errorf("fifty sandboxes had %d different namespaces", len(seen))
	}
	var left []string
	for range 100 { // what ended is gone a moment later
		left = nil
		for _, trace := range traces(t) {
			if !slices.Contains(before, trace) {
				left = append(left, trace)
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
}
