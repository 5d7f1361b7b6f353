package cmd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

const (
	oldAmp = "0.0.1770000000-gaaaaaa"
	midAmp = "0.0.1780000000-gbbbbbb"
	newAmp = "0.0.1790000000-gcccccc"
)

// mirror makes a directory with the versions, the last one the latest, and configures it.
func (w *world) mirror(t *testing.T, versions ...string) {
	t.Helper()
	platform, err := bootstrap.DetectPlatform(runtime.GOOS, runtime.GOARCH, "/")
	if err != nil {
		t.Fatal(err)
	}
	magic := map[string]string{"darwin": "\xcf\xfa\xed\xfe", "windows": "MZ"}[runtime.GOOS]
	if magic == "" {
		magic = "\x7fELF"
	}
	dir := t.TempDir()
	name := "amp-" + string(platform) + filepath.Ext(platform.Executable())
	for _, v := range versions {
		program := magic + strings.Repeat(v, 1000)
		sum := sha256.Sum256([]byte(program))
		w.write(t, filepath.Join(dir, v, name), program)
		w.write(t, filepath.Join(dir, v, string(platform)+"-amp.sha256"), hex.EncodeToString(sum[:]))
		w.write(t, filepath.Join(dir, "cli-version.txt"), v+"\n")
	}
	w.env["SESAME_AMP_SOURCES"] = dir
}

// want runs a command line, wants its exit code and returns what it printed.
func (w *world) want(t *testing.T, code int, args ...string) (out, errOut string) {
	t.Helper()
	w.out.Reset()
	w.errOut.Reset()
	if got := w.run(t, args...); got != code {
		t.Fatalf("sesame %s: exit %d, want %d: %s", strings.Join(args, " "), got, code, w.errOut)
	}
	return w.out.String(), w.errOut.String()
}

func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func TestAmpInstall(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, oldAmp, midAmp, newAmp)
	cache := filepath.Join(w.home, ".cache/sesame/amp")
	file := filepath.Join(cache, newAmp, "amp")

	_, errOut := w.want(t, 5, "amp", "path")
	wantIn(t, errOut, "amp is not in the cache", "hint: `sesame amp install` fetches it")
	_, errOut = w.want(t, 0, "amp", "list")
	wantIn(t, errOut, "no Amp in the cache")

	out, errOut := w.want(t, 0, "amp", "install")
	if out != file+"\n" {
		t.Errorf("stdout is %q", out)
	}
	wantIn(t, errOut, "sesame: fetching amp "+newAmp+" from ", " (22.0 kB)\n", "sesame: amp "+newAmp+" is in "+file+"\n")

	// The second time there is nothing to do, and nothing to say.
	if out, errOut = w.want(t, 0, "amp", "install", "latest"); out != file+"\n" || errOut != "" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	if out, errOut = w.want(t, 0, "-q", "amp", "install", oldAmp); errOut != "" || !strings.Contains(out, oldAmp) {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	if out, _ = w.want(t, 0, "amp", "path"); out != file+"\n" {
		t.Errorf("path is %q", out)
	}
	if out, _ = w.want(t, 0, "amp", "path", "--amp-version", oldAmp); !strings.Contains(out, oldAmp) {
		t.Errorf("path is %q", out)
	}
	if out, _ = w.want(t, 0, "amp", "version"); out != newAmp+"\n" {
		t.Errorf("version is %q", out)
	}
	w.env["SESAME_AMP_VERSION"] = midAmp
	if out, _ = w.want(t, 0, "amp", "install"); !strings.Contains(out, midAmp) {
		t.Errorf("the configured version is not what is installed: %q", out)
	}
}

func TestAmpInstallRefused(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, newAmp)
	_, errOut := w.want(t, 5, "amp", "install", oldAmp)
	wantIn(t, errOut, "sesame: bootstrap failed: no source has amp "+oldAmp, "hint: check the version")
	for _, bad := range []string{"../x", "nope", "-1"} {
		_, errOut = w.want(t, 2, "amp", "install", "--", bad)
		wantIn(t, errOut, "is no version of amp", "hint: a version looks like")
	}
	w.env["SESAME_AMP_SOURCES"] = "nonsense"
	w.want(t, 2, "amp", "install")
	if _, err := os.Stat(filepath.Join(w.home, ".cache/sesame/amp", oldAmp)); err == nil {
		t.Error("something was installed")
	}
}

// The pin is of the configured version, whatever it comes packed in.
func TestAmpPin(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, oldAmp, newAmp)
	w.want(t, 0, "amp", "install", newAmp)
	out, _ := w.want(t, 0, "amp", "version", "--json")
	var build ampBuild
	if err := json.Unmarshal([]byte(out), &build); err != nil {
		t.Fatal(err)
	}
	w.env["SESAME_AMP_SHA256"] = build.SHA256
	_, errOut := w.want(t, 2, "amp", "install")
	wantIn(t, errOut, "SESAME_AMP_SHA256: a digest is of one version", "hint: set amp.version")
	w.env["SESAME_AMP_VERSION"] = newAmp
	w.want(t, 0, "amp", "install")
	w.want(t, 0, "amp", "path")

	// Another file under the version's name is neither taken from the cache nor from a source.
	w.env["SESAME_AMP_SHA256"] = strings.Repeat("ab", 32)
	w.want(t, 5, "amp", "path")
	_, errOut = w.want(t, 5, "amp", "install")
	wantIn(t, errOut, "wrong sha256 of the pinned file", build.SHA256, "put its digest into amp.sha256")
	_, errOut = w.want(t, 5, "amp", "verify")
	wantIn(t, errOut, "wrong sha256 of the pinned file")
	own := w.write(t, "own", "#!/bin/sh\n")
	if err := os.Chmod(own, 0o700); err != nil {
		t.Fatal(err)
	}
	w.env["SESAME_AMP_PATH"] = own
	_, errOut = w.want(t, 5, "amp", "path")
	wantIn(t, errOut, "wrong sha256 of the pinned file")
	// It is not of other versions.
	w.want(t, 0, "amp", "install", oldAmp)
	w.want(t, 0, "amp", "list")
}

func TestAmpInstallJSON(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, newAmp)
	out, _ := w.want(t, 0, "amp", "install", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var subtypes []string
	for _, line := range lines {
		var e fetchEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Type != "sesame" {
			t.Fatalf("%q: %v", line, err)
		}
		subtypes = append(subtypes, e.Subtype)
	}
	if got := strings.Join(subtypes, " "); got != "fetch_started fetch_progress fetch_done installed" {
		t.Errorf("got %s", got)
	}
	wantIn(t, lines[0], `"version":"`+newAmp+`"`, `"size":22004`)
	wantIn(t, lines[len(lines)-1], `"schema_version":1`, `"sha256":"`, `"selected":true`)
}

// A newer Amp is looked for while one runs, and is what the next turn gets.
func TestRefreshAmp(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, oldAmp)
	w.want(t, 0, "amp", "install")
	w.mirror(t, oldAmp, newAmp)
	dirs, err := w.dirs()
	if err != nil {
		t.Fatal(err)
	}
	w.env["SESAME_AMP_UPDATE_INTERVAL"] = "0s"
	w.env["SESAME_AMP_KEEP_VERSIONS"] = "1"
	cfg, err := w.load(newModesCmd(w.app, nil), "")
	if err != nil {
		t.Fatal(err)
	}
	running, err := w.ensureAmp(t.Context(), cfg, dirs)
	if err != nil || running.Version != oldAmp {
		t.Fatalf("%+v, %v", running, err)
	}
	release := w.useAmp(cfg, dirs, running)
	w.errOut.Reset()
	stop := w.refreshAmp(t.Context(), cfg, dirs, running)
	for {
		if b, err := w.cachedAmp(cfg, dirs); err == nil && b.Version == newAmp {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("it never came")
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // it looks for what to prune
	stop()
	release()
	if got := w.errOut.String(); got != "sesame: amp "+newAmp+" is there for the next turn\n" {
		t.Errorf("it said %q", got)
	}
	if out, _ := w.want(t, 0, "amp", "list", "--json"); !strings.Contains(out, oldAmp) {
		t.Errorf("the one that ran was removed: %s", out)
	}

	// Offline there is one line about it.
	w.env["SESAME_AMP_SOURCES"] = filepath.Join(w.cwd, "nowhere")
	if cfg, err = w.load(newModesCmd(w.app, nil), ""); err != nil {
		t.Fatal(err)
	}
	w.errOut.Reset()
	stop = w.refreshAmp(t.Context(), cfg, dirs, running)
	time.Sleep(200 * time.Millisecond)
	stop()
	if got := w.errOut.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "sesame: warning: could not look for a newer amp, going on with "+oldAmp) {
		t.Errorf("it said %q", got)
	}
}

func TestAmpList(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, oldAmp, newAmp)
	if out, _ := w.want(t, 0, "amp", "list", "--json"); out != `{"schema_version":1,"builds":[]}`+"\n" {
		t.Errorf("empty: %s", out)
	}
	w.want(t, 0, "amp", "install", oldAmp)
	w.want(t, 0, "amp", "install", newAmp)
	out, _ := w.want(t, 0, "amp", "list")
	lines := strings.Split(out, "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], "*  "+newAmp) || !strings.HasPrefix(lines[2], "   "+oldAmp) ||
		!strings.HasSuffix(lines[1], "2026-09-21T14:13:20Z") {
		t.Errorf("list:\n%s", out)
	}
	out, _ = w.want(t, 0, "amp", "list", "--json")
	var list struct{ Builds []ampBuild }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	if b := list.Builds; len(b) != 2 || b[0].Version != newAmp || !b[0].Selected || b[1].Selected || len(b[0].SHA256) != 64 ||
		b[0].Size == 0 || b[0].Path != filepath.Join(w.home, ".cache/sesame/amp", newAmp, "amp") {
		t.Errorf("got %+v", b)
	}
	out, _ = w.want(t, 0, "amp", "version", "--json", "--amp-version", oldAmp)
	wantIn(t, out, `{"schema_version":1,"version":"`+oldAmp+`","path":"`, `"selected":true`)
}

func TestAmpVerify(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, oldAmp, newAmp)
	w.want(t, 0, "amp", "install", oldAmp)
	out, _ := w.want(t, 0, "amp", "install", newAmp)
	file := strings.TrimSpace(out)
	if out, _ = w.want(t, 0, "amp", "verify"); out != newAmp+" ok\n"+oldAmp+" ok\n" {
		t.Errorf("verify: %q", out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1]++ // of the same size, so that only a full look finds it
	for _, err := range []error{os.Chmod(file, 0o700), os.WriteFile(file, data, 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out, errOut := w.want(t, 5, "amp", "verify")
	if out != newAmp+" damaged\n"+oldAmp+" ok\n" {
		t.Errorf("verify: %q", out)
	}
	wantIn(t, errOut, "wrong sha256", "hint: `sesame amp install "+newAmp+"` fetches it again")
	w.want(t, 5, "amp", "verify", newAmp)
	if out, _ = w.want(t, 0, "amp", "verify", oldAmp); out != oldAmp+" ok\n" {
		t.Errorf("verify: %q", out)
	}
	_, errOut = w.want(t, 0, "amp", "install", newAmp)
	wantIn(t, errOut, "sesame: warning: the cached amp "+newAmp+" is damaged and is fetched again")
	w.want(t, 0, "amp", "verify", newAmp)
}

func TestAmpPrune(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, oldAmp, midAmp, newAmp)
	install := func() {
		t.Helper()
		for _, v := range []string{oldAmp, midAmp, newAmp} {
			w.want(t, 0, "amp", "install", v)
		}
	}
	install()
	out, errOut := w.want(t, 0, "amp", "prune")
	if out != oldAmp+"\n" || errOut != "sesame: removed 1 version, freed 22.0 kB\n" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	w.want(t, 2, "amp", "prune", "--keep-versions", "0")

	// The configured one stays, and so does the one that a session is using.
	install()
	w.env["SESAME_AMP_VERSION"] = oldAmp
	if out, _ = w.want(t, 0, "amp", "prune", "--keep-versions", "1"); out != midAmp+"\n" {
		t.Errorf("stdout %q", out)
	}
	delete(w.env, "SESAME_AMP_VERSION")
	install()
	s, err := w.sessionStore(t).Create(session.Record{Workspace: w.cwd, AmpVersion: oldAmp})
	if err != nil {
		t.Fatal(err)
	}
	if out, _ = w.want(t, 0, "amp", "prune", "--keep-versions", "1"); out != midAmp+"\n" {
		t.Errorf("stdout %q", out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, _ = w.want(t, 0, "amp", "prune", "--keep-versions", "1"); out != oldAmp+"\n" {
		t.Errorf("stdout %q", out)
	}
}

// An executable of the user's own, and which setting wins.
func TestAmpPath(t *testing.T) {
	w := newWorld(t)
	w.mirror(t, newAmp)
	script := w.write(t, "own", "#!/bin/sh\necho hello\n")
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, _ := w.want(t, 0, "amp", "path", "--amp-path", "own"); out != script+"\n" {
		t.Errorf("path is %q", out)
	}
	_, errOut := w.want(t, 2, "amp", "path", "--amp-path", "own", "--amp-version", newAmp)
	wantIn(t, errOut, "--amp-path and --amp-version: give one of them")
	_, errOut = w.want(t, 5, "amp", "path", "--amp-path", "missing")
	wantIn(t, errOut, "the amp executable", "missing")

	// What is no Amp is found out when its version is asked for.
	_, errOut = w.want(t, 2, "amp", "version", "--amp-path", "own", "--sandbox", "off")
	wantIn(t, errOut, "own is not Amp")

	w.want(t, 0, "amp", "install")
	w.env["SESAME_AMP_PATH"] = script
	if out, _ := w.want(t, 0, "amp", "path"); out != script+"\n" {
		t.Errorf("path is %q", out)
	}
	if out, _ := w.want(t, 0, "amp", "path", "--amp-version", "latest"); !strings.Contains(out, newAmp) {
		t.Errorf("a flag does not win over a variable: %q", out)
	}
	dirs, err := w.dirs()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := w.load(newAmpCmd(w.app, nil), "")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := w.ensureAmp(t.Context(), cfg, dirs); err != nil || b.Path != script || b.Version != "" {
		t.Errorf("got %+v, %v", b, err)
	}
	delete(w.env, "SESAME_AMP_PATH")
	if cfg, err = w.load(newAmpCmd(w.app, nil), ""); err != nil {
		t.Fatal(err)
	}
	if b, err := w.ensureAmp(t.Context(), cfg, dirs); err != nil || b.Version != newAmp {
		t.Errorf("got %+v, %v", b, err)
	}
}
