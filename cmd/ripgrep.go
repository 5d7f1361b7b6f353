package cmd

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/sesame-cli/sesame/pkg/config"
)

// ripgrepLimit is how long a turn waits for ripgrep, without which only Amp's Grep fails.
const ripgrepLimit = 20 * time.Second

// ripgrep is one for Amp where the host has none, and "" where it has, or where none can be had.
func (a *app) ripgrep(ctx context.Context, cfg *config.Config, dirs config.Dirs) string {
	name := "rg"
	if runtime.GOOS == "windows" {
		name = "rg.exe"
	}
	for _, dir := range filepath.SplitList(a.env.Get("PATH")) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0) {
			return ""
		}
	}
	in, err := a.newInstaller(unpinned(cfg), dirs, &fetchProgress{app: a, background: true})
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, ripgrepLimit)
	defer cancel()
	path, err := in.Ripgrep(ctx, filepath.Join(dirs.Cache, "ripgrep"))
	if err != nil && cfg.Verbose {
		a.say("no ripgrep for Amp: %s", err)
	}
	return path
}
