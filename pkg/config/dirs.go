package config

import (
	"os"
	"path/filepath"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Dirs are the places where sesame keeps things. All are absolute; none needs to exist.
type Dirs struct {
	Home   string   // the user's home; "" where the environment names none
	Config string   // config.yaml and credentials.json
	Cache  string   // Amp's binaries, below amp/<version>
	State  string   // sessions and Amp's own data
	System []string // directories that may hold an administrator's config.yaml, most important first
}

// DirsOf finds the places from the environment: XDG_* where it is absolute (the
// specification wants relative ones ignored), the platform's default otherwise.
// Without a home and without the XDG_* that replace it the error is a fault.Usage.
func DirsOf(env Env) (Dirs, error) {
	home := homeOf(env)
	std := platformDirs(home)
	d := Dirs{Home: home, System: std.System}
	for _, place := range []struct {
		variable string
		standard string
		to       *string
	}{
		{"XDG_CONFIG_HOME", std.Config, &d.Config},
		{"XDG_CACHE_HOME", std.Cache, &d.Cache},
		{"XDG_STATE_HOME", std.State, &d.State},
	} {
		base := env.Get(place.variable)
		if !filepath.IsAbs(base) {
			base = place.standard
		}
		if !filepath.IsAbs(base) {
			return Dirs{Home: home}, fault.New(fault.Usage, "no home directory: HOME is not set to an absolute path").
				Hint("set HOME, or XDG_CONFIG_HOME, XDG_CACHE_HOME and XDG_STATE_HOME")
		}
		*place.to = filepath.Join(base, "sesame")
	}
	if list := absolutes(filepath.SplitList(env.Get("XDG_CONFIG_DIRS"))); len(list) > 0 {
		d.System = list
	}
	for i, dir := range d.System {
		d.System[i] = filepath.Join(dir, "sesame")
	}
	return d, nil
}

// Credentials is the file of the keys that `login` stores.
func (d Dirs) Credentials() string { return filepath.Join(d.Config, "credentials.json") }

// UserFile is the user's configuration file.
func (d Dirs) UserFile() string { return filepath.Join(d.Config, fileName) }

// Amp is the directory of Amp's binaries, one directory a version.
func (d Dirs) Amp() string { return filepath.Join(d.Cache, "amp") }

// Sessions is the directory of sessions, one directory each.
func (d Dirs) Sessions() string { return filepath.Join(d.State, "sessions") }

func absolutes(paths []string) []string {
	var abs []string
	for _, p := range paths {
		if filepath.IsAbs(p) {
			abs = append(abs, filepath.Clean(p))
		}
	}
	return abs
}

// MakePrivate makes a directory that only the user may enter, and its parents.
func MakePrivate(dir string) error { return os.MkdirAll(dir, 0o700) }
