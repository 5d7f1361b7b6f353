package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// machine is a made-up user's machine: a home directory with a secret and projects in
// it, and one build of Amp. Sesame runs there as a process of its own.
type machine struct {
	build   amptest.Build
	amp     string // the build's executable
	home    string
	outside string // a directory that is neither in the home nor in /tmp
}

// secret stands in a file that no turn may read. No prompt of the tests says it.
const secret = "SECRET-7c0ffee7-of-the-user"

func newMachine(t *testing.T, build amptest.Build) *machine {
	t.Helper()
	if testing.Short() && os.Getenv("CI") == "" {
		t.Skip("real Amp builds take a second a turn")
	}
	m := &machine{build: build, amp: build.InstallT(t, nativeAmp)}
	// Not below /tmp, which the sandbox has of its own: what is hidden must be hidden for a better reason.
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	base := scratchIn(t, cache)
	m.home = filepath.Join(base, "home")
	m.outside = filepath.Join(base, "outside")
	// The sandbox shows /var read-only, as it does not show other users' homes.
	if dir, err := os.MkdirTemp("/var/cache", "sesame-e2e-"); err == nil {
		t.Cleanup(func() { removeTree(t, dir) })
		m.outside = dir
	}
	for path, text := range map[string]string{
		m.home + "/.ssh/id":      secret + "\n",
		m.home + "/notes":        "as it was\n",
		m.home + "/src/README":   "projects\n",
		m.outside + "/notes":     "as it was\n",
		m.home + "/.config/keep": "",
	} {
		put(t, path, text)
	}
	// All tests of the machine have ended by then.
	t.Cleanup(func() { m.holdsNoKey(t) })
	t.Cleanup(func() { m.isIdle(t) })
	return m
}

// scratchIn makes a directory that the test takes away again, overlays included.
func scratchIn(t *testing.T, parent string) string {
	t.Helper()
	if err := os.MkdirAll(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "sesame e2e ") // with a space: paths have them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(t, dir) })
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func removeTree(t *testing.T, dir string) {
	t.Helper()
	if err := openAll(dir); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// nativeAmp fetches the newest native build as sesame itself does, from npm's registry.
func nativeAmp(ctx context.Context, version string) (string, error) {
	dir, err := amptest.CacheDir()
	if err != nil {
		return "", err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	patient := bootstrap.Timeouts{Latest: time.Minute}
	sources, err := bootstrap.ParseSources([]string{"npm"}, bootstrap.Network{
		Environ: os.Environ(), Home: home, UserAgent: "sesame/test", Timeouts: patient,
	})
	if err != nil {
		return "", err
	}
	in, err := bootstrap.New(bootstrap.Options{Dir: dir, Sources: sources, UpdateInterval: time.Hour, Timeouts: patient})
	if err != nil {
		return "", err
	}
	b, err := in.Ensure(ctx, version)
	return b.Path, err
}

// holdsNoKey looks for the key in everything that was written on the machine.
func (m *machine) holdsNoKey(t *testing.T) {
	t.Helper()
	files := 0
	eachFile(t, m.home, func(path string, data []byte) {
		files++
		if bytes.Contains(data, []byte(amptest.ExampleKey)) {
			t.Errorf("the key is in %s", path)
		}
		if path != filepath.Join(m.home, ".ssh", "id") && bytes.Contains(data, []byte(secret)) {
			t.Errorf("the secret is in %s", path)
		}
	})
	if files < 4 {
		t.Errorf("only %d files were looked at", files)
	}
}

func eachFile(t *testing.T, dir string, look func(path string, data []byte)) {
	t.Helper()
	if err := openAll(dir); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrPermission) && strings.Contains(path, "/work/work/") {
			return nil // the kernel's own, for an overlay: nobody's but root's, and empty
		}
		if err == nil {
			look(path, data)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// isIdle wants that no process lives on the machine any more.
func (m *machine) isIdle(t *testing.T) {
	t.Helper()
	if !eventually(5*time.Second, func() bool { return len(m.processes(t)) == 0 }) {
		t.Errorf("still there: %q", m.processes(t))
	}
}

// processes are the command lines of the processes that have the machine's home.
func (m *machine) processes(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, p := range allProcesses(t) {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), "HOME="+m.home) {
			found = append(found, p.cmdline())
		}
	}
	return found
}

// project is a workspace on a machine, with a service of its own.
type project struct {
	*machine
	t       *testing.T
	dir     string
	tmp     string // where sesame has its temporary files
	service *amptest.Service
	deltas  chan struct{} // one for each piece of text that the model says
	env     map[string]string
	made    string // the directory of the session that a test made by itself
	killed  bool   // a turn was killed, so that it could not clean up
	tier    sandbox.Tier
}

func (m *machine) project(t *testing.T, opts ...amptest.Option) *project {
	t.Helper()
	p := &project{
		tier: sandbox.Namespaces, machine: m, t: t, tmp: t.TempDir(), deltas: make(chan struct{}, 1000),
		dir: filepath.Join(m.home, "src", strings.Map(pathRune, t.Name())),
	}
	put(t, filepath.Join(p.dir, "README"), "a project\n")
	say := func() {
		select {
		case p.deltas <- struct{}{}:
		default:
		}
	}
	p.service = amptest.StartT(t, append([]amptest.Option{amptest.WithFrames(), amptest.WithDeltaObserver(say)}, opts...)...)
	p.env = map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": m.home, "LANG": "C.UTF-8", "TMPDIR": p.tmp,
		"XDG_CONFIG_DIRS": filepath.Join(m.home, "no-system-files"),
		"AMP_URL":         p.service.URL(), "AMP_API_KEY": p.service.Key(),
		"SESAME_AMP_SOURCES": filepath.Join(m.home, "no-source"), // nothing is fetched unless a test says so
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(p.tmp)
		if err != nil || len(left) > 0 && !p.killed {
			t.Errorf("left in the temporary directory: %v, %v", left, err)
		}
	})
	return p
}

func pathRune(r rune) rune {
	if r == '/' || r == '#' {
		return '-'
	}
	return r
}

// mode is what the build makes of a mode.
func (p *project) mode(name string) string {
	if p.build.Native {
		return map[string]string{"smart": "medium", "rush": "low", "deep": "high"}[name]
	}
	return name
}

// path is a path in the workspace.
func (p *project) path(name string) string { return filepath.Join(p.dir, name) }

func (p *project) read(path string) string {
	p.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// state is a path in sesame's state directory.
func (p *project) state(elem ...string) string {
	return filepath.Join(append([]string{p.home, ".local", "state", "sesame"}, elem...)...)
}

// sessionsHere are the sessions of this workspace.
func (p *project) sessionsHere() []string {
	p.t.Helper()
	var ids []string
	files, err := filepath.Glob(p.state("sessions", "*", "session.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, file := range files {
		var record struct{ Workspace string }
		if err := json.Unmarshal([]byte(p.read(file)), &record); err == nil && record.Workspace == p.dir {
			ids = append(ids, filepath.Base(filepath.Dir(file)))
		}
	}
	return ids
}

// sent is everything that the service was sent: headers, bodies and frames.
func (p *project) sent() string {
	var b strings.Builder
	for _, r := range p.service.Requests() {
		b.WriteString(r.Method + " " + r.Path + "\n")
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			b.WriteString(name + ": " + strings.Join(r.Header[name], ", ") + "\n")
		}
		b.Write(r.Body)
	}
	for _, f := range p.service.Frames() {
		if f.FromPeer {
			b.WriteString(f.Data + "\n")
		}
	}
	return b.String()
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// closedPort is an address at which nobody listens, and nobody else will.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(name.(*unix.SockaddrInet4).Port)
}

// eventually waits until ok says yes, for at most d.
func eventually(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}
