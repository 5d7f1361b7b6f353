package cmd

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

// Where the host has no ripgrep, Amp gets one that works in the sandbox; where none can be had, the turn runs as well.
func TestE2ERipgrep(t *testing.T) {
	t.Parallel()
	m := newMachine(t, amptest.Builds()[2])
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	npm, err := bootstrap.ParseSources([]string{"npm"}, bootstrap.Network{Environ: os.Environ(), Home: home})
	if err != nil {
		t.Fatal(err)
	}
	in, err := bootstrap.New(bootstrap.Options{Dir: filepath.Join(t.TempDir(), "amp"), Sources: npm})
	if err != nil {
		t.Fatal(err)
	}
	real, err := in.Ripgrep(t.Context(), filepath.Join(t.TempDir(), "ripgrep"))
	if err != nil {
		t.Fatal(err)
	}
	platform, err := bootstrap.DetectPlatform("linux", runtime.GOARCH, "/")
	if err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	copyFile(t, real, filepath.Join(source, "ripgrep", "15.0.0", string(platform)+"-rg"))
	for name, test := range map[string]struct{ source, said string }{
		"fetched":        {source, "ripgrep 15.0.0"},
		"not to be had":  {t.TempDir(), "none"},
		"the host's own": {source, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			p := m.project(t)
			p.env["SESAME_AMP_SOURCES"] = test.source
			p.env["XDG_CACHE_HOME"] = t.TempDir()
			p.env["PATH"] = t.TempDir() // Amp's own shell has an absolute path
			if name == "the host's own" {
				copyFile(t, real, filepath.Join(p.env["PATH"], "rg"))
			}
			r := p.ok("run", "-o", "json", `RUN:if [ -n "$AMP_RIPGREP_PATH" ]; then "$AMP_RIPGREP_PATH" --version; else echo none; fi`).report()
			wantIn(t, r.Result, test.said)
		})
	}
}
