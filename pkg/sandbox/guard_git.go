package sandbox

import (
	"os"
	"path/filepath"
	"strings"
)

// guardedInWorktree is what makes git look elsewhere for a repository, in the part of one that is a linked worktree's own.
var guardedInWorktree = []string{"gitdir", "commondir", "config.worktree"}

// maxWorktrees bounds what a git directory can make of a start.
const maxWorktrees = 1000

// worktreesOf are the directories in a git directory that belong to its linked worktrees.
func worktreesOf(gitDir string) []string {
	entries, err := os.ReadDir(filepath.Join(gitDir, "worktrees"))
	if err != nil {
		return nil // the usual case: none
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(gitDir, "worktrees", e.Name()))
		}
	}
	return dirs
}

// looksBare tells whether git may take a directory for a repository without a worktree, which it does where `.git` is none.
func looksBare(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "HEAD"))
	return err == nil
}

// configuredPaths are the paths in the workspace from which the user's git takes hooks or more configuration, by the
// configuration of a repository and one of its worktrees so far: core.hooksPath, include.path and includeIf.*.path (git-config(1)).
func configuredPaths(workspace, worktree, home, gitDir string) []string {
	c := gitConfig{workspace: workspace, worktree: worktree, home: home, seen: map[string]bool{}}
	c.read(filepath.Join(gitDir, "config"))
	c.read(filepath.Join(gitDir, "config.worktree"))
	c.read("/etc/gitconfig")
	if home != "" {
		c.read(filepath.Join(home, ".gitconfig"))
		c.read(filepath.Join(home, ".config", "git", "config"))
	}
	return c.found
}

// maxIncludes bounds how many files of configuration are read.
const maxIncludes = 20

type gitConfig struct {
	workspace, worktree, home string
	seen                      map[string]bool
	found                     []string
}

// read looks through a file of configuration. It need not understand all of it: a path too many is read-only, no more.
func (c *gitConfig) read(file string) {
	if c.seen[file] || len(c.seen) >= maxIncludes {
		return
	}
	c.seen[file] = true
	if _, err := os.Stat(file); err != nil {
		return // the usual case: there is none, and nothing to follow to it
	}
	data, err := readSmall(resolve(file))
	if err != nil {
		return
	}
	include := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if section, rest, ok := strings.Cut(line, "]"); ok && strings.HasPrefix(section, "[") {
			include = strings.HasPrefix(strings.ToLower(section), "[include")
			if line = strings.TrimSpace(rest); line == "" {
				continue
			}
		}
		key, value, _ := strings.Cut(line, "=")
		switch key = strings.ToLower(strings.TrimSpace(key)); {
		case key == "hookspath":
			c.note(value, c.worktree)
		case key == "path" && include:
			if path := c.note(value, filepath.Dir(file)); path != "" {
				c.read(path)
			}
		}
	}
}

// note adds the path that a value means, if it is in the workspace, and returns it.
func (c *gitConfig) note(value, dir string) string {
	value = strings.TrimSpace(value)
	if quoted, ok := strings.CutPrefix(value, `"`); ok {
		value, _, _ = strings.Cut(quoted, `"`)
	} else if i := strings.IndexAny(value, "#;"); i >= 0 {
		value = strings.TrimSpace(value[:i])
	}
	if value == "" {
		return ""
	}
	if rest, ok := strings.CutPrefix(value, "~/"); ok {
		value = filepath.Join(c.home, rest)
	} else if !filepath.IsAbs(value) {
		value = filepath.Join(dir, value)
	}
	// A whole worktree as a directory of hooks would leave nothing to write.
	if value = filepath.Clean(value); within(value, c.workspace) && !within(c.worktree, value) {
		c.found = append(c.found, value)
	}
	return value
}
