//go:build !darwin && !windows

package config

import "path/filepath"

func homeOf(env Env) string {
	if home := env.Get("HOME"); filepath.IsAbs(home) {
		return filepath.Clean(home)
	}
	return ""
}

// platformDirs computes the defaults of the XDG specification instead of asking
// adrg/xdg, which reads files and the process environment when it is loaded:
// that is time in every start of the sandbox, and not testable.
func platformDirs(home string) Dirs {
	d := Dirs{System: []string{"/etc/xdg"}}
	if home != "" {
		d.Config = filepath.Join(home, ".config")
		d.Cache = filepath.Join(home, ".cache")
		d.State = filepath.Join(home, ".local", "state")
	}
	return d
}
