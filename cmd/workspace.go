package cmd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// workspace is the directory that a turn works in: -C, or the current directory, with
// all symlinks resolved. What would put more than a project into Amp's hands is refused.
func (a *app) workspace(dirs config.Dirs) (string, error) {
	path := a.cd
	if path == "" {
		path = "."
	}
	path, err := a.absolute(path)
	if err != nil {
		return "", fault.New(fault.Usage, "workspace %w", err).Hint("go into a project's directory, or name one with -C")
	}
	real, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.Usage, "workspace %s: no such directory", path)
	case err != nil:
		return "", fault.New(fault.Usage, "workspace: %w", err)
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		return "", fault.New(fault.Usage, "workspace: %w", err)
	case !info.IsDir():
		return "", fault.New(fault.Usage, "workspace %s: not a directory", path)
	}
	if f, err := os.Open(real); err != nil {
		return "", fault.New(fault.Usage, "workspace: %w", err)
	} else if err := f.Close(); err != nil {
		return "", fault.New(fault.Usage, "workspace: %w", err)
	}
	if why := tooWide(real, dirs); why != "" {
		return "", fault.New(fault.Usage, "workspace %s: refused: %s", real, why).
			Hint("go into a project's directory, or name one with -C")
	}
	return real, nil
}

// tooWide says why a directory cannot be a workspace, "" when it can.
func tooWide(dir string, dirs config.Dirs) string {
	if filepath.Dir(dir) == dir {
		return "it is the root of the file system"
	}
	home := resolved(dirs.Home)
	switch {
	case home == "":
	case dir == home:
		return "it is your home directory, with everything in it"
	case within(home, dir):
		return "your home directory is inside of it"
	}
	// The agent could read the keys there, or change the program that runs next time.
	for _, own := range []string{dirs.Config, dirs.Cache, dirs.State} {
		if own = resolved(own); own != "" && (within(own, dir) || within(dir, own)) {
			return "sesame keeps its own files in " + own
		}
	}
	return ""
}

// resolved is the path without symlinks as far as it exists.
func resolved(path string) string {
	if path == "" {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolved(parent), filepath.Base(path))
}

// within tells whether path is dir or lies below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
