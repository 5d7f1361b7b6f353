package cmd

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// badInput is a command line that must be refused before anything is changed.
type badInput struct {
	name  string
	prep  func(*project) // makes what is wrong
	args  []string
	stdin string
	exit  int
	code  fault.Code
	error string // what the message has
	hint  string // what the hints have; "" where there need be none
	keeps bool   // the cache may have changed: Amp was asked, or its source
}

func TestE2EBadInput(t *testing.T) {
	m := newMachine(t, amptest.Builds()[2])
	const newer = "0.0.1795000000-gdddddd"
	mirror := func(sum string) func(*project) {
		return func(p *project) {
			dir := p.source(newer, sum)
			p.amp, p.env["SESAME_AMP_SOURCES"] = "", dir
		}
	}
	served := func(sum string) func(*project) {
		return func(p *project) {
			s := httptest.NewServer(http.FileServer(http.Dir(p.source(newer, sum))))
			p.t.Cleanup(s.Close)
			p.amp, p.env["SESAME_AMP_SOURCES"] = "", s.URL
		}
	}
	ampPath := func(mode os.FileMode, text string) func(*project) {
		return func(p *project) {
			p.amp = p.path("not-amp")
			put(p.t, p.amp, text)
			if err := os.Chmod(p.amp, mode); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	wrong := strings.Repeat("0", 64)
	tests := []badInput{
		{name: "empty prompt", args: []string{"run", " \n"}, exit: 2, code: fault.Usage, error: "the prompt is empty", hint: "--prompt-file"},
		{name: "empty stdin", args: []string{"run"}, stdin: "\n", exit: 2, code: fault.Usage, error: "the prompt is empty", hint: "standard input"},
		{name: "prompt of 10 MB", args: []string{"run"}, stdin: strings.Repeat("a", 10<<20), exit: 2, code: fault.Usage, error: "10485760 bytes", hint: "file of the workspace"},
		{name: "endless prompt", args: []string{"run", "--prompt-file", "/dev/zero"}, exit: 2, code: fault.Usage, error: "/dev/zero is longer than", hint: "file of the workspace"},
		{name: "prompt with a dash", args: []string{"run", "-x and so on"}, exit: 2, code: fault.Usage, error: "unknown shorthand flag", hint: "behind `--`"},
		{name: "prompt with NUL", args: []string{"run"}, stdin: "a\x00b", exit: 2, code: fault.Usage, error: "NUL byte"},
		{name: "prompt is no UTF-8", args: []string{"run", "caf\xe9"}, exit: 2, code: fault.Usage, error: "not valid UTF-8"},
		{name: "prompt file missing", args: []string{"run", "--prompt-file", "nowhere.md"}, exit: 2, code: fault.Usage, error: "nowhere.md: no such file"},
		{name: "prompt file is a directory", args: []string{"run", "--prompt-file", "."}, exit: 2, code: fault.Usage, error: ". is a directory"},
		{name: "prompt file unreadable", args: []string{"run", "--prompt-file", "/proc/self/mem"}, exit: 2, code: fault.Usage, error: "read the prompt from --prompt-file /proc/self/mem"},
		{name: "two prompts", args: []string{"run", "--prompt-file", "README", "x"}, exit: 2, code: fault.Usage, error: "give one of them"},
		{name: "unknown flag", args: []string{"run", "--modes", "x", "y"}, exit: 2, code: fault.Usage, error: "unknown flag: --modes", hint: "did you mean --mode?"},
		{name: "mode that is none", prep: func(p *project) { p.env["SESAME_MODE"] = "-rf" }, args: []string{"run", "x"}, exit: 2, code: fault.Usage, error: "SESAME_MODE: \"-rf\" is not the name of a mode"},
		{name: "bad config", prep: func(p *project) { put(p.t, p.path("bad.yaml"), "mode: smart\nsandbox: {teir: off}\n") }, args: []string{"--config", "bad.yaml", "run", "x"}, exit: 2, code: fault.Usage, error: "bad.yaml:2: sandbox.teir: unknown key", hint: "did you mean sandbox.tier?"},
		{name: "config is no YAML", prep: func(p *project) { put(p.t, p.path("bad.yaml"), "mode: [") }, args: []string{"--config", "bad.yaml", "run", "x"}, exit: 2, code: fault.Usage, error: "bad.yaml"},
		{name: "hostile workspace", prep: func(p *project) { put(p.t, p.path(".sesame.yaml"), "amp: {path: ./evil}\n") }, args: []string{"run", "x"}, exit: 2, code: fault.Usage, error: ".sesame.yaml:1: amp.path: refused"},
		{name: "variable", prep: func(p *project) { p.env["SESAME_TIMEOUT"] = "soon" }, args: []string{"run", "x"}, exit: 2, code: fault.Usage, error: "SESAME_TIMEOUT"},
		{name: "host that is none", args: []string{"run", "--allow-host", "a b", "x"}, exit: 2, code: fault.Usage, error: "--allow-host"},
		{name: "path that is not there", args: []string{"run", "--allow-write", "/nowhere/at/all", "x"}, exit: 2, code: fault.Usage, error: "/nowhere/at/all"},
		{name: "workspace missing", args: []string{"run", "-C", "nowhere", "x"}, exit: 2, code: fault.Usage, error: "nowhere: no such directory"},
		{name: "workspace is a file", args: []string{"run", "-C", "README", "x"}, exit: 2, code: fault.Usage, error: "README: not a directory"},
		{name: "workspace is /", args: []string{"run", "-C", "/", "x"}, exit: 2, code: fault.Usage, error: "root of the file system", hint: "-C"},
		{name: "workspace is the home", args: []string{"run", "-C", m.home, "x"}, exit: 2, code: fault.Usage, error: "it is your home directory", hint: "-C"},
		{name: "workspace has the home in it", args: []string{"run", "-C", filepath.Dir(m.home), "x"}, exit: 2, code: fault.Usage, error: "your home directory is inside of it"},
		{name: "URL that is none", prep: func(p *project) { p.env["AMP_URL"] = "ftp://example.com" }, args: []string{"run", "x"}, exit: 2, code: fault.Usage, error: "AMP_URL"},

		{name: "amp missing", prep: func(p *project) { p.amp = "nowhere/amp" }, args: []string{"run", "x"}, exit: 5, code: fault.BootstrapFailed, error: "nowhere/amp", hint: "--amp-path"},
		{name: "amp is not executable", prep: ampPath(0o644, "#!/bin/sh\n"), args: []string{"run", "x"}, exit: 5, code: fault.BootstrapFailed, error: "not-amp is not executable", hint: "--amp-path"},
		{name: "amp is text", prep: ampPath(0o755, "hello\n"), args: []string{"run", "x"}, exit: 5, code: fault.BootstrapFailed, error: "neither a program for linux nor a script", hint: "--amp-path"},
		{name: "amp's interpreter is missing", prep: ampPath(0o755, "#!/nonexistent/node\n"), args: []string{"run", "x"}, exit: 3, code: fault.AmpCrashed, error: "cannot be started in the sandbox", hint: "interpreter"},
		{name: "amp is a directory", prep: func(p *project) { p.amp = p.dir }, args: []string{"run", "x"}, exit: 5, code: fault.BootstrapFailed, error: "is a directory", hint: "--amp-path"},
		{name: "no source", prep: func(p *project) { p.amp = "" }, args: []string{"run", "x"}, exit: 5, code: fault.BootstrapFailed, error: "bootstrap failed"},
		{name: "wrong checksum in a directory", prep: mirror(wrong), args: []string{"run", "x"}, exit: 5, code: fault.BootstrapFailed, error: wrong[:8], keeps: true},
		{name: "wrong checksum in a tree", prep: served(wrong), args: []string{"run", "x"}, exit: 5, code: fault.BootstrapFailed, error: wrong[:8], keeps: true},
		{name: "no such version in a directory", prep: mirror(""), args: []string{"run", "--amp-version", "0.0.1-gabcdef", "x"}, exit: 5, code: fault.BootstrapFailed, error: "0.0.1-gabcdef", keeps: true},
		{name: "no such version in a tree", prep: served(""), args: []string{"run", "--amp-version", "0.0.1-gabcdef", "x"}, exit: 5, code: fault.BootstrapFailed, error: "0.0.1-gabcdef", keeps: true},
		{name: "version that is none", prep: mirror(""), args: []string{"run", "--amp-version", "newest", "x"}, exit: 2, code: fault.Usage, error: `"newest" is no version of amp`, hint: "latest"},

		{name: "nothing to continue", args: []string{"continue", "x"}, exit: 8, code: fault.SessionNotFound, error: "there is no session of", hint: "sesame run"},
		{name: "no such session", args: []string{"continue", "--session", "nope", "x"}, exit: 8, code: fault.SessionNotFound, error: `there is no session "nope"`, hint: "sesame sessions"},
		{name: "ambiguous session", prep: func(p *project) { p.session("T-1"); p.session("T-2") }, args: []string{"continue", "--session", "2", "x"}, exit: 8, code: fault.SessionNotFound, error: `"2" stands for`, hint: "give more of its id"},
		{name: "broken session.json", prep: func(p *project) { put(p.t, filepath.Join(p.session("T-1"), "session.json"), `{"schema_version":1,`) }, args: []string{"continue", "--session", "SESSION", "x"}, exit: 8, code: fault.SessionNotFound, error: "session.json", hint: "sesame sessions rm"},
		{name: "session.json of another", prep: func(p *project) {
			put(p.t, filepath.Join(p.session("T-1"), "session.json"), `{"schema_version":1,"id":"20200101-000000-aaaa","thread_id":"T-1","workspace":"/"}`)
		}, args: []string{"continue", "--session", "SESSION", "x"}, exit: 8, code: fault.SessionNotFound, error: "it belongs to session", hint: "sesame sessions rm"},
		{name: "session without a thread", prep: func(p *project) { p.session("") }, args: []string{"continue", "--session", "SESSION", "x"}, exit: 8, code: fault.SessionNotFound, error: "cannot be continued", hint: "sesame run"},
	}
	for _, test := range tests {
		// One after the other: what each leaves in the home is looked at.
		t.Run(test.name, func(t *testing.T) {
			p := m.project(t)
			if test.prep != nil {
				own := *m
				p.machine = &own // a test may name another Amp
				test.prep(p)
			}
			test.run(p)
		})
	}
}

func (b badInput) run(p *project) {
	args := slices.Clone(b.args)
	for i := range args {
		if args[i] == "SESSION" {
			args[i] = filepath.Base(p.made)
		}
	}
	verb := slices.IndexFunc(args, func(a string) bool { return a == "run" || a == "continue" })
	if p.amp != "" {
		args = slices.Insert(args, verb+1, "--amp-path", p.amp)
	}
	before := p.tree()
	start := func(args ...string) *call {
		p.t.Helper()
		p.amp = "" // it is among the arguments
		if b.stdin == "" {
			return p.start(args...).wait()
		}
		return p.startWith(strings.NewReader(b.stdin), args...).wait()
	}
	c := start(args...).want(b.exit)
	if c.out != "" {
		p.t.Errorf("stdout %q", c.out)
	}
	wantIn(p.t, c.err, "sesame: ", b.error)
	if b.hint != "" {
		hints := ""
		for line := range strings.Lines(c.err) {
			if hint, ok := strings.CutPrefix(line, "hint: "); ok {
				hints += hint
			}
		}
		wantIn(p.t, hints, b.hint)
	}
	if strings.Contains(c.err, "goroutine ") || c.took > 20*time.Second {
		p.t.Errorf("after %s: %s", c.took, c.err)
	}
	c = start(slices.Insert(args, verb+1, "-o", "json")...).want(b.exit)
	status := StatusError
	if b.code == fault.AmpCrashed {
		status = StatusCrashed
	}
	if r := c.failed(status, b.code, b.error); r.Logs != (ReportLogs{}) || r.NumTurns != 0 {
		p.t.Errorf("a turn was begun: %+v", r)
	}
	if n := len(p.service.Requests()); n > 0 {
		p.t.Errorf("the service was asked %d times", n)
	}
	var changed []string
	for path := range p.tree() {
		// That it failed is noted for the doctor, with the directories on the way.
		noted := b.exit == 5 && strings.HasPrefix(".local/state/sesame/last-failure.json", path)
		if _, ok := before[path]; !ok && !noted && !(b.keeps && strings.HasPrefix(path, ".cache")) {
			changed = append(changed, path)
		}
	}
	if len(changed) > 0 {
		p.t.Errorf("made: %q", changed)
	}
	for path := range p.tree() {
		if strings.HasSuffix(path, "/amp") && strings.HasPrefix(path, ".cache/sesame/amp/0") {
			p.t.Errorf("in the cache: %s", path)
		}
	}
}

// tree is what the home has in it.
func (p *project) tree() map[string]bool {
	p.t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(p.home, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			var rel string
			rel, err = filepath.Rel(p.home, path)
			found[rel] = true
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

// source makes a directory tree with one version, whose checksum is the right one if none is given.
func (p *project) source(version, sum string) string {
	p.t.Helper()
	platform, err := bootstrap.DetectPlatform("linux", runtime.GOARCH, "/")
	if err != nil {
		p.t.Fatal(err)
	}
	program := "\x7fELF" + strings.Repeat("amp", 1000)
	if sum == "" {
		right := sha256.Sum256([]byte(program))
		sum = hex.EncodeToString(right[:])
	}
	dir := p.t.TempDir()
	put(p.t, filepath.Join(dir, "cli-version.txt"), version+"\n")
	put(p.t, filepath.Join(dir, version, "amp-"+string(platform)), program)
	put(p.t, filepath.Join(dir, version, string(platform)+"-amp.sha256"), sum+"\n")
	return dir
}

// session makes a session of this workspace as an earlier turn would have left it, and returns its directory.
func (p *project) session(thread string) string {
	p.t.Helper()
	s, err := session.NewStore(p.state(), nil).Create(session.Record{
		Workspace: p.dir, ServiceURL: p.env["AMP_URL"], ThreadID: thread, Mode: "smart",
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.made = s.Dir()
	return p.made
}

// The first turn in an empty home: Amp is fetched from the configured source, verified,
// put into the cache, and runs.
func TestE2EFirstRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t, amptest.Builds()[2])
	p := m.project(t)
	version := filepath.Base(filepath.Dir(m.amp))
	platform, err := bootstrap.DetectPlatform("linux", runtime.GOARCH, "/")
	if err != nil {
		t.Fatal(err)
	}
	dir := p.t.TempDir()
	program := filepath.Join(dir, version, "amp-"+string(platform))
	copyFile(t, m.amp, program)
	put(t, filepath.Join(dir, "cli-version.txt"), version+"\n")
	put(t, filepath.Join(dir, version, string(platform)+"-amp.sha256"), fileSum(t, program))
	p.env["SESAME_AMP_SOURCES"] = dir
	m.amp = "" // from the source
	r := p.ok("run", "-o", "json", "RUN:echo made > made-here").report()
	if r.AmpVersion != version || p.read(p.path("made-here")) != "made\n" {
		t.Errorf("got %+v", r)
	}
	cached := filepath.Join(p.home, ".cache", "sesame", "amp", version, "amp")
	sum := fileSum(t, program)
	if fileSum(t, cached) != sum {
		t.Errorf("%s is not what was fetched", cached)
	}
	// From now on there need be no source.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := p.ok("continue", "again").out; !strings.Contains(got, "again (") {
		t.Errorf("stdout %q", got)
	}
	// A turn must not change the program that the next one runs.
	c := p.ok("run", "-o", "json", "RUN:echo x >> '"+cached+"'; rm -f '"+cached+"'; echo tried")
	wantIn(t, c.out, "tried")
	if fileSum(t, cached) != sum {
		t.Error("the cached Amp was changed")
	}
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
