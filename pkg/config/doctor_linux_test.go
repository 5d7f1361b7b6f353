package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// A cache of root's is for all to use, unless more than root may write to it; nothing else of root's is.
func TestCheckDirsOfRoot(t *testing.T) {
	home := t.TempDir()
	own := Dirs{Home: home, Config: filepath.Join(home, "config"), State: filepath.Join(home, "state"), Cache: "/usr"}
	if r := resultOf(CheckDirs(own, nil)); r.Status != check.OK {
		t.Errorf("got %s %s", r.Status, r.Summary)
	}
	if os.Geteuid() != 0 { // whose own it is
		own.State = "/usr"
		if r := resultOf(CheckDirs(own, nil)); r.Status != check.Fail {
			t.Errorf("got %s %s", r.Status, r.Summary)
		}
		own.State, own.Cache = filepath.Join(home, "state"), "/tmp"
		if r := resultOf(CheckDirs(own, nil)); r.Status != check.Fail {
			t.Errorf("got %s %s", r.Status, r.Summary)
		}
	}
}
