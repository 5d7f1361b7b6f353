package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

// configuredPaths are the paths in the workspace from which the user's git takes hooks, commands or more configuration, by the
// configuration of a repository and one of its worktrees so far: core.hooksPath, include.path and includeIf.*.path, what commandSettings
// names, and the user's own files if they are there (git-config(1)).
func (p *Policy) configuredPaths(workspace, worktree, gitDir string, resolve func(path string) string) []string {
	c := gitConfig{workspace: workspace, worktree: worktree, home: p.Home, resolve: resolve, seen: map[string]bool{}}
	c.read(filepath.Join(gitDir, "config"))
	c.read(filepath.Join(gitDir, "config.worktree"))
	files := []string{"/etc/gitconfig", p.GitEnv["GIT_CONFIG_SYSTEM"], p.GitEnv["GIT_CONFIG_GLOBAL"]}
	if p.Home != "" {
		files = append(files, filepath.Join(p.Home, ".gitconfig"), filepath.Join(p.Home, ".config", "git", "config"))
	}
	if xdg := p.GitEnv["XDG_CONFIG_HOME"]; xdg != "" {
		files = append(files, filepath.Join(xdg, "git", "config"))
	}
	for _, file := range files {
		if filepath.IsAbs(file) {
			c.note(file)
			c.read(file)
		}
	}
	count, _ := strconv.Atoi(p.GitEnv["GIT_CONFIG_COUNT"])
	for i := range min(count, maxVariables) {
		section, key, _ := strings.Cut(strings.ToLower(p.GitEnv["GIT_CONFIG_KEY_"+strconv.Itoa(i)]), ".")
		c.setting(section, key[strings.LastIndexByte(key, '.')+1:], p.GitEnv["GIT_CONFIG_VALUE_"+strconv.Itoa(i)], worktree)
	}
	return c.found
}

// Bounds of what is read of the user's git.
const (
	maxIncludes  = 20
	maxVariables = 100
)

type gitConfig struct {
	workspace, worktree, home string
	resolve                   func(path string) string
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
	data, err := readSmall(c.resolve(file))
	if err != nil {
		return
	}
	eachSetting(string(data), func(section, key, value string) { c.setting(section, key, value, filepath.Dir(file)) })
}

// setting follows a setting of a file in dir.
func (c *gitConfig) setting(section, key, value, dir string) {
	switch {
	case section == "core" && key == "hookspath":
		if path := c.path(value, c.worktree); path != "" {
			c.note(path)
		}
	case strings.HasPrefix(section, "include") && key == "path":
		if path := c.path(value, dir); path != "" {
			c.note(path)
			c.read(path)
		}
	case section == "pager", slices.Contains(commandSettings[section], key):
		c.command(strings.TrimPrefix(value, "!"))
	}
}

// commandSettings are those whose values git executes unasked, by section, beside all of pager. Who uses an alias asks for it, as who
// builds.
var commandSettings = map[string][]string{
	"browser": {"cmd", "path"}, "difftool": {"cmd", "path"}, "guitool": {"cmd"}, "man": {"cmd", "path"}, "mergetool": {"cmd", "path"},
	"core":        {"fsmonitor", "sshcommand", "editor", "pager", "askpass", "gitproxy", "alternaterefscommand"},
	"credential":  {"helper"},
	"diff":        {"external", "command", "textconv"},
	"filter":      {"clean", "smudge", "process"},
	"gc":          {"recentobjectshook"},
	"gpg":         {"program", "defaultkeycommand"},
	"hook":        {"command"},
	"imap":        {"tunnel"},
	"instaweb":    {"httpd"},
	"interactive": {"difffilter"},
	"lfs":         {"path"},
	"merge":       {"driver"},
	"remote":      {"uploadpack", "receivepack"},
	"sendemail":   {"smtpserver", "sendmailcmd", "tocmd", "cccmd", "headercmd"},
	"sequence":    {"editor"},
	"submodule":   {"update"},
	"tar":         {"command"},
	"trailer":     {"command", "cmd"},
	"uploadpack":  {"packobjectshook"},
}

// command notes what of the workspace a command is, or is given to run: git has most of them run by a shell, in the worktree. What such a
// program runs in turn is not known.
func (c *gitConfig) command(value string) {
	before := ""
	for i, word := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t\n\"'`;&|()<>={}", r) }) {
		if i == 0 && strings.Contains(word, "/") { // else it is looked for in PATH
			c.note(c.path(word, c.worktree))
		}
		// What stands behind `$(git rev-parse --show-toplevel)` is below that.
		for _, path := range slices.Compact([]string{c.path(word, c.worktree), filepath.Join(c.worktree, word)}) {
			info, err := os.Stat(path)
			if err == nil && info.Mode().IsRegular() && (slices.Contains(interpreters, before) || strings.Contains(word, "/") && info.Mode()&0o111 != 0) {
				c.note(path)
			}
		}
		if word[0] != '-' { // an option of the interpreter's
			before = strings.TrimRight(filepath.Base(word), "0123456789.")
		}
	}
}

// interpreters execute the file that they are given first.
var interpreters = []string{"sh", "bash", "dash", "zsh", "fish", "python", "node", "deno", "bun", "ruby", "perl", "php", "lua", "awk", "env"}

// path is what git takes a value for that is the name of a file; "" for none.
func (c *gitConfig) path(value, dir string) string {
	value = strings.TrimPrefix(value, ":(optional)")
	if value == "" {
		return ""
	}
	if rest, ok := strings.CutPrefix(value, "~"); ok {
		name, rest, _ := strings.Cut(rest, "/")
		home := c.home
		if name != "" {
			home = homeOfUser(name)
		}
		return filepath.Join(home, rest)
	}
	if !filepath.IsAbs(value) {
		value = filepath.Join(dir, value)
	}
	return filepath.Clean(value)
}

// note adds a path if it is in the workspace, by its name or by where it leads.
func (c *gitConfig) note(path string) {
	for _, path := range []string{path, c.resolve(path)} {
		// A whole worktree as a directory of hooks would leave nothing to write.
		if within(path, c.workspace) && !within(c.worktree, path) && !slices.Contains(c.found, path) {
			c.found = append(c.found, path)
		}
	}
}

// homeOfUser is a user's home, "" if it is not known.
func homeOfUser(name string) string {
	users, _ := users() // as far as they are known
	for _, u := range users {
		if u.name == name {
			return u.home
		}
	}
	return ""
}

// eachSetting calls f for each setting of a configuration, as git reads it, with the section and the key in small letters.
func eachSetting(text string, f func(section, key, value string)) {
	text = strings.TrimPrefix(strings.ReplaceAll(text, "\r\n", "\n"), "\ufeff")
	section := ""
	for {
		if text = strings.TrimLeft(text, " \t\n\r\v\f"); text == "" {
			return
		}
		switch text[0] {
		case '#', ';':
			_, text, _ = strings.Cut(text, "\n")
		case '[':
			end := endOfSection(text)
			section = strings.ToLower(text[1:end])
			if i := strings.IndexAny(section, " \t\".]"); i >= 0 {
				section = section[:i]
			}
			text = text[end:]
		default:
			end := strings.IndexAny(text, "=\n")
			if end < 0 {
				end = len(text)
			}
			key, value := strings.ToLower(strings.TrimSpace(text[:end])), ""
			if text = text[end:]; strings.HasPrefix(text, "=") {
				value, text = readSetting(text[1:])
			}
			f(section, key, value)
		}
	}
}

// endOfSection is where the header of a section ends, with which text begins.
func endOfSection(text string) int {
	quoted := false
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted:
			return i + 1
		}
	}
	return len(text)
}

// readSetting reads a value, which may go on in further lines, be quoted in part and have a comment behind it.
func readSetting(text string) (value, rest string) {
	var b strings.Builder
	quoted, size := false, 0 // without the blanks at its end
	i := 0
	for ; i < len(text) && text[i] != '\n'; i++ {
		c := text[i]
		switch {
		case c == '"':
			quoted = !quoted
			continue
		case (c == '#' || c == ';') && !quoted:
			_, rest, _ = strings.Cut(text[i:], "\n")
			return b.String()[:size], rest
		case (c == ' ' || c == '\t') && !quoted:
			if b.Len() > 0 {
				b.WriteByte(c)
			}
			continue
		case c == '\\' && i+1 < len(text):
			i++
			if text[i] == '\n' {
				continue
			}
			c = strings.NewReplacer("n", "\n", "t", "\t", "b", "\b").Replace(text[i : i+1])[0]
		}
		b.WriteByte(c)
		size = b.Len()
	}
	return b.String()[:size], text[i:]
}
