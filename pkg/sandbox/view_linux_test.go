package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A plan's own way of following links ends where the system's does, whether directories were listed before or not.
func TestViewFollowsLinksAsTheSystemDoes(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"a/b/c", "d"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(top, "a/file"), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"to-dir": "a/b", "to-file": "a/file", "slash": "a/b/", "file-slash": "a/file/", "up": "a/b/../..", "a/b/up": "..", "a/b/far": "../../to-dir/c/.././up/file",
		"absolute": top + "/a", "outside": "/etc", "nowhere": "a/none", "self": "self", "one": "two", "two": "one", "through-file": "a/file/x", "dot": ".", "chain": "absolute/b/up",
	} {
		if err := os.Symlink(text, filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	var paths []string
	for _, link := range []string{"", "a", "a/b", "a/b/up", "a/b/far", "a/file", "d", "to-dir", "to-file", "slash", "file-slash", "up", "absolute", "outside", "nowhere", "self", "one", "through-file", "dot", "chain", "none"} {
		for _, below := range []string{"", "b", "c", "file", "up", "a/b/far", "to-dir/up/b/c", "none/x"} {
			paths = append(paths, filepath.Join(top, link, below))
		}
	}
	bare, listed := newView(), newView()
	for _, dir := range []string{top, top + "/a", top + "/a/b", top + "/d"} {
		listed.list(dir)
	}
	for _, path := range paths {
		want, wantErr := filepath.EvalSymlinks(path)
		for name, v := range map[string]*view{"looked at": bare, "listed": listed} {
			if got, err := v.real(path); got != want || (err == nil) != (wantErr == nil) {
				t.Errorf("%s, %s: %q, %v instead of %q, %v", path, name, got, err, want, wantErr)
			}
			if got := v.resolve(path); got != resolve(path) {
				t.Errorf("%s, %s: resolved to %s instead of %s", path, name, got, resolve(path))
			}
		}
	}
	for dir, list := range listed.lists {
		entries, err := os.ReadDir(dir)
		if err != nil || list.err != nil || len(entries) != len(list.types) {
			t.Errorf("%s: %d of %d entries, %v, %v", dir, len(list.types), len(entries), list.err, err)
		}
		for _, e := range entries {
			info, err := e.Info()
			mode, lookErr := listed.lstat(filepath.Join(dir, e.Name()))
			if err != nil || lookErr != nil || list.types[e.Name()] != e.Type() || mode != info.Mode()&(fs.ModeType|fs.ModePerm) {
				t.Errorf("%s/%s: %v, %v instead of %v (%v, %v)", dir, e.Name(), list.types[e.Name()], mode, info.Mode(), lookErr, err)
			}
		}
	}
}
