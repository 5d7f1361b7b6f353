package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config"
)

// realWorld is a world on this machine: with its programs, and with npm's registry as
// npm is configured here. Amp's builds stay from one test to the next.
func realWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	machine := config.ParseEnv(os.Environ())
	for name, value := range machine {
		upper := strings.ToUpper(name)
		if name == "PATH" || name == "LANG" || strings.HasPrefix(upper, "NPM_CONFIG_") || strings.HasSuffix(upper, "_PROXY") || strings.HasPrefix(name, "SSL_CERT_") {
			w.env[name] = value
		}
	}
	if w.env["NPM_CONFIG_USERCONFIG"] == "" && w.env["npm_config_userconfig"] == "" {
		w.env["NPM_CONFIG_USERCONFIG"] = filepath.Join(machine["HOME"], ".npmrc")
	}
	cache, err := amptest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	w.env["XDG_CACHE_HOME"] = filepath.Join(filepath.Dir(cache), "cmd")
	w.env["SESAME_AMP_SOURCES"] = "npm"
	if runtime.GOOS != "linux" {
		w.env["SESAME_SANDBOX_TIER"] = "off"
	}
	return w
}

// modesOf is what `sesame modes --json` says.
func (w *world) modesOf(t *testing.T, args ...string) (build modesAmp, rows map[string]amp.ModeRow) {
	t.Helper()
	out, _ := w.want(t, 0, append([]string{"modes", "--json"}, args...)...)
	var got struct {
		Amp   *modesAmp
		Modes []amp.ModeRow
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Amp == nil {
		t.Fatalf("%s: %v", out, err)
	}
	rows = map[string]amp.ModeRow{}
	for _, r := range got.Modes {
		rows[r.Name] = r
	}
	return *got.Amp, rows
}

// The newest native build, through the real registry: fetched, verified, and asked in
// the sandbox what it can do.
func TestRealAmpInstall(t *testing.T) {
	if testing.Short() && os.Getenv("CI") == "" {
		t.Skip("fetches about 40 MB")
	}
	w := realWorld(t)
	// At a terminal, so that a real fetch shows a real bar.
	w.io.ErrTerminal = true
	cached, err := filepath.Glob(filepath.Join(w.env["XDG_CACHE_HOME"], "sesame", "amp", "0*"))
	if err != nil {
		t.Fatal(err)
	}
	if code := w.run(t, "amp", "install"); code != 0 {
		if os.Getenv("CI") == "" {
			t.Skipf("NOT TESTED with a real Amp build, which cannot be had here: %s", w.errOut)
		}
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	path := strings.TrimSuffix(w.out.String(), "\n")
	version := filepath.Base(filepath.Dir(path))
	if !bootstrap.ValidVersion(version) || strings.Contains(path, "\n") {
		t.Fatalf("stdout is no path: %q", path)
	}
	if slices.Contains(cached, filepath.Dir(path)) {
		t.Log("it was there already")
	} else {
		wantIn(t, w.errOut.String(), "\rfetching amp ", "B/s) [", "\x1b[2K\r", "amp "+version+" is in "+path)
	}
	w.io.ErrTerminal = false
	if out, _ := w.want(t, 0, "amp", "verify", version); out != version+" ok\n" {
		t.Errorf("verify: %q", out)
	}
	if out, _ := w.want(t, 0, "amp", "version"); out != version+"\n" {
		t.Errorf("version: %q", out)
	}
	// By its path nothing is known of it: the build itself has to say.
	if out, _ := w.want(t, 0, "amp", "version", "--amp-path", path); out != version+"\n" {
		t.Errorf("version by path: %q", out)
	}
	build, rows := w.modesOf(t)
	if build.Version != version || build.Path != path {
		t.Errorf("got %+v", build)
	}
	for _, mode := range []string{"smart", "rush", "deep"} {
		if r := rows[mode]; !r.Available || r.AmpMode == "" || r.Purpose == "" || r.Model == "" {
			t.Errorf("got %+v", r)
		}
	}
	if rows["free"].Available {
		t.Errorf("got %+v", rows["free"])
	}
	out, _ := w.want(t, 0, "modes")
	wantIn(t, out, "ON AMP "+version+"\n", rows["smart"].AmpMode+"\n", "not available\n")
	w.env["SESAME_AMP_MODES"] = "mine=" + rows["deep"].AmpMode
	if _, rows := w.modesOf(t); rows["mine"].AmpMode != rows["deep"].AmpMode || rows["mine"].Purpose == "" {
		t.Errorf("got %+v", rows["mine"])
	}
}

// A JavaScript build, which knows the modes by their old names.
func TestRealAmpModesJavaScript(t *testing.T) {
	if testing.Short() && os.Getenv("CI") == "" {
		t.Skip("fetches a build of Amp")
	}
	path := amptest.Build{Name: "feb10-js", Version: amptest.Feb10JS}.InstallT(t, nil)
	w := realWorld(t)
	// Asked anew, not remembered from an earlier test.
	w.env["XDG_CACHE_HOME"] = t.TempDir()
	build, rows := w.modesOf(t, "--amp-path", path)
	if build.Version != amptest.Feb10JS || build.Path != path {
		t.Errorf("got %+v", build)
	}
	for _, mode := range []string{"smart", "rush", "deep", "free"} {
		if r := rows[mode]; !r.Available || r.AmpMode != mode {
			t.Errorf("got %+v", r)
		}
	}
	if out, _ := w.want(t, 0, "amp", "version", "--amp-path", path); out != amptest.Feb10JS+"\n" {
		t.Errorf("version: %q", out)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "sesame-probe-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
