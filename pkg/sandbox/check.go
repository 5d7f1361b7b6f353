package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Check tells whether the policy makes sense on this host. Its errors are usage errors that name the rule.
func (p *Policy) Check() error {
	if err := p.checkWorkspace(); err != nil {
		return err
	}
	for _, list := range []struct {
		name      string
		paths     []string
		mustExist bool
	}{
		{"allow-read", p.AllowRead, true},
		{"allow-write", p.AllowWrite, true},
		{"deny-read", p.DenyRead, false},
	} {
		for _, path := range list.paths {
			if err := p.checkPath(path, list.mustExist); err != nil {
				return fault.New(fault.Usage, "%s %q: %w", list.name, path, err)
			}
		}
	}
	return nil
}

func (p *Policy) checkWorkspace() error {
	w := p.Workspace
	if !filepath.IsAbs(w) || filepath.Clean(w) != w {
		return fault.New(fault.Usage, "workspace %q: not an absolute path", w)
	}
	if real, err := filepath.EvalSymlinks(w); err != nil || real != w {
		return fault.New(fault.Usage, "workspace %q: not a directory, or its path goes through a link", w)
	}
	if w == "/" || p.Home != "" && within(p.Home, w) {
		return fault.New(fault.Usage, "workspace %s: it holds the home directory, which must stay protected", w).
			Hint("run in a project directory, or name one with -C")
	}
	return nil
}

func (p *Policy) checkPath(path string, mustExist bool) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return fmt.Errorf("not a clean absolute path")
	}
	for _, own := range []string{"/proc", "/dev", "/sys"} {
		if within(path, own) {
			return fmt.Errorf("the sandbox has its own %s", own)
		}
	}
	if path == "/run" || path == "/tmp" || path == "/var/tmp" {
		return fmt.Errorf("the sandbox has its own %s: name something in it", path)
	}
	if path == "/" || p.Home != "" && within(p.Home, path) {
		return fmt.Errorf("it holds the home directory: name something more precise")
	}
	if _, err := os.Stat(path); err != nil && mustExist {
		return err
	}
	return nil
}

// within tells whether path is dir or below it. Both are clean.
func within(path, dir string) bool {
	if dir == "/" {
		return true
	}
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// resolve follows the links of a path as far as it exists.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

// isReal tells whether a path is there and has no links in it.
func isReal(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return err == nil && real == path
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
