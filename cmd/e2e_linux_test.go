package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// TestE2E drives real builds of Amp in the real sandbox, as a user does: by the command line.
func TestE2E(t *testing.T) {
	tests := []struct {
		name string
		test func(*project)
		opts []amptest.Option
		once bool // what Amp is does not matter: with the native build only
	}{
		{name: "text", test: e2eText},
		{name: "prompt sources", test: e2ePrompts, once: true},
		{name: "json", test: e2eJSON},
		{name: "stream-json", test: e2eStreamJSON},
		{name: "tool", test: e2eTool},
		{name: "attack", test: e2eAttack},
		{name: "told", test: e2eTold},
		{name: "no sandbox", test: e2eNoSandbox},
		{name: "allowed host", test: e2eAllowedHost, once: true},
		{name: "home lasts", test: e2eHomeLasts, once: true},
		{name: "rush", test: e2eRush},
		{name: "deep", test: e2eDeep},
		{name: "modes refused", test: e2eModesRefused},
		{name: "continue", test: e2eContinue},
		{name: "options", test: e2eOptions},
		{name: "wrong key", test: e2eWrongKey},
		{name: "no key", test: e2eNoKey},
		{name: "service down", test: e2eServiceDown},
		{name: "model error", test: e2eModelError},
		{name: "out of credit", test: e2eOutOfCredit},
		{name: "timeout", test: e2eTimeout},
		{name: "key", test: e2eKey},
		{name: "key never enters", test: e2eKeyNeverEnters},
		{name: "key over TLS", test: e2eKeyOverTLS},
		{name: "key without shape", test: e2eShapelessKey, opts: []amptest.Option{amptest.WithKey(shapelessKey)}, once: true},
		{name: "SIGINT", test: func(p *project) { e2eSignal(p, syscall.SIGINT, 130) }},
		{name: "SIGTERM", test: func(p *project) { e2eSignal(p, syscall.SIGTERM, 143) }},
		{name: "signal in the first turn", test: e2eSignalInFirstTurn},
		{name: "signal in a tool", test: e2eSignalInTool},
		{name: "killed", test: e2eKilled},
		{name: "in use", test: e2eInUse, once: true},
	}
	for _, build := range amptest.Builds() {
		t.Run(build.Name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, build)
			for _, test := range tests {
				if test.once && !build.Native {
					continue
				}
				t.Run(test.name, func(t *testing.T) {
					t.Parallel()
					test.test(m.project(t, test.opts...))
				})
			}
		})
	}
}

// TestE2ELandlock drives real builds in the tier for machines that refuse user namespaces.
func TestE2ELandlock(t *testing.T) {
	tests := map[string]func(*project){
		"text": e2eText, "json": e2eJSON, "stream-json": e2eStreamJSON, "tool": e2eTool, "attack": e2eAttack, "told": e2eTold, "rush": e2eRush, "deep": e2eDeep,
		"continue": e2eContinue, "home lasts": e2eHomeLasts, "wrong key": e2eWrongKey, "service down": e2eServiceDown, "timeout": e2eTimeout, "key": e2eKey,
		"SIGTERM": func(p *project) { e2eSignal(p, syscall.SIGTERM, 143) }, "signal in a tool": e2eSignalInTool, "killed": e2eKilled,
		"key never enters": e2eKeyNeverEnters, "key over TLS": e2eKeyOverTLS,
	}
	for _, build := range amptest.Builds() {
		t.Run(build.Name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, build)
			for name, test := range tests {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					p := m.project(t)
					p.tier = sandbox.Landlock
					p.env["SESAME_SANDBOX_TIER"] = string(p.tier)
					test(p)
				})
			}
		})
	}
}

// TestE2EAsOrdinaryUser runs tests of the native build again as a user without privileges.
func TestE2EAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		return // all the others ran as one
	}
	t.Parallel()
	native := amptest.Builds()[2]
	if !native.Native {
		t.Fatalf("%s is no native build", native.Name)
	}
	amp := native.InstallT(t, nativeAmp)
	// Where everybody can go; the caches and go test's own directories are root's.
	dir, err := os.MkdirTemp("/var/cache", "sesame-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(t, dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "cmd.test")
	copyFile(t, self, exe)
	// With a version in the cache the user needs no registry.
	version := filepath.Dir(amp)
	cache := filepath.Join(dir, "test-cache", "amp")
	entries, err := os.ReadDir(version)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		copyFile(t, filepath.Join(version, e.Name()), filepath.Join(cache, filepath.Base(version), e.Name()))
	}
	tests := []string{"text", "tool", "attack", "key_never_enters", "key_over_TLS", "rush", "deep", "continue", "wrong_key", "service_down", "SIGINT", "SIGTERM", "signal_in_a_tool", "killed"}
	const uid = 31338
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.run", "^TestE2E(Landlock)?$/^"+native.Name+"$/^("+strings.Join(tests, "|")+")$")
	cmd.Dir = dir
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "XDG_") && !strings.HasPrefix(kv, "GOCOVERDIR=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+dir, "TMPDIR="+dir, "SESAME_TEST_CACHE="+filepath.Join(dir, "test-cache"), "CI=true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range tests {
		wantIn(t, string(out), "--- PASS: TestE2E/"+native.Name+"/"+name)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
}
