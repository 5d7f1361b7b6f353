package sandbox

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// guardedNames in the workspace make programs of the host execute what they say, later and without a question: editors,
// shells, agents, git and sesame itself. They are read-only.
var guardedNames = []string{
	".gitmodules", ".gitconfig", ".vscode", ".idea", ".zed", ".devcontainer", ".envrc", ".husky",
	".mcp.json", ".amp", ".claude", ".cursor", ".codex", ".gemini", ".sesame.yaml",
	".devcontainer.json", ".opencode", "opencode.json", "opencode.jsonc", ".kiro", ".windsurf", ".roo", ".continue", ".qwen", ".aider.conf.yml",
	".nvim.lua", ".nvimrc", ".exrc",
}

// guardedInGit likewise, in a git directory. modules are those of submodules, with all of this in them.
var guardedInGit = []string{"config", "config.worktree", "hooks", "info", "modules", "commondir"}

// GuardDir is the directory, below Policy.GuardState, of what the guard of a workspace knows.
func GuardDir(state, workspace string) string { return guardDirOf(state, guardNumber(workspace)) }

// guardDir is that of the policy's workspace, "" if nothing is kept.
func (p *Policy) guardDir() string {
	if p.GuardState == "" {
		return ""
	}
	return GuardDir(p.GuardState, p.Workspace)
}

func guardDirOf(state string, number int64) string {
	return filepath.Join(state, fmt.Sprintf("%016x", number))
}

// guardNumber stands for a workspace. It is never 0, and not all that numbers can be: a lock can be at each.
func guardNumber(workspace string) int64 {
	sum := sha256.Sum256([]byte(workspace))
	return int64(binary.BigEndian.Uint64(sum[:8])>>2 | 1)
}

// linkedWorktree finds the repository of a worktree by its .git file, and the worktree's own directory in it. The file may
// have come with a hostile workspace: it is believed only if the repository, too, names this worktree.
func linkedWorktree(dotGit string) (common, own string, ok bool) {
	own, err := filepath.EvalSymlinks(pathIn(dotGit, "gitdir: "))
	if err != nil || filepath.Base(filepath.Dir(own)) != "worktrees" {
		return "", "", false
	}
	common = filepath.Dir(filepath.Dir(own))
	back, there := pathIn(filepath.Join(own, "gitdir"), ""), pathIn(filepath.Join(own, "commondir"), "")
	return common, own, resolve(back) == resolve(dotGit) && resolve(there) == common && isDir(filepath.Join(common, "objects"))
}

// pathIn is the path that follows prefix in the first line of one of git's files, which means it from where that file is; ""
// if there is none.
func pathIn(file, prefix string) string {
	data, err := readSmall(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	path, ok := strings.CutPrefix(strings.TrimRight(line, "\r"), prefix)
	if !ok || path == "" {
		return ""
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	return path
}

// submodules are the paths that a .gitmodules file names.
func submodules(file string) []string {
	data, err := readSmall(file)
	if err != nil {
		return nil
	}
	var paths []string
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		name, path, ok := strings.Cut(lines.Text(), "=")
		if path = strings.TrimSpace(path); ok && strings.TrimSpace(name) == "path" && filepath.IsLocal(path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// maxSmall in bytes is what files are read to that git writes for itself.
const maxSmall = 1 << 20

// readSmall reads a regular file of at most a megabyte, whatever is put in its place meanwhile: to open a pipe must not wait for
// somebody who writes to it.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|noFollow, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s: not a file", path), err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		err = fmt.Errorf("%s: not a small file", path)
	}
	return data, err
}
