//go:build darwin || windows

package config

import (
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/adrg/xdg"
)

func homeOf(env Env) string {
	name := "HOME"
	if runtime.GOOS == "windows" {
		name = "USERPROFILE"
	}
	if home := env.Get(name); filepath.IsAbs(home) {
		return filepath.Clean(home)
	}
	return ""
}

// platformDirs has the platform's defaults, which adrg/xdg knows for the
// process's own home; they are moved to the home of the environment given.
func platformDirs(home string) Dirs {
	moved := func(dir string) string {
		if rest, ok := strings.CutPrefix(dir, xdg.Home); ok && home != "" {
			return filepath.Join(home, rest)
		}
		return dir
	}
	return Dirs{
		Config: moved(xdg.ConfigHome),
		Cache:  moved(xdg.CacheHome),
		State:  moved(xdg.StateHome),
		System: slices.Clone(xdg.ConfigDirs),
	}
}
