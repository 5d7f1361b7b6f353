package bootstrap_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

// TestRealAmp installs the newest native build from npm's registry, as npm is
// configured here, and starts it. The cache stays for the next time.
func TestRealAmp(t *testing.T) {
	if testing.Short() && os.Getenv("CI") == "" {
		t.Skip("fetches about 40 MB")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("SESAME_TEST_CACHE")
	if dir == "" {
		if dir, err = os.UserCacheDir(); err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(dir, "sesame-test")
	}
	dir = filepath.Join(dir, "amp")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var started, done int
	in, err := bootstrap.New(bootstrap.Options{
		Dir:     dir,
		Sources: sources(t, bootstrap.Network{Environ: os.Environ(), Home: home, UserAgent: "sesame/test", Timeouts: bootstrap.Timeouts{Latest: time.Minute}}, "npm"),
		Events: bootstrap.Events{
			Started: func(s bootstrap.Started) { started++; t.Logf("%+v", s) },
			Done:    func(bootstrap.Binary) { done++ },
			Warning: func(m string) { t.Log(m) },
		},
		Timeouts: bootstrap.Timeouts{Latest: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	newest, err := in.Latest(ctx)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no registry can be reached: %v", err)
	}
	b, err := in.Install(ctx, newest)
	if err != nil {
		t.Fatal(err)
	}
	if b.Version != newest || b.Source != "npm" || b.Size < 10<<20 || started != done {
		t.Errorf("%+v, started %d, done %d", b, started, done)
	}
	if _, err := in.Verify(ctx, newest); err != nil {
		t.Error(err)
	}
	again, err := in.Ensure(ctx, newest)
	if err != nil || again != b {
		t.Errorf("%+v is not %+v, %v", again, b, err)
	}
	if _, err := bootstrap.FromPath(b.Path); err != nil {
		t.Error(err)
	}
	cmd := exec.CommandContext(ctx, b.Path, "--version")
	scratch := t.TempDir()
	cmd.Dir = scratch
	cmd.Env = []string{"HOME=" + scratch, "PATH=" + os.Getenv("PATH"), "AMP_SKIP_UPDATE_CHECK=1", "AMP_URL=http://127.0.0.1:9/"}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), newest) {
		t.Errorf("amp --version: %v: %s", err, out)
	}
}
