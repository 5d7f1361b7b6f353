package cmd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// newPatientWorld is a world in which everything is well, but that there is no Amp.
func newPatientWorld(t *testing.T) (*world, *amptest.Service) {
	t.Helper()
	w, service := newWorld(t), amptest.StartT(t)
	w.env["AMP_URL"], w.env["AMP_API_KEY"] = service.URL(), service.Key()
	w.env["PATH"] = os.Getenv("PATH")
	w.env["SESAME_AMP_SOURCES"] = w.source(t)
	return w, service
}

const sourceVersion = "0.0.1790000000-gabcdef"

// source is a directory that Amp comes from: one that says its version and no more.
func (w *world) source(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(w.home), "source")
	program := "#!/bin/sh\necho " + sourceVersion + "\n"
	w.write(t, filepath.Join(dir, "cli-version.txt"), sourceVersion)
	for _, platform := range []string{"linux-x64", "linux-x64-baseline", "linux-arm64"} {
		w.write(t, filepath.Join(dir, sourceVersion, "amp-"+platform), program)
		sum := sha256.Sum256([]byte(program))
		w.write(t, filepath.Join(dir, sourceVersion, platform+"-amp.sha256"), hex.EncodeToString(sum[:]))
	}
	return dir
}

// doctor runs `sesame doctor` in process. What it starts inside the sandbox is the
// copy of this program that testscript made, which is a whole sesame.
func (w *world) doctor(t *testing.T, args ...string) int {
	t.Helper()
	w.out.Reset()
	w.errOut.Reset()
	cmd := newDoctorCmd(w.app, func(ctx context.Context, o *doctorOptions) error {
		o.executable = func() (string, error) { return exec.LookPath("sesame") }
		// A busy machine is not what is tested.
		o.limits = check.Limits{Each: time.Minute, All: time.Minute}
		o.resolver, o.rootCAs = w.resolver, w.rootCAs
		return doctorRun(ctx, o)
	})
	w.globalFlags(cmd.PersistentFlags())
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	w.printError(err)
	return exitCode(t.Context(), err)
}

// examine runs `sesame doctor --json`.
func (w *world) examine(t *testing.T, args ...string) (doctorReport, int) {
	t.Helper()
	code := w.doctor(t, append(args, "--json")...)
	var r doctorReport
	if err := json.Unmarshal(w.out.Bytes(), &r); err != nil {
		t.Fatalf("%v: exit %d, stdout %s, stderr %s", err, code, w.out, w.errOut)
	}
	if r.SchemaVersion != 1 || w.errOut.Len() > 0 && !slices.Contains(args, "--fix") {
		t.Errorf("version %d, stderr %s", r.SchemaVersion, w.errOut)
	}
	return r, code
}

// in are the ids of the checks with a status.
func (r doctorReport) in(status check.Status) []string {
	var ids []string
	for id, c := range r.Checks {
		if c.Status == status {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestDoctorAllWell(t *testing.T) {
	w, _ := newPatientWorld(t)
	build := amptest.Builds()[0].InstallT(t, nil)
	r, code := w.examine(t, "--amp-path", build)
	if code != 0 || r.Status != check.OK || !slices.Equal(r.in(check.Skip), []string{"inside.websocket", "modes.free", "service.websocket"}) {
		t.Fatalf("exit %d: %s", code, w.out)
	}
	for id, want := range map[string]string{
		"key.accepted": "for a…@b.c", "amp.starts": amptest.Feb10JS, "sandbox.tier": "namespaces (", "key.found": "AMP_API_KEY", "inside.host": w.env["AMP_URL"], "modes.settings": "read by this Amp",
	} {
		if got := r.Checks[id].Summary; !strings.Contains(got, want) {
			t.Errorf("%s: %q lacks %q", id, got, want)
		}
	}
	if code := w.doctor(t, "--amp-path", build); code != 0 || !strings.Contains(w.out.String(), "\n3 skipped, ") {
		t.Errorf("exit %d: %s", code, w.out)
	}
	// It is to change nothing.
	for _, dir := range []string{w.home, w.cwd} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v, %v", dir, entries, err)
		}
	}
}

// doctorFault breaks one thing, and exactly the right checks have to say so.
type doctorFault struct {
	name    string
	spoil   func(t *testing.T, w *world, s *amptest.Service) (args []string)
	exit    int
	failed  []string
	warned  []string
	code    fault.Code // of the first failure
	summary string     // of the first that failed, or else was warned of
	remedy  string     // likewise, part of a line
}

func (f doctorFault) test(t *testing.T) {
	w, service := newPatientWorld(t)
	args := f.spoil(t, w, service)
	r, code := w.examine(t, args...)
	f.judge(t, r, code)
	for _, key := range []string{service.Key(), goodKey} {
		if strings.Contains(w.out.String(), key) {
			t.Error("the key is in the output")
		}
	}
	if t.Failed() {
		t.Log(w.out)
	}
}

func (f doctorFault) judge(t *testing.T, r doctorReport, code int) {
	t.Helper()
	if code != f.exit {
		t.Errorf("exit %d, want %d", code, f.exit)
	}
	if got := r.in(check.Fail); !slices.Equal(got, f.failed) {
		t.Errorf("failed %q, want %q", got, f.failed)
	}
	warned := f.warned
	// The world has no Amp unless the fault gave it one: that is warned of wherever it is looked at.
	if strings.HasPrefix(r.Checks["amp.cached"].Summary, "Amp is not cached yet") && !slices.Contains(warned, "amp.cached") {
		warned = append([]string{"amp.cached"}, warned...)
		slices.Sort(warned)
	}
	if got := r.in(check.Warn); !slices.Equal(got, warned) {
		t.Errorf("warned of %q, want %q", got, warned)
	}
	// Nothing is left out but for the fault's own sake.
	for id, c := range r.Checks {
		if _, cause, ok := strings.Cut(c.Summary, "not checked, because "); ok && c.Status == check.Skip && strings.HasSuffix(cause, " failed") &&
			!slices.Contains(f.failed, strings.TrimSuffix(cause, " failed")) {
			t.Errorf("%s: %s", id, c.Summary)
		}
	}
	first := r.Checks[slices.Concat(f.failed, f.warned)[0]]
	if first.Code != f.code || !strings.Contains(first.Summary, f.summary) || !strings.Contains(strings.Join(first.Remedy, "\n"), f.remedy) {
		t.Errorf("got %+v", first)
	}
}

func TestDoctorFaults(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + closed.Addr().String() + "/"
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	program := func(t *testing.T, w *world, text string, mode os.FileMode) string {
		path := w.write(t, filepath.Join(w.home, "bin", "amp"), text)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []doctorFault{
		{
			name:   "Amp not cached",
			spoil:  func(*testing.T, *world, *amptest.Service) []string { return nil },
			warned: []string{"amp.cached"}, summary: "Amp is not cached yet", remedy: "`sesame amp install`",
		},
		{
			name: "wrong key",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				w.env["AMP_API_KEY"] = goodKey
				return nil
			},
			exit: 4, failed: []string{"key.accepted"}, warned: []string{"amp.cached"},
			code: fault.KeyRejected, summary: "rejected the key", remedy: "sesame login",
		},
		{
			name: "no key",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				delete(w.env, "AMP_API_KEY")
				return nil
			},
			exit: 4, failed: []string{"key.found"}, warned: []string{"amp.cached"},
			code: fault.KeyMissing, summary: "AMP_API_KEY not configured", remedy: "`sesame login`",
		},
		{
			name: "a store that others may read",
			spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
				delete(w.env, "AMP_API_KEY")
				file := w.write(t, filepath.Join(w.home, ".config/sesame/credentials.json"), "{}")
				if err := os.Chmod(file, 0o644); err != nil {
					t.Fatal(err)
				}
				return nil
			},
			exit: 4, failed: []string{"key.found"}, warned: []string{"amp.cached"},
			code: fault.Usage, summary: "other users may read or change it", remedy: "chmod 600 ",
		},
		{
			name: "service down",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				w.env["AMP_URL"] = nobody
				return nil
			},
			exit: 1, failed: []string{"service.tcp"}, warned: []string{"amp.cached"},
			code: fault.ServiceUnreachable, summary: "connection refused", remedy: "a firewall must allow",
		},
		{
			name: "service down and no key",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				w.env["AMP_URL"] = nobody
				delete(w.env, "AMP_API_KEY")
				return nil
			},
			exit: 1, failed: []string{"key.found", "service.tcp"}, warned: []string{"amp.cached"},
			code: fault.KeyMissing, summary: "AMP_API_KEY not configured",
		},
		{
			name: "service is ill",
			spoil: func(_ *testing.T, _ *world, s *amptest.Service) []string {
				s.SetFaults(amptest.Faults{UserInfoStatus: 500})
				return nil
			},
			exit: 1, failed: []string{"key.accepted"}, warned: []string{"amp.cached"},
			code: fault.ServiceUnreachable, summary: "it answers 500",
		},
		{
			name:  "a tier of another system",
			spoil: func(*testing.T, *world, *amptest.Service) []string { return []string{"--sandbox", "seatbelt"} },
			exit:  1, failed: []string{"sandbox.tier"}, warned: []string{"amp.cached"},
			code: fault.SandboxUnavailable, summary: "seatbelt", remedy: "--sandbox auto",
		},
		{
			name:   "no sandbox wanted",
			spoil:  func(*testing.T, *world, *amptest.Service) []string { return []string{"--sandbox", "off"} },
			warned: []string{"amp.cached", "sandbox.tier"}, summary: "Amp is not cached yet",
		},
		{
			name: "a rule that makes no sense",
			spoil: func(*testing.T, *world, *amptest.Service) []string {
				return []string{"--allow-host", "https://x.example/"}
			},
			exit: 1, failed: []string{"sandbox.tier"}, warned: []string{"amp.cached"},
			code: fault.Usage, summary: "--allow-host: ",
		},
		{
			name: "Amp missing",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				return []string{"--amp-path", filepath.Join(w.home, "amp")}
			},
			exit: 1, failed: []string{"amp.cached"},
			code: fault.BootstrapFailed, summary: "bootstrap failed: the amp executable", remedy: "--amp-path",
		},
		{
			name: "Amp not executable",
			spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
				return []string{"--amp-path", program(t, w, "#!/bin/sh\necho 0.0.1-gabc\n", 0o600)}
			},
			exit: 1, failed: []string{"amp.cached"},
			code: fault.BootstrapFailed, summary: "not executable: try chmod +x",
		},
		{
			name: "Amp dies",
			spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
				return []string{"--amp-path", program(t, w, "#!/bin/sh\necho 'GLIBC_2.99 not found' >&2; exit 3\n", 0o700)}
			},
			exit: 1, failed: []string{"amp.starts"},
			code: fault.AmpCrashed, summary: "Amp process exited unexpectedly", remedy: "sesame amp install",
		},
		{
			name: "Amp's interpreter is not there",
			spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
				return []string{"--amp-path", program(t, w, "#!/nonexistent/node\n", 0o700)}
			},
			exit: 1, failed: []string{"amp.starts"},
			code: fault.AmpCrashed, summary: "cannot be started in the sandbox", remedy: "interpreter",
		},
		{
			name: "broken configuration",
			spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
				w.write(t, filepath.Join(w.home, ".config/sesame/config.yaml"), "mode: deep\nsandbox: {teir: off}\n")
				return nil
			},
			exit: 1, failed: []string{"config.files"},
			code: fault.Usage, summary: "config.yaml:2: ", remedy: "tier",
		},
		{
			name: "no home",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				delete(w.env, "HOME")
				return nil
			},
			exit: 1, failed: []string{"config.dirs"},
			code: fault.Usage, summary: "HOME is not set", remedy: "set HOME",
		},
		{
			name: "home as workspace",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				w.cwd = w.home
				return nil
			},
			warned: []string{"amp.cached", "config.workspace"}, summary: "Amp is not cached yet",
		},
		{
			name: "a workspace that is not there",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				return []string{"-C", "nowhere"}
			},
			exit: 1, failed: []string{"config.workspace"}, warned: []string{"amp.cached"},
			code: fault.Usage, summary: "no such directory",
		},
		{
			name: "the current directory is gone",
			spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
				w.cwd = ""
				return nil
			},
			warned: []string{"amp.cached", "config.workspace"}, summary: "Amp is not cached yet",
		},
	}
	for _, test := range tests {
		t.Run(test.name, test.test)
	}
}

// A service, or a cache, may say anything, the key included.
func TestDoctorRedacts(t *testing.T) {
	w, service := newPatientWorld(t)
	w.checkKey = func(_ context.Context, _ string, key config.Key) (account, error) {
		return account{}, fault.New(fault.ServiceUnreachable, "Bearer %s: \x1b[2J%s", key.Reveal(), key.Reveal())
	}
	for _, args := range [][]string{{"--json"}, {"--verbose"}} {
		if code := w.doctor(t, args...); code != 1 || !strings.Contains(w.out.String(), config.Redacted) {
			t.Errorf("%q: exit %d, %s", args, code, w.out)
		}
		if strings.Contains(w.out.String(), service.Key()) || strings.Contains(w.out.String(), "\x1b") {
			t.Errorf("%q: %s", args, w.out)
		}
	}
}

func TestDoctorOnly(t *testing.T) {
	w, _ := newPatientWorld(t)
	r, code := w.examine(t, "--only", "service.host", "--only", "config.dirs")
	want := []string{"config.dirs", "config.files", "service.dns", "service.host", "service.proxy", "service.tcp", "service.tls"}
	if code != 0 || !slices.Equal(r.in(check.OK), want) || len(r.Checks) != len(want) {
		t.Errorf("exit %d: %s", code, w.out)
	}
	if r, _ := w.examine(t, "--only", "key"); len(r.in(check.OK)) != len(r.Checks) || r.Checks["key.accepted"].Status != check.OK || r.Checks["tools.git"].Status != "" {
		t.Errorf("a group: %s", w.out)
	}
	if code := w.doctor(t, "--only", "key.foud"); code != 2 || !strings.Contains(w.errOut.String(), "hint: did you mean key.found?") || w.out.Len() > 0 {
		t.Errorf("a slip: exit %d, %s%s", code, w.out, w.errOut)
	}
}

// Every need names a check, and no id is there twice.
func TestDoctorChecksFit(t *testing.T) {
	w, _ := newPatientWorld(t)
	cmd := newDoctorCmd(w.app, nil)
	p, cleanUp := (&doctorOptions{app: w.app, cmd: cmd, executable: os.Executable}).patient()
	defer cleanUp()
	seen := map[string]bool{}
	for _, c := range p.checks() {
		if seen[c.ID] {
			t.Errorf("%s is there twice", c.ID)
		}
		seen[c.ID] = true
		if c.Run == nil || c.Group == "" || c.Title == "" {
			t.Errorf("%s is not whole", c.ID)
		}
	}
	for _, c := range p.checks() {
		for _, need := range c.Needs {
			if !seen[need] {
				t.Errorf("%s needs %s, which is none", c.ID, need)
			}
		}
	}
}
