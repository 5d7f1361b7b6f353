//go:build unix

package config

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// A FIFO in the place of a file must be refused, not waited for.
func TestFIFOs(t *testing.T) {
	m := newMachine(t)
	fifo := filepath.Join(m.workspace, ".sesame.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(m.options())
	wantUsage(t, err, "not a regular file")

	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	m.write(m.userFile(), "")
	if err := os.Remove(m.userFile()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(m.userFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(m.options())
	wantUsage(t, err, "not a regular file")

	store := KeyStore{Path: filepath.Join(t.TempDir(), "credentials.json")}
	if err := syscall.Mkfifo(store.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = store.Load(DefaultURL)
	wantUsage(t, err, "not a regular file")
}

func TestLooseCredentials(t *testing.T) {
	for _, mode := range []os.FileMode{0o604, 0o640, 0o620, 0o602, 0o644, 0o666} {
		store := savedStore(t)
		if err := os.Chmod(store.Path, mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := store.Load(DefaultURL)
		wantUsage(t, err, "other users may read or change it")
		if hints := fault.HintsOf(err); len(hints) != 1 || hints[0] != "chmod 600 "+store.Path {
			t.Errorf("mode %o: hints %q", mode, hints)
		}
		// Neither is it repaired in silence by the next login.
		if _, _, err := store.Save(DefaultURL, Credential{Key: mustKey(t, "another-key")}); err == nil {
			t.Errorf("mode %o: saved over it", mode)
		}
	}
	store := savedStore(t)
	if err := os.Chmod(filepath.Dir(store.Path), 0o777); err != nil {
		t.Fatal(err)
	}
	_, _, err := store.Load(DefaultURL)
	wantUsage(t, err, "other users may change it")
}

func TestCredentialsOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("as an ordinary user: a file of root's stands for another user's")
		info, err := os.Stat("/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		if why, _ := looseFile(info, "/etc/passwd"); why == "" {
			t.Error("root's file taken")
		}
		return
	}
	store := savedStore(t)
	if err := os.Chown(store.Path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	_, _, err := store.Load(DefaultURL)
	wantUsage(t, err, "belongs to another user (uid 12345)")
}

func TestStoredPrivately(t *testing.T) {
	store := savedStore(t)
	for path, want := range map[string]os.FileMode{store.Path: 0o600, filepath.Dir(store.Path): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
	}
}
