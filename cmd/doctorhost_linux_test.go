package cmd

import (
	"context"
	"encoding/json"
	"errors"
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

// TestDoctorHostFaults breaks what is kept on this machine.
func TestDoctorHostFaults(t *testing.T) {
	cached := []string{"amp.cached"}
	// A service that takes the key: its looks are all that is wrong.
	key := func(value string) func(*testing.T, *world, *amptest.Service) []string {
		return func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.env["AMP_API_KEY"], w.env["AMP_URL"] = value, amptest.StartT(t, amptest.WithKey(value)).URL()
			return nil
		}
	}
	credentials := func(text string) func(*testing.T, *world, *amptest.Service) []string {
		return func(t *testing.T, w *world, _ *amptest.Service) []string {
			delete(w.env, "AMP_API_KEY")
			w.write(t, w.keys().Path, text)
			return nil
		}
	}
	native := func(t *testing.T, w *world) {
		w.env["SESAME_AMP_PATH"] = amptest.Builds()[2].InstallT(t, nativeAmp)
	}
	tests := []doctorFault{
		{name: "key of another service", spoil: key("sk-ant-api03-abcdefgh"), warned: []string{"key.shape"}, summary: "a key of Anthropic", remedy: "`sesame login`"},
		{name: "half a key", spoil: key(goodKey[:50]), warned: []string{"key.shape"}, summary: "was a part of it lost", remedy: "copy it again"},
		{name: "key with a line break", spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
			w.env["AMP_API_KEY"] = "a\nb"
			return nil
		}, exit: 4, failed: []string{"key.found"}, code: fault.Usage, summary: "AMP_API_KEY: the key has spaces"},
		{name: "store is broken", spoil: credentials("{broken"), exit: 4, failed: []string{"key.found"}, warned: cached, code: fault.Usage, summary: "not JSON as `sesame login` writes it", remedy: "move it away"},
		{name: "key in a keyring elsewhere", spoil: func(t *testing.T, w *world, s *amptest.Service) []string {
			return credentials(`{"schema_version":1,"keys":{"`+s.URL()+`":{"keyring":true}}}`)(t, w, s)
		}, exit: 4, failed: []string{"key.found"}, warned: cached, code: fault.KeyMissing, summary: "in the keyring of a desktop session", remedy: "`sesame login`"},
		{name: "one key hides another", spoil: func(t *testing.T, w *world, s *amptest.Service) []string {
			k, err := config.NewKey("another-key")
			if err == nil {
				_, _, err = w.keys().Save(s.URL(), config.Credential{Key: k, Account: "x@y.z"})
			}
			if err != nil {
				t.Fatal(err)
			}
			return nil
		}, warned: []string{"key.stored"}, summary: "hides another key", remedy: "`unset AMP_API_KEY`"},
		{name: "a slip in the environment", spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
			w.env["SESAME_MODEE"] = "deep"
			return nil
		}, warned: []string{"config.files"}, summary: "SESAME_MODEE", remedy: "correct its name"},
		{name: "a hostile workspace file", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.write(t, ".sesame.yaml", "amp: {path: ./evil}")
			return nil
		}, exit: 1, failed: []string{"config.files"}, code: fault.Usage, summary: ".sesame.yaml:1: amp.path"},
		{name: "directory of everybody", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			loosen(t, filepath.Join(w.home, ".config/sesame"))
			return nil
		}, exit: 1, failed: []string{"config.dirs"}, code: fault.Internal, summary: "other users may change it (mode 0777)", remedy: "`chmod 700 "},
		{name: "cached Amp was changed", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			file := w.install(t)
			if err := os.WriteFile(file, []byte(strings.Replace(read(t, file), "echo", "Echo", 1)), 0o600); err != nil { //nolint:gosec // the mode stays
				t.Fatal(err)
			}
			return nil
		}, warned: cached, summary: "is damaged and will be fetched again", remedy: "`sesame amp install`"},
		{name: "cached Amp is cut off", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			if err := os.Truncate(w.install(t), 5); err != nil {
				t.Fatal(err)
			}
			return nil
		}, warned: cached, summary: "is not the file that was verified", remedy: "`sesame amp install`"},
		{name: "one's own Amp is not the pinned one", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.env["SESAME_AMP_PATH"], w.env["SESAME_AMP_SHA256"] = w.install(t), strings.Repeat("ab", 32)
			return nil
		}, exit: 1, failed: []string{"amp.digest"}, code: fault.BootstrapFailed, summary: "wrong sha256 of the pinned file", remedy: "amp.sha256"},
		{name: "the cached Amp is not the pinned one", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.install(t)
			w.env["SESAME_AMP_VERSION"], w.env["SESAME_AMP_SHA256"] = sourceVersion, strings.Repeat("ab", 32)
			return nil
		}, exit: 1, failed: cached, code: fault.BootstrapFailed, summary: "wrong sha256 of the pinned file", remedy: "amp.sha256"},
		{name: "cache of everybody", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.install(t)
			loosen(t, filepath.Join(w.home, ".cache/sesame/amp"))
			return nil
		}, exit: 1, failed: cached, code: fault.BootstrapFailed, summary: "may be written to by others"},
		{name: "no source answers", spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
			w.env["SESAME_AMP_SOURCES"] = "http://127.0.0.1:1/cli"
			return nil
		}, exit: 1, failed: []string{"amp.newest"}, warned: []string{"amp.cached", "sources.mirror1"}, code: fault.BootstrapFailed, summary: "no source of Amp answers", remedy: "--amp-path"},
		{name: "one source does not answer", spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
			w.env["SESAME_AMP_SOURCES"] += ",http://127.0.0.1:1/cli"
			return nil
		}, warned: []string{"sources.mirror2"}, summary: "connection refused", remedy: "amp.sources"},
		{name: "source says nonsense", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.write(t, filepath.Join(w.env["SESAME_AMP_SOURCES"], "cli-version.txt"), "<html>")
			return nil
		}, exit: 1, failed: []string{"amp.newest"}, warned: []string{"sources.mirror1"}, code: fault.BootstrapFailed, summary: "no source of Amp answers, and none is cached"},
		{name: "mode that Amp refuses", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			native(t, w)
			w.env["SESAME_MODE"] = "free"
			return nil
		}, exit: 1, failed: []string{"modes.free"}, code: fault.ModeUnavailable, summary: "mode free is not available", remedy: "`--mode`"},
		{name: "mode of the user's own that Amp has not", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			native(t, w)
			w.write(t, filepath.Join(w.home, ".config/sesame/config.yaml"), "amp: {modes: {quick: nope}}")
			return nil
		}, warned: []string{"modes.quick"}, summary: "nope", remedy: "`sesame modes`"},
		{name: "the user's settings of Amp are broken", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			native(t, w)
			w.write(t, filepath.Join(w.home, ".config/amp/settings.json"), "{broken")
			return nil
		}, exit: 1, failed: []string{"modes.settings"}, code: fault.Usage, summary: "settings.json"},
		{name: "Amp that is something else", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.install(t)
			return nil
		}, exit: 1, failed: []string{"modes.known"}, warned: []string{"modes.settings"}, code: fault.Usage, summary: "is not Amp"},
		{name: "the key passed by another name", spoil: func(_ *testing.T, w *world, s *amptest.Service) []string {
			w.env["MY_KEY"] = "x" + s.Key()
			return []string{"--pass-env", "MY_KEY"}
		}, exit: 1, failed: []string{"sandbox.key"}, code: fault.SandboxUnavailable, summary: "the key can be seen inside: /proc/", remedy: "do not run a turn here"},
		{name: "the key is exposed", spoil: func(*testing.T, *world, *amptest.Service) []string {
			return []string{"--expose-key"}
		}, warned: []string{"sandbox.key"}, summary: "--expose-key", remedy: "leave it out"},
		{name: "home that cannot be copied on write", spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
			w.env["HOME"], w.env["XDG_CONFIG_HOME"], w.env["XDG_CACHE_HOME"], w.env["XDG_STATE_HOME"] = "/proc/sys/kernel", w.home, w.home, w.home
			return []string{"--sandbox", "namespaces"}
		}, exit: 1, failed: []string{"sandbox.tier"}, code: fault.SandboxUnavailable, summary: "cannot be shown copy-on-write", remedy: "set HOME"},
		{name: "a session is broken", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.write(t, filepath.Join(w.home, ".local/state/sesame/sessions/20260102-030405-abcd/session.json"), "{broken")
			return nil
		}, warned: []string{"sessions.store"}, summary: "1 of 1 sessions cannot be read", remedy: "`sesame sessions rm 20260102-030405-abcd`"},
		{name: "the sessions are a file", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.write(t, filepath.Join(w.home, ".local/state/sesame/sessions"), "")
			return nil
		}, exit: 1, failed: []string{"sessions.store"}, code: fault.Internal, summary: "not a directory", remedy: "may read and write"},
		{name: "how the last turn ended is broken", spoil: func(t *testing.T, w *world, _ *amptest.Service) []string {
			w.write(t, filepath.Join(w.home, ".local/state/sesame/last-failure.json"), "{")
			return nil
		}, warned: []string{"sessions.last"}, summary: "cannot be read"},
		{name: "no git and no ripgrep", spoil: func(_ *testing.T, w *world, _ *amptest.Service) []string {
			w.env["PATH"] = filepath.Join(w.home, "bin")
			return nil
		}, warned: []string{"tools.git", "tools.rg"}, summary: "Amp cannot see what changed", remedy: "install git"},
	}
	for _, test := range tests {
		t.Run(test.name, test.test)
	}
}

func loosen(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // that is the fault
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// install puts what the world's source has into its cache.
func (w *world) install(t *testing.T) string {
	t.Helper()
	w.out.Reset()
	if code := w.run(t, "amp", "install"); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	return strings.TrimSpace(w.out.String())
}

// TestDoctorElsewhere makes the doctor's surroundings wrong by the kernel's own means.
func TestDoctorElsewhere(t *testing.T) {
	sesame, err := exec.LookPath("sesame")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		doctorFault
		unshare, prepare, args string
	}{
		{
			doctorFault{name: "disk full", exit: 1, failed: []string{"config.disk"}, code: fault.Internal, summary: "is full", remedy: "`sesame amp prune`"},
			"-rm", "export XDG_CACHE_HOME=$PWD/../disk; mkdir $XDG_CACHE_HOME; mount -t tmpfs -o size=1m none $XDG_CACHE_HOME && ! dd if=/dev/zero of=$XDG_CACHE_HOME/x bs=64k 2>/dev/null", "",
		},
		{
			doctorFault{name: "disk nearly full", warned: []string{"config.disk"}, summary: "little is left", remedy: "prune"},
			"-rm", "export XDG_STATE_HOME=$PWD/../disk; mkdir $XDG_STATE_HOME; mount -t tmpfs -o size=200m none $XDG_STATE_HOME", "",
		},
		{
			// The next tier is taken, and all that it is attacked with holds.
			doctorFault{name: "a mount in the home", warned: []string{"sandbox.tier"}, summary: "landlock", remedy: "set HOME to a directory"},
			"-rm", "mkdir -p $HOME/x && mount -t tmpfs none $HOME/x", "",
		},
		{
			doctorFault{name: "read-only disk", exit: 1, failed: []string{"config.dirs"}, code: fault.Internal, summary: "read-only file system", remedy: "XDG_STATE_HOME"},
			"-rm", "mount --bind $HOME $HOME && mount -o remount,bind,ro $HOME", "",
		},
		{
			doctorFault{name: "no network", exit: 1, failed: []string{"service.tcp"}, code: fault.ServiceUnreachable, summary: "takes no connection"},
			"-rn", "true", "",
		},
		{
			doctorFault{name: "no user namespaces", exit: 1, failed: []string{"sandbox.tier"}, code: fault.SandboxUnavailable, summary: "no more user namespaces", remedy: "`sudo sysctl -w user.max_user_namespaces=15000`"},
			"-r", "echo 0 >/proc/sys/user/max_user_namespaces", "--sandbox namespaces",
		},
		{
			doctorFault{
				name: "root without a capability", exit: 1, failed: []string{"sandbox.tier"}, code: fault.SandboxUnavailable,
				summary: "without the capability setfcap", remedy: "SETFCAP",
			},
			"-r", "set -- setpriv --inh-caps=-setfcap --bounding-set=-setfcap", "--sandbox namespaces",
		},
		{
			doctorFault{name: "no temporary directory", exit: 0, warned: []string{"config.files"}, summary: "SESAME_NOPE"},
			"-r", "export TMPDIR=/nonexistent SESAME_NOPE=1", "",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, s := newPatientWorld(t)
			w.env["AMP_URL"] = s.URL()
			cmd := exec.CommandContext(t.Context(), "unshare", test.unshare, "sh", "-ec", test.prepare+"; exec \"$@\" \"$0\" doctor --json "+test.args, sesame)
			cmd.Env, cmd.Dir = w.env.List(), w.cwd
			out, err := cmd.Output()
			code := cmd.ProcessState.ExitCode()
			var r doctorReport
			if jsonErr := json.Unmarshal(out, &r); jsonErr != nil {
				t.Fatalf("%v, %v: %s", err, jsonErr, out)
			}
			test.judge(t, r, code)
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}

// --fix mends what is safe to mend, says so, and leaves a patient that is well.
func TestDoctorFix(t *testing.T) {
	w, _ := newPatientWorld(t)
	delete(w.env, "AMP_API_KEY")
	w.write(t, w.keys().Path, `{"schema_version":1,"keys":{}}`)
	if err := os.Chmod(w.keys().Path, 0o644); err != nil { //nolint:gosec // that is the fault
		t.Fatal(err)
	}
	loosen(t, filepath.Join(w.home, ".local/state/sesame"))
	r, code := w.examine(t, "--fix", "--only", "config", "--only", "key", "--only", "amp.cached")
	want := []string{"config.dirs: chmod 700 ", "key.found: chmod 600 ", "amp.cached: fetched Amp"}
	for i, line := range r.Mended {
		if i >= len(want) || !strings.HasPrefix(line, want[i]) {
			t.Errorf("mended %q", r.Mended)
		}
	}
	if code != 4 || len(r.Mended) != len(want) || !slices.Equal(r.in(check.Fail), []string{"key.found"}) || r.Checks["key.found"].Code != fault.KeyMissing || len(r.in(check.Warn)) > 0 {
		t.Errorf("exit %d: %s", code, w.out)
	}
	if r, _ := w.examine(t, "--fix", "--only", "config"); len(r.Mended) > 0 {
		t.Errorf("again: %q", r.Mended)
	}
	if code := w.doctor(t, "--fix", "--offline"); code != 2 {
		t.Errorf("--offline: exit %d", code)
	}
}

// After a turn that failed the doctor begins with it, and names the check that explains it.
func TestDoctorLeadsWithTheLastTurn(t *testing.T) {
	w, s := newPatientWorld(t)
	w.env["AMP_API_KEY"] = "wrong-key"
	w.env["SESAME_AMP_PATH"] = amptest.Builds()[0].InstallT(t, nil)
	if code := w.run(t, "run", "hello"); code != 4 || !strings.Contains(w.errOut.String(), "hint: `sesame doctor --only key.accepted` looks into it") {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	if code := w.doctor(t, "--only", "key", "--only", "sessions"); code != 4 {
		t.Errorf("exit %d", code)
	}
	_, body, _ := strings.Cut(w.out.String(), "\n\n")
	if !strings.HasPrefix(body, "the last turn\n") || !strings.Contains(body, "see key.accepted below") || !strings.Contains(body, "rejected the key") {
		t.Errorf("got %s", w.out)
	}
	w.env["AMP_API_KEY"] = s.Key()
	if code := w.run(t, "run", "hello"); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	if r, _ := w.examine(t, "--only", "sessions"); r.Checks["sessions.last"].Status != check.OK {
		t.Errorf("after a good turn: %+v", r.Checks["sessions.last"])
	}
}

// --probe asks each mode for a real turn.
func TestDoctorProbe(t *testing.T) {
	w, s := newPatientWorld(t)
	w.env["SESAME_AMP_PATH"] = amptest.Builds()[2].InstallT(t, nativeAmp)
	code := w.doctor(t, "--probe", "--only", "probe.deep", "--json")
	if code != 0 || !strings.Contains(w.errOut.String(), "that may cost") || !strings.Contains(w.out.String(), `"probe.deep":{"group":"real turns","title":"deep","status":"ok"`) {
		t.Errorf("exit %d: %s%s", code, w.out, w.errOut)
	}
	s.SetFaults(amptest.Faults{ThreadActorsStatus: 402, ThreadActorsMessage: "no credit for deep"})
	code = w.doctor(t, "--probe", "--only", "probe.deep", "--json")
	if code != 1 || !strings.Contains(w.out.String(), "no credit for deep") || !strings.Contains(w.out.String(), "does your account have access to deep mode?") {
		t.Errorf("exit %d: %s", code, w.out)
	}
	if entries, err := os.ReadDir(filepath.Join(w.home, ".local/state")); err == nil && len(entries) > 0 {
		t.Errorf("left %v", entries)
	}
}

// Each kind of failure has a check that is really there.
func TestExplains(t *testing.T) {
	w, _ := newPatientWorld(t)
	p, cleanUp := (&doctorOptions{app: w.app, cmd: newDoctorCmd(w.app, nil), executable: os.Executable}).patient()
	defer cleanUp()
	for _, code := range []fault.Code{
		fault.KeyMissing, fault.KeyRejected, fault.ModeUnavailable, fault.ServiceUnreachable, fault.BootstrapFailed, fault.SandboxUnavailable,
		fault.AmpCrashed, fault.TurnFailed, fault.Timeout, fault.SessionNotFound, fault.SessionBusy, fault.Internal,
	} {
		if _, unknown := check.Select(p.checks(), []string{explains(code)}); len(unknown) > 0 {
			t.Errorf("%s: %q is no check", code, explains(code))
		}
	}
}

// --watch shows what changed, and nothing while nothing does.
func TestDoctorWatch(t *testing.T) {
	w, _ := newPatientWorld(t)
	dir := filepath.Join(w.home, ".config/sesame")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	looks := 0
	w.io.flush = func() { looks++ } // after each change that was shown
	cmd := newDoctorCmd(w.app, func(ctx context.Context, o *doctorOptions) error {
		o.pause = 20 * time.Millisecond
		return doctorRun(ctx, o)
	})
	w.globalFlags(cmd.PersistentFlags())
	cmd.SetArgs([]string{"--watch", "--only", "config"})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	go func() {
		time.Sleep(200 * time.Millisecond)
		_ = os.Chmod(dir, 0o777) //nolint:gosec // that is the change
		time.Sleep(300 * time.Millisecond)
		stop()
	}()
	err := cmd.ExecuteContext(ctx)
	if !errors.Is(err, context.Canceled) || looks != 1 {
		t.Errorf("%d changes, %v", looks, err)
	}
	_, later, found := strings.Cut(w.out.String(), "4 ok")
	if !found || strings.Count(later, "directories") != 1 || strings.Contains(later, "workspace") {
		t.Errorf("got %s", w.out)
	}
}
