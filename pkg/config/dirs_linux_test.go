package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestDirs(t *testing.T) {
	tests := []struct {
		name string
		env  Env
		want Dirs
	}{
		{"defaults", Env{"HOME": "/home/u/"}, Dirs{
			"/home/u", "/home/u/.config/sesame", "/home/u/.cache/sesame", "/home/u/.local/state/sesame", []string{"/etc/xdg/sesame"},
		}},
		{"all set", Env{
			"HOME": "/home/u", "XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "/k", "XDG_STATE_HOME": "/s", "XDG_CONFIG_DIRS": "/a:b:/d",
		}, Dirs{"/home/u", "/c/sesame", "/k/sesame", "/s/sesame", []string{"/a/sesame", "/d/sesame"}}},
		{"relative ones are ignored", Env{"HOME": "/h", "XDG_CONFIG_HOME": "c", "XDG_CONFIG_DIRS": "x"}, Dirs{
			"/h", "/h/.config/sesame", "/h/.cache/sesame", "/h/.local/state/sesame", []string{"/etc/xdg/sesame"},
		}},
		{"no home needed", Env{"XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "/k", "XDG_STATE_HOME": "/s"}, Dirs{
			"", "/c/sesame", "/k/sesame", "/s/sesame", []string{"/etc/xdg/sesame"},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := DirsOf(test.env)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, env := range []Env{{}, {"HOME": "relative"}} {
		if _, err := DirsOf(env); fault.CodeOf(err) != fault.Usage {
			t.Errorf("%v: %v", env, err)
		}
	}
}
