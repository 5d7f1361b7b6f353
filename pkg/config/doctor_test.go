//go:build !windows

package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func resultOf(c check.Check) check.Result { return c.Run(context.Background()) }

func TestCheckFiles(t *testing.T) {
	home := t.TempDir()
	dirs := Dirs{Home: home, Config: filepath.Join(home, "config")}
	load := func(content string, env Env) check.Result {
		if err := MakePrivate(dirs.Config); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dirs.UserFile(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return resultOf(CheckFiles(Load(Options{Dirs: dirs, Env: env, Dir: home})))
	}
	r := load("\namp: {args: [--token=secret]}\n", Env{"SESAME_MODE": "deep"})
	if r.Status != check.OK || r.Summary != dirs.UserFile() {
		t.Errorf("good: %+v", r)
	}
	details := strings.Join(r.Details, "\n")
	if want := "amp.args is set by " + dirs.UserFile() + ":2\nmode is set by SESAME_MODE"; details != want {
		t.Errorf("details: got %s\nwant %s", details, want)
	}
	r = load("mode: deep\nmod: x\n", nil)
	if r.Status != check.Fail || r.Code != fault.Usage || !strings.HasPrefix(r.Summary, dirs.UserFile()+":2: ") || len(r.Remedy) == 0 {
		t.Errorf("broken: %+v", r)
	}
	r = load("", Env{"SESAME_MODEE": "x"})
	if r.Status != check.Warn || !strings.Contains(r.Summary, "SESAME_MODEE") {
		t.Errorf("a slip: %+v", r)
	}
	if r = resultOf(CheckFiles(Load(Options{}))); r.Status != check.OK || !strings.Contains(r.Summary, "defaults") {
		t.Errorf("none: %+v", r)
	}
}

func TestCheckDirs(t *testing.T) {
	// Root may write to any directory: what is none, or on a file system that takes none, stands for those it may not.
	tests := []struct {
		name   string
		spoil  func(t *testing.T, d *Dirs)
		status check.Status
		want   string // of summary and remedy
	}{
		{"none exists yet", func(*testing.T, *Dirs) {}, check.OK, ""},
		{"all private", func(t *testing.T, d *Dirs) { makeDirs(t, 0o700, d.Config, d.Cache, d.State) }, check.OK, ""},
		{"loose", func(t *testing.T, d *Dirs) { makeDirs(t, 0o777, d.Config) }, check.Fail, "other users may change it (mode 0777)\n`chmod 700 "},
		{"no cache", func(t *testing.T, d *Dirs) { d.Cache = filepath.Join(os.DevNull, "x") }, check.Warn, "not a directory), so that Amp cannot be fetched\nlet /dev/null/x be"},
		{"no state", func(t *testing.T, d *Dirs) { d.State = filepath.Join(os.DevNull, "a", "b") }, check.Fail, "so that no session can be kept"},
		{"no state and loose", func(t *testing.T, d *Dirs) {
			d.State = os.DevNull
			makeDirs(t, 0o777, d.Config)
		}, check.Fail, "XDG_STATE_HOME"},
		{"link to nowhere", func(t *testing.T, d *Dirs) {
			makeDirs(t, 0o700, filepath.Dir(d.State))
			if err := os.Symlink("nowhere", d.State); err != nil {
				t.Fatal(err)
			}
		}, check.Fail, "a symbolic link to nowhere"},
		{"a file in its place", func(t *testing.T, d *Dirs) { d.State = os.DevNull }, check.Fail, "not a directory"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			home := t.TempDir()
			d := Dirs{Home: home, Config: home + "/.config/sesame", Cache: home + "/.cache/sesame", State: home + "/.state/sesame"}
			test.spoil(t, &d)
			r := resultOf(CheckDirs(d, nil))
			if got := r.Summary + "\n" + strings.Join(r.Remedy, "\n"); r.Status != test.status || !strings.Contains(got, test.want) {
				t.Errorf("got %s %s", r.Status, got)
			}
			if entries, err := os.ReadDir(home); test.name == "none exists yet" && (err != nil || len(entries) > 0) {
				t.Errorf("it made %v, %v", entries, err)
			}
		})
	}
	_, err := DirsOf(Env{})
	if r := resultOf(CheckDirs(Dirs{}, err)); r.Status != check.Fail || !strings.Contains(r.Summary, "HOME is not set") {
		t.Errorf("no home: %+v", r)
	}
}

func makeDirs(t *testing.T, mode os.FileMode, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := MakePrivate(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckKeyNamesTheSource(t *testing.T) {
	if r := resultOf(CheckKey(FromEnvironment, nil, "")); r.Status != check.OK || r.Summary != "in AMP_API_KEY" {
		t.Errorf("environment: %+v", r)
	}
	if r := resultOf(CheckKey("/c/credentials.json", nil, "")); r.Summary != "stored in /c/credentials.json" {
		t.Errorf("stored: %+v", r)
	}
	_, _, err := FindKey(Env{}, KeyStore{}, DefaultURL)
	if r := resultOf(CheckKey("", err, "")); r.Status != check.Fail || r.Code != fault.KeyMissing || r.Summary != "AMP_API_KEY not configured" || len(r.Remedy) == 0 {
		t.Errorf("none: %+v", r)
	}
}
