package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// host is a made-up user's machine: a home with secrets and a workspace in it.
type host struct {
	t       *testing.T
	policy  Policy
	env     []string
	outside []string      // the environment of attacks without a sandbox, if it is another one
	limit   time.Duration // how long a command may take: a minute if that is 0
}

// tierVariable names the tier that the tests are run in, when it is not namespaces.
const tierVariable = "SESAME_TEST_TIER"

func testTier() Tier {
	if tier := os.Getenv(tierVariable); tier != "" {
		return Tier(tier)
	}
	return Namespaces
}

func newHost(t *testing.T) *host {
	t.Helper()
	// Not below /tmp, which the sandbox has of its own: what is hidden must be hidden for a better reason.
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp(cache, "sesame test ") // with a space: paths have them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, base) })
	base, err = filepath.EvalSymlinks(base)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(base, "home")
	h := &host{t: t, policy: hostPolicy(home)}
	h.write("src/project/README", "hello")
	h.env = Environment(os.Environ(), home, nil)
	return h
}

// hostPolicy is the policy for a project in a home.
func hostPolicy(home string) Policy {
	state := filepath.Join(home, ".local", "state", "sesame")
	return Policy{
		Tier:       testTier(),
		Home:       home,
		Workspace:  filepath.Join(home, "src", "project"),
		HomeState:  filepath.Join(state, "homes", "1"),
		GuardState: filepath.Join(state, "guards"),
		Private:    []string{state},
	}
}

// removeAll also removes what overlayfs leaves in its work directory without permissions.
func removeAll(t *testing.T, dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// write makes a file in the host's home.
func (h *host) write(rel, text string) string {
	h.t.Helper()
	path := filepath.Join(h.policy.Home, rel)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *host) read(rel string) string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.policy.Home, rel))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

func (h *host) allow(rules ...string) {
	h.t.Helper()
	for _, s := range rules {
		r, err := gateway.ParseRule(s)
		if err != nil {
			h.t.Fatal(err)
		}
		h.policy.AllowHosts = append(h.policy.AllowHosts, r)
	}
}

type result struct {
	out     string
	code    int
	denials []Denial
}

// start starts a command; its output goes to out.
func (h *host) start(ctx context.Context, out io.Writer, args ...string) (*Process, error) {
	return Start(ctx, &h.policy, &Command{Args: args, Env: h.env, Stdout: out, Stderr: out})
}

// run runs a command to its end.
func (h *host) run(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), cmp.Or(h.limit, time.Minute))
	defer cancel()
	var out bytes.Buffer
	p, err := h.start(ctx, &out, args...)
	if err != nil {
		h.t.Fatalf("start %q: %v", args, err)
	}
	st, err := p.Wait()
	if err != nil {
		h.t.Fatalf("wait for %q: %v", args, err)
	}
	return result{out.String(), st.Code, p.Denials()}
}

// sh runs a script and returns what it says, which must succeed.
func (h *host) sh(script string) string {
	h.t.Helper()
	r := h.run("/bin/bash", "-c", script)
	if r.code != 0 {
		h.t.Fatalf("%s\nexit %d: %s", script, r.code, r.out)
	}
	return r.out
}

// attack is a script that says GOT when it got what the sandbox promises to keep.
type attack struct {
	name, script string
	// unaided attacks are also run without any sandbox, where they must succeed: an attack
	// that fails anyway shows nothing. Where it is not set, a comment says why.
	unaided bool
}

// asRoot gives scripts the word "root": it runs a program with all rights in namespaces of its own, as anybody may outside.
const asRoot = `root() {
	if unshare -Urmn true 2>/dev/null; then unshare -Urmn "$@"
	elif unshare -mn true 2>/dev/null; then unshare -mn "$@"
	else "$@"; fi
}
`

// capable tells whether this process may do what a capability is for. What takes one is no attack of who has none.
func capable(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if unix.Capget(&header, &have[0]) != nil {
		return false
	}
	return have[capability/32].Effective&(1<<(capability%32)) != 0
}

// opens tells whether this machine lets its user open a file, or has it at all.
func opens(path string) bool {
	f, err := os.Open(path)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// python is a program for a shell. It may use both kinds of quotes.
func python(code string) string { return "python3 -c '" + strings.ReplaceAll(code, "'", `"`) + "'" }

func (h *host) refuse(attacks []attack) {
	for _, a := range attacks {
		if !holds(h.t, weakAttacks[a.name]) {
			continue
		}
		h.t.Run(a.name, func(t *testing.T) {
			h := &host{t: t, policy: h.policy, env: h.env, outside: h.outside}
			if r := h.run("/bin/bash", "-c", asRoot+a.script); strings.Contains(r.out, "GOT") {
				t.Errorf("the attack succeeds inside: %s\n%s", a.script, r.out)
			}
			if !a.unaided || os.Getenv(worldVariable) != "" { // such a world refuses some by itself
				return
			}
			h.policy.Tier = Off
			if h.outside != nil {
				h.env = h.outside
			}
			if r := h.run("/bin/bash", "-c", asRoot+a.script); !strings.Contains(r.out, "GOT") {
				t.Errorf("the attack fails outside, too: %s\n%s", a.script, r.out)
			}
		})
	}
}

// again runs a test a second time, in new namespaces and with a variable set, and tells whether this is that time.
func again(t *testing.T, variable string, namespaces uintptr, env ...string) bool {
	t.Helper()
	if os.Getenv(variable) != "" {
		return true
	}
	if os.Getenv(worldVariable) != "" {
		return false // no namespaces can be made there
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(append(os.Environ(), variable+"=1"), env...)
	cmd.SysProcAttr = userNamespace(namespaces)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, failuresOf(string(out)))
	}
	return false
}

// ordinaryUser is this package's tests, to be run by a user without privileges in a home of his own.
func ordinaryUser(t *testing.T, uid uint32) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("/var/cache", "sesame-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, dir) })
	if err := os.Chown(dir, int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	// go test keeps its binary where only the one who built it can go.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "sandbox.test")
	// By another process: what this one writes a sandbox's first process may have open still, and what is open for writing cannot be executed.
	if out, err := exec.CommandContext(t.Context(), "cp", self, exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(exe, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// TestAsOrdinaryUser runs this package's tests again as a user without privileges.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		return // all the others ran as one
	}
	t.Parallel()
	// They want a cache of root's, the same again, and the sources.
	const without = "^(TestAsOrdinaryUser|TestLanguageServer|TestLargeTransferTakesNoMemory|TestPromisesHaveTests)$"
	cmd := ordinaryUser(t, 31337)
	cmd.Args = append(cmd.Args, "-test.v", "-test.skip", without)
	cmd.Env = append(os.Environ(), cmd.Env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, failuresOf(string(out)))
	}
	if !strings.Contains(string(out), "--- PASS: TestSecretsAreAbsent") {
		t.Errorf("the tests did not run:\n%s", out)
	}
}
