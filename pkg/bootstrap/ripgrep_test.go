//go:build unix

package bootstrap_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

// TestRipgrep gets the real one from npm's registry, as npm is configured here.
func TestRipgrep(t *testing.T) {
	if testing.Short() && os.Getenv("CI") == "" {
		t.Skip("fetches 12 MB")
	}
	host, err := bootstrap.DetectPlatform(runtime.GOOS, runtime.GOARCH, "/")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	real := sources(t, bootstrap.Network{Environ: os.Environ(), Home: home, Timeouts: bootstrap.Timeouts{Latest: time.Minute}}, "npm")
	dir := filepath.Join(t.TempDir(), "ripgrep")
	in := installer(t, bootstrap.Options{Platform: host, Sources: real})
	path, err := in.Ripgrep(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	check := func(path string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "ripgrep 15.0.0") {
			t.Errorf("%v: %s", err, out)
		}
	}
	check(path)

	// The digests of the other platforms are those of real packages, too.
	for _, other := range []bootstrap.Platform{
		bootstrap.DarwinARM64, bootstrap.DarwinX64, bootstrap.LinuxARM64, bootstrap.LinuxX64, bootstrap.LinuxX64Baseline, bootstrap.WindowsX64,
	} {
		if _, err := installer(t, bootstrap.Options{Platform: other, Sources: real}).Ripgrep(t.Context(), filepath.Join(t.TempDir(), "ripgrep")); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}

	// The second time there is nothing to ask for; what was changed is not given to Amp.
	none := installer(t, bootstrap.Options{Platform: host})
	if again, err := none.Ripgrep(t.Context(), dir); err != nil || again != path {
		t.Errorf("%q, %v", again, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	damage(path)
	if bad, err := none.Ripgrep(t.Context(), dir); err == nil {
		t.Errorf("%s was taken", bad)
	}

	// A directory or a mirror that has it does without a network; one that has another file does not.
	mirror := t.TempDir()
	file := filepath.Join(mirror, "ripgrep", "15.0.0", string(host)+"-rg")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	for content, good := range map[string]bool{string(data): true, "#!/bin/sh\necho evil\n": false} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSite(t, httptest.NewServer)
		s.serve("/ripgrep/15.0.0/"+string(host)+"-rg", []byte(content))
		for _, source := range []string{mirror, s.URL} {
			local := installer(t, bootstrap.Options{Platform: host, Sources: sources(t, bootstrap.Network{}, source)})
			path, err := local.Ripgrep(t.Context(), filepath.Join(t.TempDir(), "ripgrep"))
			if (err == nil) != good {
				t.Errorf("%s: %q, %v, want %v", source, path, err, good)
			}
			if good && err == nil {
				check(path)
			}
		}
	}
}

// TestNoRipgrep has a registry without it be asked once a day.
func TestNoRipgrep(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	now := time.Now()
	in := installer(t, bootstrap.Options{
		Sources: sources(t, bootstrap.Network{Environ: []string{"npm_config_registry=" + s.URL}}, "npm"),
		Now:     func() time.Time { return now },
	})
	dir := filepath.Join(t.TempDir(), "ripgrep")
	for range 2 {
		if path, err := in.Ripgrep(t.Context(), dir); err == nil {
			t.Errorf("got %s", path)
		}
	}
	if s.total() != 1 {
		t.Errorf("asked %d times", s.total())
	}
	now = now.Add(25 * time.Hour)
	if _, err := in.Ripgrep(t.Context(), dir); err == nil || s.total() != 2 {
		t.Errorf("asked %d times, %v", s.total(), err)
	}
}
