package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

// A work directory can be had fresh however the sandboxes before have ended.
func TestFreshWork(t *testing.T) {
	exchanged := freshWork
	replaced := func(state string) error {
		if err := emptyUsedWork(state); err != nil {
			return err
		}
		return replaceWork(filepath.Join(state, "work"), filepath.Join(state, usedWork))
	}
	for i, fresh := range []func(string) error{exchanged, exchanged, replaced, replaced} {
		state, used := t.TempDir(), i%2 == 1
		for _, dir := range []string{"work", usedWork} {
			if dir == usedWork && !used {
				continue
			}
			// As overlayfs leaves it, for nobody to enter.
			mark := filepath.Join(state, dir, "work", "incompat", "volatile")
			if err := os.MkdirAll(mark, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(mark, "dirty"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{mark, filepath.Dir(mark), filepath.Join(state, dir, "work")} {
				if err := os.Chmod(d, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := fresh(state); err != nil {
			t.Fatalf("used before: %v: %v", used, err)
		}
		if entries, err := os.ReadDir(filepath.Join(state, "work")); err != nil || len(entries) > 0 {
			t.Errorf("used before: %v: %v, %v", used, entries, err)
		}
		if err := emptyUsedWork(state); err != nil {
			t.Errorf("used before: %v: %v", used, err)
		}
		if entries, err := os.ReadDir(filepath.Join(state, usedWork)); err != nil || len(entries) > 0 {
			t.Errorf("used before: %v: still there: %v, %v", used, entries, err)
		}
	}
}
