//go:build unix

package bootstrap_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// TestTamperedWithCache changes a byte and puts size and time back: it is not run.
func TestTamperedWithCache(t *testing.T) {
	in, _, s := filled(t, newVersion)
	b, err := in.Path(newVersion)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	good := program(newVersion)
	evil := slices.Clone(good)
	evil[len(evil)-2] ^= 1
	if err := errors.Join(os.Chmod(b.Path, 0o755), os.WriteFile(b.Path, evil, 0o755), os.Chmod(b.Path, 0o555), os.Chtimes(b.Path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	_, err = in.Path(newVersion)
	wantFault(t, err, fault.BootstrapFailed, "is not the file that was verified")
	var warned []string
	in = installer(t, bootstrap.Options{
		Dir: filepath.Dir(filepath.Dir(b.Path)), Sources: sources(t, bootstrap.Network{}, s.URL),
		Events: bootstrap.Events{Warning: func(m string) { warned = append(warned, m) }},
	})
	if b, err = in.Ensure(t.Context(), newVersion); err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, good)
	if len(warned) != 1 || !strings.Contains(warned[0], "is not the file that was verified") {
		t.Errorf("warnings %q", warned)
	}
}

// TestRestoredCache copies a cache, as CI does: it is hashed once and then as good as the first.
func TestRestoredCache(t *testing.T) {
	_, cache, s := filled(t, newVersion)
	copied := filepath.Join(t.TempDir(), "amp")
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", "-p", cache, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	record := filepath.Join(copied, newVersion, "amp.json")
	before, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	asked := s.total()
	in := installer(t, bootstrap.Options{Dir: copied, Sources: sources(t, bootstrap.Network{}, s.URL)})
	if _, err := in.Ensure(t.Context(), newVersion); err != nil || s.total() != asked {
		t.Errorf("asked %d times, %v", s.total()-asked, err)
	}
	after, err := os.ReadFile(record)
	if err != nil || string(after) == string(before) {
		t.Errorf("the copy was not noted, %v", err)
	}
}

// TestUsedVersionsStay has prune leave what another process runs.
func TestUsedVersionsStay(t *testing.T) {
	in, cache, _ := filled(t, oldVersion, newVersion)
	b, err := in.Path(oldVersion)
	if err != nil {
		t.Fatal(err)
	}
	release := in.Use(b)
	defer in.Use(b)() // two may run it
	other := installer(t, bootstrap.Options{Dir: cache})
	if removed, err := other.Prune(t.Context(), 1); err != nil || len(removed) != 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	release()
	if removed, err := other.Prune(t.Context(), 1); err != nil || len(removed) != 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
}

// TestUnfinishedIsSwept has prune remove what has not been resumed for a day.
func TestUnfinishedIsSwept(t *testing.T) {
	in, cache, _ := filled(t, newVersion)
	part := filepath.Join(cache, ".part-"+oldVersion)
	if err := os.Mkdir(part, 0o700); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(part, long, long); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Prune(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(part); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
