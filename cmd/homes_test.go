//go:build unix

package cmd

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// What the sandbox kept of a home goes when no session is of its workspace any more.
func TestPruneHomes(t *testing.T) {
	w := newWorld(t)
	dirs, err := w.dirs()
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(w.home, "outside")
	if err := os.Mkdir(outside, 0o500); err != nil {
		t.Fatal(err)
	}
	home := func(workspace string) string {
		dir := homeState(dirs, workspace, sandbox.Standard)
		w.write(t, filepath.Join(dir, "upper", ".cache", "big"), strings.Repeat("x", 5000))
		w.write(t, filepath.Join(dir, "workspace"), workspace)
		w.write(t, filepath.Join(dir, "lock"), "")
		// What the kernel leaves of an overlay, and what a hostile command might.
		for _, err := range []error{
			os.MkdirAll(filepath.Join(dir, "work", "work"), 0o700),
			os.Chmod(filepath.Join(dir, "work", "work"), 0),
			os.Symlink(outside, filepath.Join(dir, "upper", "link")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	there := func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	}
	kept, freed, busy := home("/kept"), home("/freed"), home("/busy")
	// What a guard knows goes likewise, unless there is something left to do.
	guard := func(workspace, notes string) string {
		dir := sandbox.GuardDir(guardState(dirs), workspace)
		w.write(t, filepath.Join(dir, "to-sweep"), notes)
		return dir
	}
	owed := filepath.Join(w.home, "owed")
	if err := os.Mkdir(owed, 0o700); err != nil {
		t.Fatal(err)
	}
	keptGuard, freedGuard, owedGuard := guard("/kept", "\x00"), guard("/freed", "\x00"+strings.Repeat("x", 999)), guard(owed, "T"+owed+"\x00S1 0")
	half := filepath.Join(filepath.Dir(freed), removedHome+filepath.Base(homeState(dirs, "/half", sandbox.Standard)))
	if err := os.Rename(home("/half"), half); err != nil {
		t.Fatal(err)
	}
	alien := filepath.Join(filepath.Dir(freed), "notes")
	w.write(t, filepath.Join(alien, "x"), "x")
	w.sessionOf(t, "/kept", time.Hour, session.Success)
	bad := w.sessionOf(t, "/bad", time.Hour, session.Success)

	// While a session cannot be read, nobody knows what it needs.
	w.breakSession(t, bad)
	_, errOut := w.want(t, 0, "sessions", "prune")
	wantIn(t, errOut, "warning: what the sandbox kept of home directories stays", "removed 0 sessions, freed 0 B")
	if !there(freed) {
		t.Fatal("removed nevertheless")
	}
	w.want(t, 0, "sessions", "rm", bad)

	unlock, ok, err := lockHome(filepath.Join(busy, "lock"))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	linux, size := runtime.GOOS == "linux", "10.0 kB"
	if linux {
		size = "11.0 kB"
	}
	out, errOut := w.want(t, 0, "sessions", "prune", "--dry-run")
	if out != "" || errOut != "sesame: would remove 0 sessions and what the sandbox kept of the home for 2 workspaces, free "+size+"\n" || !there(freed) || !there(half) {
		t.Errorf("dry run: stdout %q, stderr %q, freed %v, half %v", out, errOut, there(freed), there(half))
	}
	out, errOut = w.want(t, 0, "sessions", "prune")
	if out != "" || errOut != "sesame: removed 0 sessions and what the sandbox kept of the home for 2 workspaces, freed "+size+"\n" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	if !there(keptGuard) || there(freedGuard) == linux || !there(owedGuard) {
		t.Errorf("guards: kept %v, freed %v, owed %v", there(keptGuard), there(freedGuard), there(owedGuard))
	}
	if !there(kept) || there(freed) || !there(busy) || there(half) || !there(alien) {
		t.Errorf("kept %v, freed %v, busy %v, half %v, alien %v", there(kept), there(freed), there(busy), there(half), there(alien))
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("a link was followed: %v, %v", info.Mode(), err)
	}
	unlock()

	// With its last session, and not before. What that frees is known before.
	id := w.sessionOf(t, "/kept", time.Hour, session.Success)
	out, _ = w.want(t, 0, "sessions", "show", id)
	wantIn(t, out, "5.0 kB kept for this workspace")
	out, _ = w.want(t, 0, "sessions", "show", id, "--json")
	wantIn(t, out, `"home_bytes":5006`)
	out, errOut = w.want(t, 0, "sessions", "prune", "--older-than", "0", "--dry-run")
	wantIn(t, out, id)
	wantIn(t, errOut, "would remove 2 sessions and what the sandbox kept of the home for 2 workspaces")
	if !there(kept) {
		t.Error("a dry run removed a home")
	}
	w.want(t, 0, "sessions", "show", id)
	w.want(t, 0, "sessions", "prune", "--older-than", "0")
	if there(kept) || there(busy) {
		t.Errorf("kept %v, busy %v", there(kept), there(busy))
	}
}
