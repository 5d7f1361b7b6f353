package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestWorkspace(t *testing.T) {
	w := newWorld(t)
	w.write(t, "sub/file", "")
	outer := filepath.Dir(w.home)
	for _, path := range []string{
		filepath.Join(w.home, "project"), filepath.Join(w.home, ".config", "sesame", "x"),
		filepath.Join(outer, "with space\nand newline ü"),
	} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": "sub", "home-link": w.home, "root-link": "/", "dead": "nothing", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(w.cwd, link)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ cd, want, wantErr string }{
		{cd: "", want: w.cwd},
		{cd: "sub", want: filepath.Join(w.cwd, "sub")},
		{cd: "link/../sub/.", want: filepath.Join(w.cwd, "sub")},
		{cd: "link", want: filepath.Join(w.cwd, "sub")},
		{cd: filepath.Join(w.home, "project"), want: filepath.Join(w.home, "project")},
		{cd: "../with space\nand newline ü", want: filepath.Join(outer, "with space\nand newline ü")},

		{cd: "missing", wantErr: "missing: no such directory"},
		{cd: "dead", wantErr: "no such directory"},
		{cd: "loop", wantErr: "too many links"},
		{cd: "sub/file", wantErr: "not a directory"},
		{cd: "sub/file/x", wantErr: "not a directory"},
		{cd: "/", wantErr: "the root of the file system"},
		{cd: "root-link", wantErr: "the root of the file system"},
		{cd: w.home, wantErr: "it is your home directory"},
		{cd: "home-link", wantErr: "it is your home directory"},
		{cd: "..", wantErr: "your home directory is inside of it"},
		{cd: filepath.Join(w.home, ".config"), wantErr: "sesame keeps its own files in"},
		{cd: filepath.Join(w.home, ".config", "sesame", "x"), wantErr: "sesame keeps its own files in"},
	}
	dirs, err := w.dirs()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		w.cd = test.cd
		got, err := w.workspace(dirs)
		if test.wantErr == "" {
			if err != nil || got != test.want {
				t.Errorf("%q: got %q, %v", test.cd, got, err)
			}
		} else if fault.CodeOf(err) != fault.Usage || !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%q: got %q, %v", test.cd, got, err)
		}
	}
}

func TestWorkspaceWhereNoneIs(t *testing.T) {
	w := newWorld(t)
	w.cwd = ""
	dirs, err := w.dirs()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.workspace(dirs); fault.CodeOf(err) != fault.Usage {
		t.Errorf("got %v", err)
	}
}
