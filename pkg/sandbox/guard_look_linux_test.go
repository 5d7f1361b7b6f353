package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nested makes a repository with one commit in a directory of the workspace that no index names.
func (h *host) nested(dir string) {
	h.t.Helper()
	h.git(h.policy.Workspace, "init", "-q", dir)
	h.git(filepath.Join(h.policy.Workspace, dir), "commit", "-q", "--allow-empty", "-m", "first")
}

// gitOutside runs git on the host as the user would, in a directory of the workspace, and tells whether it executed what was planted.
func (h *host) gitOutside(in string, args ...string) (owned bool, says string) {
	h.t.Helper()
	file := filepath.Join(h.policy.Home, "src", "owned")
	if args == nil {
		args = []string{"status"}
	}
	cmd := exec.Command("git", append([]string{"-c", "user.name=u", "-c", "user.email=u@x"}, args...)...)
	cmd.Dir = filepath.Join(h.policy.Workspace, in)
	cmd.Env = append(os.Environ(), "HOME="+h.policy.Home, "GIT_CONFIG_NOSYSTEM=1", "OWNED="+file)
	out, err := cmd.CombinedOutput() // the attack may leave git nothing to show
	_, there := os.Lstat(file)
	return there == nil, fmt.Sprintf("%v: %s", err, out)
}

// evilScripts are words for the scripts of attacks: $evil is a command to have executed.
const evilScripts = evilRepository + `evil='IFS=; touch $OWNED;:'
fsmonitor() { printf '[core]\n\tfsmonitor = "%s"\n' "$evil" >> "$1"; }
hook() { mkdir -p "$1"; printf '#!/bin/sh\n%s\n' "$evil" > "$1/pre-commit"; chmod +x "$1/pre-commit"; }
me='-c user.name=u -c user.email=u@x'
`

// Of repositories below the top, whoever made them, git on the host executes nothing that the sandbox wrote.
func TestHostGitExecutesNothingBelow(t *testing.T) {
	commit := []string{"commit", "-q", "--allow-empty", "-m", "second"}
	ignored := func(h *host) {
		h.write("src/project/.gitignore", "vendor\n")
		h.nested("vendor/x")
	}
	for name, c := range map[string]struct {
		before func(h *host)
		turns  []string
		after  string // what the user does then
		in     string // where the user then runs git
		git    []string
		plain  bool // the workspace is no repository
	}{
		"configuration":                       {before: ignored, in: "vendor/x", turns: []string{`git -C vendor/x config core.fsmonitor "$evil"`}},
		"configuration, its time set back":    {before: ignored, in: "vendor/x", turns: []string{`fsmonitor vendor/x/.git/config; touch -d 2001-01-01 vendor/x/.git/config vendor/x/.git vendor/x`}},
		"configuration, written in place":     {before: ignored, in: "vendor/x", turns: []string{python(`import os; f = open("vendor/x/.git/config", "r+"); d = f.read(); f.seek(0); f.write("[core]fsmonitor=\"" + os.environ["evil"] + "\"\n")`)}},
		"configuration, in the second turn":   {before: ignored, in: "vendor/x", turns: []string{"true", `fsmonitor vendor/x/.git/config`}},
		"configuration, after a long turn":    {before: ignored, in: "vendor/x", turns: []string{"true", `sleep 0.5; fsmonitor vendor/x/.git/config`}},
		"configuration, early in a long turn": {before: ignored, in: "vendor/x", turns: []string{"true", `fsmonitor vendor/x/.git/config; sleep 0.5`}},
		"configuration, by a mapping": {
			before: func(h *host) {
				ignored(h)
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "config", "user.signingKey", strings.Repeat("x", 400))
			},
			in: "vendor/x", turns: []string{"true", python(mapping + `change("vendor/x/.git/config", "\n[core]\n\tfsmonitor = \"" + os.environ["evil"] + "\"\n")`)},
		},
		"hook":                                {before: ignored, in: "vendor/x", git: commit, turns: []string{`hook vendor/x/.git/hooks`}},
		"hooks, replaced":                     {before: ignored, in: "vendor/x", git: commit, turns: []string{`rm -rf vendor/x/.git/hooks; hook h; mv h vendor/x/.git/hooks`}},
		"hook, changed":                       {before: func(h *host) { ignored(h); h.write("src/project/vendor/x/.git/hooks/pre-commit", "#!/bin/sh\n") }, in: "vendor/x", git: commit, turns: []string{`hook vendor/x/.git/hooks`}},
		"hook that is a link":                 {before: linkedHook("vendor/x"), in: "vendor/x", git: commit, turns: []string{`hook vendor/x/tools`}},
		"hook at the top that is a link":      {before: linkedHook("."), in: ".", git: commit, turns: []string{`hook tools`}},
		"hook at the top with two names":      {before: otherName(".git/hooks/pre-commit", "tools/pre-commit"), in: ".", git: commit, turns: []string{`printf '#!/bin/sh\n%s\n' "$evil" > tools/pre-commit`}},
		"configuration at the top, two names": {before: otherName(".git/config", "copy"), in: ".", turns: []string{`fsmonitor copy`}},
		"configuration with two names":        {before: func(h *host) { ignored(h); otherName("vendor/x/.git/config", "copy")(h) }, in: "vendor/x", turns: []string{`fsmonitor copy`}},
		"name of its own in the turn":         {before: ignored, in: "vendor/x", turns: []string{`ln vendor/x/.git/config copy; fsmonitor copy`}},
		"deep below":                          {before: func(h *host) { h.nested("a/b/c/d/e/f") }, in: "a/b/c/d/e/f", turns: []string{`fsmonitor a/b/c/d/e/f/.git/config`}},
		"beside the top's":                    {before: func(h *host) { h.nested("x") }, in: "x", turns: []string{`fsmonitor x/.git/config`}},
		"in no repository":                    {before: func(h *host) { h.nested("a/x") }, plain: true, in: "a/x", turns: []string{`fsmonitor a/x/.git/config`}},
		"name with a newline":                 {before: func(h *host) { h.nested("a\nb/x") }, in: "a\nb/x", turns: []string{`fsmonitor a*/x/.git/config`}},
		"replaced":                            {before: ignored, in: "vendor/x", turns: []string{`cp -r vendor/x/.git y; fsmonitor y/config; rm -rf vendor/x/.git; mv y vendor/x/.git`}},
		"exchanged":                           {before: ignored, in: "vendor/x", turns: []string{`cp -r vendor/x/.git y; fsmonitor y/config; ` + python(exchange+`swap("y", "vendor/x/.git")`)}},
		"directory above renamed":             {before: ignored, in: "vendor/x", turns: []string{`cp -r vendor v; fsmonitor v/x/.git/config; mv vendor old; mv v vendor`}},
		"directory above exchanged":           {before: ignored, in: "vendor/x", turns: []string{"true", `cp -r vendor v; fsmonitor v/x/.git/config; ` + python(exchange+`swap("v", "vendor")`)}},
		"old evil moved into place": {
			before: func(h *host) { ignored(h); evilAtRest(h, "fixtures/evil") }, in: "vendor/x",
			turns: []string{"true", `mv vendor/x old; mv fixtures/evil vendor/x`},
		},
		"submodule of it": {
			before: func(h *host) {
				ignored(h)
				if err := os.Mkdir(h.policy.Workspace+"/vendor/x/.git/modules", 0o755); err != nil {
					h.t.Fatal(err)
				}
				h.git(h.policy.Workspace, "init", "-q", "--separate-git-dir", "vendor/x/.git/modules/sub", "vendor/x/sub")
			},
			in: "vendor/x/sub", turns: []string{`fsmonitor vendor/x/.git/modules/sub/config`},
		},
		"its worktree's configuration": {
			before: func(h *host) {
				ignored(h)
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "config", "extensions.worktreeConfig", "true")
			},
			in: "vendor/x", turns: []string{`fsmonitor vendor/x/.git/config.worktree`},
		},
		"its worktree": {
			before: func(h *host) {
				ignored(h)
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "worktree", "add", "-q", "../../y")
			},
			in: "y", turns: []string{`cp -r vendor/x/.git z; fsmonitor z/config; echo "$PWD/z" > vendor/x/.git/worktrees/y/commondir`},
		},
		"its hooks elsewhere": {
			before: func(h *host) {
				ignored(h)
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "config", "core.hooksPath", "tools/hooks")
			},
			in: "vendor/x", git: commit, turns: []string{`hook vendor/x/tools/hooks`},
		},
		"its hooks elsewhere, changed": {
			before: func(h *host) {
				ignored(h)
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "config", "core.hooksPath", "tools/hooks")
				h.write("src/project/vendor/x/tools/hooks/pre-commit", "#!/bin/sh\n")
			},
			in: "vendor/x", git: commit, turns: []string{`hook vendor/x/tools/hooks`},
		},
		"its worktree's hooks": {
			before: func(h *host) {
				h.write("src/project/.githooks/pre-commit", "#!/bin/sh\n")
				if err := os.Chmod(h.policy.Workspace+"/.githooks/pre-commit", 0o755); err != nil {
					h.t.Fatal(err)
				}
				h.git(h.policy.Workspace, "config", "core.hooksPath", ".githooks")
				h.git(h.policy.Workspace, "add", ".")
				h.git(h.policy.Workspace, "commit", "-qm", "hooks")
				h.git(h.policy.Workspace, "worktree", "add", "-q", "trees/x")
			},
			in: "trees/x", git: commit, turns: []string{`hook trees/x/.githooks`},
		},
		"what it includes": {
			before: func(h *host) {
				ignored(h)
				h.write("src/project/vendor/x/shared.inc", "[user]\n\tname = u\n")
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "config", "include.path", "../shared.inc")
			},
			in: "vendor/x", turns: []string{`fsmonitor vendor/x/shared.inc`},
		},
		"hooks at the top that are a link": {before: linkedAt(".git/hooks", "../tools/hooks", "tools/hooks"), in: ".", git: commit, turns: []string{`rm .git/hooks; hook .git/hooks`}},
		"hooks at the top behind two links": {
			before: func(h *host) {
				linkedAt(".git/hooks", "../shared/hooks", "tools/hooks")(h)
				linkedAt("shared", "tools", "tools")(h)
			},
			in: ".", git: commit, turns: []string{`rm shared; hook shared/hooks`},
		},
		"hooks at the top that lead nowhere": {
			before: func(h *host) {
				linkedAt(".git/hooks", "../shared/hooks", "tools")(h)
				linkedAt("shared", "d/none", "d")(h)
			},
			in: ".", git: commit, turns: []string{`hook d/none/hooks`},
		},
		"hook at the top behind a link": {
			before: func(h *host) {
				linkedHook(".")(h)
				if err := os.Rename(h.policy.Workspace+"/tools", h.policy.Workspace+"/old"); err != nil {
					h.t.Fatal(err)
				}
				linkedAt("tools", "old", "old")(h)
			},
			in: ".", git: commit, turns: []string{`rm tools; hook tools`},
		},
		"hooks out of the workspace": {before: linkedAt(".git/hooks", "../../hooks", "../hooks"), in: ".", git: commit, turns: []string{`rm .git/hooks; hook .git/hooks`}},
		"configuration at the top that is a link": {
			before: func(h *host) {
				if err := os.Rename(h.policy.Workspace+"/.git/config", h.policy.Workspace+"/shared"); err != nil {
					h.t.Fatal(err)
				}
				linkedAt(".git/config", "../shared", ".")(h)
			},
			in: ".", turns: []string{`cat .git/config > x; rm .git/config; mv x .git/config; fsmonitor .git/config`},
		},
		"hooks elsewhere that are a link": {
			before: func(h *host) {
				h.git(h.policy.Workspace, "config", "core.hooksPath", ".githooks")
				linkedAt(".githooks", "tools/h", "tools/h")(h)
			},
			in: ".", git: commit, turns: []string{`rm .githooks; hook .githooks`},
		},
		"hooks elsewhere behind a link": {
			before: func(h *host) {
				h.git(h.policy.Workspace, "config", "core.hooksPath", "dev/hooks")
				linkedAt("dev", "tools", "tools/hooks")(h)
			},
			in: ".", git: commit, turns: []string{`hook tools/hooks`},
		},
		"hooks elsewhere behind a link, replaced": {
			before: func(h *host) {
				h.git(h.policy.Workspace, "config", "core.hooksPath", "dev/hooks")
				linkedAt("dev", "tools", "tools/hooks")(h)
			},
			in: ".", git: commit, turns: []string{`rm dev; hook dev/hooks`},
		},
		"its hooks behind two links": {
			before: func(h *host) {
				ignored(h)
				linkedAt("vendor/x/.git/hooks", "../shared/hooks", "vendor/x/tools/hooks")(h)
				linkedAt("vendor/x/shared", "tools", "vendor/x/tools")(h)
			},
			in: "vendor/x", git: commit, turns: []string{"true", `rm vendor/x/shared; hook vendor/x/shared/hooks`},
		},
		"its hooks behind a link that leads to old ones": {
			before: func(h *host) {
				ignored(h)
				linkedAt("vendor/x/.git/hooks", "../shared/hooks", "vendor/x/tools/hooks")(h)
				linkedAt("vendor/x/shared", "tools", "vendor/x/tools")(h)
			},
			in: "vendor/x", git: commit, turns: []string{`hook old/hooks`, `ln -sfn ../../old vendor/x/shared`},
		},
		"its hooks elsewhere that are a link": {
			before: func(h *host) {
				ignored(h)
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "config", "core.hooksPath", ".githooks")
				linkedAt("vendor/x/.githooks", "tools/h", "vendor/x/tools/h")(h)
			},
			in: "vendor/x", git: commit, turns: []string{`hook old`, `ln -sfn ../../old vendor/x/.githooks`},
		},
		"bare one":      {before: func(h *host) { h.git(h.policy.Workspace, "init", "-q", "--bare", "a/x.git") }, in: "a/x.git", turns: []string{`evil_in a/x.git "$PWD"`}},
		"made":          {in: "a/x", turns: []string{`git init -q a/x; fsmonitor a/x/.git/config`}},
		"made, a hook":  {in: "a/x", git: commit, turns: []string{`git init -q a/x; hook a/x/.git/hooks`}},
		"made by hand":  {in: "a/x", turns: []string{`mkdir -p a/x; evil_in a/x/.git "$PWD"`}},
		"made, in none": {in: "a/x", plain: true, turns: []string{`git init -q a/x; fsmonitor a/x/.git/config`}},
		"made, cloned": {in: "a/x", git: commit, turns: []string{
			`git init -q o; git -C o $me commit -q --allow-empty -m x; git clone -q o a/x; rm -rf o; hook a/x/.git/hooks`,
		}},
		"made in a directory that is there": {before: func(h *host) { h.write("src/project/a/b/file", "x") }, in: "a/b", turns: []string{"true", `git init -q a/b; fsmonitor a/b/.git/config`}},
		"made early in a long turn":         {in: "a/x", turns: []string{"true", `git init -q a/x; fsmonitor a/x/.git/config; sleep 0.5`}},
		"made late in a long turn":          {in: "a/x", turns: []string{"true", `sleep 0.5; git init -q a/x; fsmonitor a/x/.git/config`}},
		"made, then changed":                {in: "a/x", turns: []string{`git init -q a/x`, `fsmonitor a/x/.git/config`}},
		"made, bare":                        {in: "a/x", turns: []string{`evil_in a/x "$PWD"`}},
		"made in two turns":                 {in: "a/x", turns: []string{`evil_in a/x "$PWD"; rm a/x/HEAD`, `echo ref: refs/heads/main > a/x/HEAD`}},
		"made in two turns, moved":          {in: "a/x", turns: []string{`evil_in y "$PWD/a/x"; rm y/HEAD`, `mkdir -p a/x; mv y a/x/.git; echo ref: refs/heads/main > a/x/.git/HEAD`}},
		"made behind a lock":                {in: "a/x", after: "chmod -R u+rwx a", turns: []string{`git init -q a/x; fsmonitor a/x/.git/config; chmod 000 a`}},
		"made behind a lock, opened later":  {in: "a/x", turns: []string{`git init -q a/x; fsmonitor a/x/.git/config; chmod 000 a`, `chmod 755 a`}},
		"made, and not to be written":       {in: "a/x", turns: []string{`git init -q a/x; fsmonitor a/x/.git/config; chmod 555 a/x/.git a/x a`}},
		"made, a hook not to be written":    {in: "a/x", git: commit, after: "chmod -R u+w a", turns: []string{`git init -q a/x; hook a/x/.git/hooks; chmod 555 a/x/.git/hooks; chmod 555 a/x/.git`}},
		"made, and only to be entered":      {in: "a/x", turns: []string{`git init -q a/x; fsmonitor a/x/.git/config; chmod 311 a`}},
		"made as a worktree of none": {in: "a/worktrees/y", git: []string{"fetch", "ssh://h/x"}, turns: []string{
			`evil_in a x; printf '[core]\n\tsshCommand = "%s"\n' "$evil" > a/config; rm a/HEAD; mkdir -p a/worktrees/y; echo ref: refs/heads/main > a/worktrees/y/HEAD; echo ../.. > a/worktrees/y/commondir`,
		}},
		"made of endless length": {in: "a/x", turns: []string{`git init -q a/x; fsmonitor a/x/.git/config; head -c 3000000 /dev/zero | tr '\0' '#' >> a/x/.git/config`}},
		"made with other capitals, a section": {in: "a/x", turns: []string{
			`git init -q a/x; printf '[CoRe]FSMonitor="%s"\n' "$evil" >> a/x/.git/config`,
		}},
		"made, including":           {in: "a/x", turns: []string{`git init -q a/x; fsmonitor a/x/inc; printf '[include]\n\tpath = ../inc\n' >> a/x/.git/config`}},
		"file that leads to one":    {in: "a/x", turns: []string{`mkdir -p a/x; evil_in a/y "$PWD/a/x"; mv a/y/HEAD a/y/h; echo "gitdir: ../y" > a/x/.git; mv a/y/h a/y/HEAD`}},
		"file that leads inside":    {in: "a/x", turns: []string{`mkdir -p a/x; evil_in .git/y "$PWD/a/x"; echo "gitdir: ../../.git/y" > a/x/.git`}},
		"file that leads by a link": {in: "a/x", turns: []string{`mkdir -p a/x d/e; evil_in .git/y "$PWD/a/x"; git init -q y; ln -s ../../.git/worktrees d/e/l; mkdir -p .git/worktrees; echo "gitdir: ../../d/e/l/../y" > a/x/.git`}},
		"file that leads to a worktree": {in: "a/x", turns: []string{
			`mkdir -p a/x .git/worktrees/x; evil_in .git/y "$PWD/a/x"; cd .git/worktrees/x; echo ref: refs/heads/main > HEAD; echo ../../y > commondir; echo "$OLDPWD/a/x/.git" > gitdir; cd "$OLDPWD"; echo "gitdir: $PWD/.git/worktrees/x" > a/x/.git`,
		}},
		"file that leads to a worktree of two lines": {in: "a/x", turns: []string{
			`mkdir -p a/x .git/worktrees/x; cd .git/worktrees/x; mkdir "../..
"; evil_in "../..
/y" "$OLDPWD/a/x"; echo ref: refs/heads/main > HEAD; printf '../..\n/y\n' > commondir; mkdir -p "../../..
"; cd "$OLDPWD"; echo "gitdir: $PWD/.git/worktrees/x" > a/x/.git`,
		}},
		"worktree's configuration": {
			before: func(h *host) { h.git(h.policy.Workspace, "config", "extensions.worktreeConfig", "true") },
			in:     "a/x", turns: []string{`git worktree add -q -b y a/x; fsmonitor .git/worktrees/x/config.worktree`},
		},
		"file that led nowhere": {
			before: func(h *host) { h.write("src/project/a/x/.git", "gitdir: ../../.git/y\n") },
			in:     "a/x", turns: []string{"true", `evil_in .git/y "$PWD/a/x"`},
		},
		"moved out of a git directory": {in: "old/x", plain: true, turns: []string{
			"mkdir old", `git init -q n; d=n/.git/x/evil; git init -q $d; fsmonitor $d/.git/config`, `mv n/.git/x/evil old/x`,
		}},
		"moved out of a git directory, in long turns": {in: "old/x", turns: []string{
			"mkdir old; sleep 0.5", `d=.git/x/evil; git init -q $d; fsmonitor $d/.git/config; sleep 0.5`, `mv .git/x/evil old/x; sleep 0.5`,
		}},
		"moved out, a hook":       {in: "old/x", git: commit, turns: []string{"mkdir old", `d=.git/x/evil; git init -q $d; hook $d/.git/hooks`, `mv .git/x/evil old/x`}},
		"moved out from below":    {in: "old/x/y/z", turns: []string{"mkdir old; git init -q a/n", `d=a/n/.git/x/evil/y/z; git init -q $d; fsmonitor $d/.git/config`, `mv a/n/.git/x/evil old/x; sleep 0.5`}},
		"moved out of objects":    {in: "old/x", turns: []string{"mkdir old; git init -q a/n", `d=a/n/.git/objects/ab/evil; git init -q $d; fsmonitor $d/.git/config`, `mv a/n/.git/objects/ab/evil old/x`}},
		"moved out, bare":         {in: "old/x", turns: []string{"mkdir old", `evil_in .git/x "$PWD/old/x"`, `mv .git/x old/x`}},
		"moved out of the home":   {in: "old/x", turns: []string{"mkdir old", `d=~/hidden/evil; git init -q "$d"; fsmonitor "$d/.git/config"`, `mv ~/hidden/evil old/x`}},
		"moved out after a while": {in: "old/x", turns: []string{"mkdir old", `d=.git/x/evil; git init -q $d; fsmonitor $d/.git/config`, "true", "sleep 0.5", `mv .git/x/evil old/x`}},
		"moved out, a worktree's part": {
			before: func(h *host) {
				ignored(h)
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "config", "extensions.worktreeConfig", "true")
				h.git(filepath.Join(h.policy.Workspace, "vendor/x"), "worktree", "add", "-q", "../../y")
			},
			in: "y", turns: []string{`cp -r vendor/x/.git/worktrees/y .git/y; fsmonitor .git/y/config.worktree`, `cd vendor/x/.git/worktrees; mv y ..; mv "$OLDPWD/.git/y" . || mv ../../../../.git/y .; sleep 0.5`},
		},
		"moved out, submodules": {
			before: func(h *host) {
				ignored(h)
				h.write("src/project/vendor/x/sub/.git", "gitdir: ../.git/modules/sub\n")
			},
			in: "vendor/x/sub", turns: []string{`mkdir -p .git/m/modules/sub; evil_in .git/m/modules/sub "$PWD/vendor/x/sub"`, `mv .git/m/modules vendor/x/.git/modules`},
		},
		"link to one": {in: "a/x", turns: []string{`mkdir -p a/x; evil_in .git/y "$PWD/a/x"; ln -s ../../.git/y a/x/.git`}},
		"link that was there": {
			before: func(h *host) {
				h.nested("store")
				if err := errorsOf(os.MkdirAll(h.policy.Workspace+"/a/x", 0o755), os.Rename(h.policy.Workspace+"/store/.git", h.policy.Workspace+"/store/x.git"), os.Symlink("../../store/x.git", h.policy.Workspace+"/a/x/.git")); err != nil {
					h.t.Fatal(err)
				}
			},
			in: "a/x", turns: []string{`fsmonitor store/x.git/config`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				if !c.plain {
					h.repository()
				}
				if c.before != nil {
					c.before(h)
				}
				h.policy.Tier = tier
				var told []string
				h.policy.Notice = func(s string) { told = append(told, s) }
				for _, script := range c.turns {
					h.run("/bin/bash", "-c", evilScripts+"export evil\n"+script)
				}
				if c.after != "" {
					after := exec.Command("/bin/sh", "-c", c.after)
					after.Dir = h.policy.Workspace
					if out, err := after.CombinedOutput(); err != nil && tier == Off {
						t.Fatalf("%v: %s", err, out)
					}
				}
				owned, says := h.gitOutside(c.in, c.git...)
				if tier == Off && !owned {
					t.Errorf("the attack fails outside, too: git says %s", says)
				} else if tier != Off && owned {
					t.Errorf("the host's git executed what the sandbox wrote; it says %s; told: %q", says, told)
				} else if tier != Off && !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, "while the sandbox ran") }) && c.in != "." && c.in != "x" {
					t.Errorf("nothing is told: %q", told)
				}
			}
		})
	}
}

// mapping changes the end of a file in memory, by a page that can be written already: its times stay as they are then.
const mapping = `
import mmap, os, time
def change(path, evil):
    m = mmap.mmap(os.open(path, os.O_RDWR), 0)
    m[0:1] = m[0:1]
    time.sleep(1.5) # a look comes here while it runs
    m[-len(evil):] = evil.encode()
`

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// linkedHook has a repository with a hook that is a link to a file beside it.
func linkedHook(dir string) func(h *host) {
	return func(h *host) {
		if dir != "." {
			h.nested(dir)
		}
		hook := h.write(filepath.Join("src/project", dir, "tools/pre-commit"), "#!/bin/sh\n")
		if err := errorsOf(os.Chmod(hook, 0o755), os.Symlink("../../tools/pre-commit", filepath.Join(h.policy.Workspace, dir, ".git/hooks/pre-commit"))); err != nil {
			h.t.Fatal(err)
		}
	}
}

// linkedAt puts a link in the place of what is there, and makes a directory, to which it leads, or another link in it.
func linkedAt(path, text, dir string) func(h *host) {
	return func(h *host) {
		path := filepath.Join(h.policy.Workspace, path)
		if err := errorsOf(os.RemoveAll(path), os.MkdirAll(filepath.Join(h.policy.Workspace, dir), 0o755), os.Symlink(text, path)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// otherName gives a file another name.
func otherName(file, name string) func(h *host) {
	return func(h *host) {
		from, to := filepath.Join(h.policy.Workspace, file), filepath.Join(h.policy.Workspace, name)
		if _, err := os.Lstat(from); err != nil {
			h.write(filepath.Join("src/project", file), "#!/bin/sh\n")
			if err := os.Chmod(from, 0o755); err != nil {
				h.t.Fatal(err)
			}
		}
		if err := errorsOf(os.MkdirAll(filepath.Dir(to), 0o755), os.Link(from, to)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// evilAtRest is a repository that came with the workspace and executes something, where nobody goes.
func evilAtRest(h *host, dir string) {
	h.nested(dir)
	h.git(filepath.Join(h.policy.Workspace, dir), "config", "core.fsmonitor", `IFS=; touch $OWNED;:`)
}

// plantedBelow finds what says EVIL, or is a link, where programs of the host would execute it.
func plantedBelow(t *testing.T, workspace string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(workspace, func(path string, d os.DirEntry, err error) error {
		rel := strings.TrimPrefix(path, workspace)
		if err != nil || d.IsDir() || !slices.ContainsFunc(guardedNames, func(name string) bool { return strings.Contains(rel+"/", "/"+name+"/") }) {
			return err
		}
		if data, _ := os.ReadFile(path); strings.Contains(string(data), "EVIL") {
			found = append(found, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Settings of editors, shells and agents are guarded wherever they are in the workspace.
func TestSettingsBelowAreGuarded(t *testing.T) {
	before := func(h *host) {
		h.write("src/project/a/.envrc", "export A=1\n")
		h.write("src/project/a/.vscode/settings.json", "{}")
		h.write("src/project/a/.vscode/more/tasks.json", "{}")
		h.write("src/project/a/b/c/file", "x")
	}
	link := func(from, to string) func(h *host) {
		return func(h *host) {
			before(h)
			h.write("src/project/env", "export A=1\n")
			path := filepath.Join(h.policy.Workspace, to)
			_ = os.Remove(path)
			if err := os.Symlink(from, path); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		before func(h *host)
		turns  []string
	}{
		"new":                       {turns: []string{"echo EVIL > a/b/.envrc; mkdir a/b/c/.vscode; echo EVIL > a/b/c/.vscode/tasks.json; mkdir -p n/.husky; echo EVIL > n/.husky/pre-commit"}},
		"all names":                 {turns: []string{"for n in " + strings.Join(guardedNames, " ") + "; do mkdir -p a/b/$n; echo EVIL > a/b/$n/x; done; rm -r a/b/.gitmodules a/b/.gitconfig"}},
		"new, in the second turn":   {turns: []string{"true", "echo EVIL > a/b/.envrc"}},
		"new, early in a long turn": {turns: []string{"true", "echo EVIL > a/b/.envrc; sleep 0.5"}},
		"new, late in a long turn":  {turns: []string{"true", "sleep 0.5; echo EVIL > a/b/.envrc"}},
		"changed":                   {turns: []string{"echo EVIL >> a/.envrc"}},
		"changed, second turn":      {turns: []string{"true", "echo EVIL >> a/.envrc"}},
		"changed, early":            {turns: []string{"true", "echo EVIL >> a/.envrc; sleep 0.5"}},
		"changed, late":             {turns: []string{"true", "sleep 0.5; echo EVIL >> a/.envrc"}},
		"changed, by a mapping":     {turns: []string{"true", python(mapping + `change("a/.envrc", "EVIL\n")`)}},
		"a file in it changed":      {turns: []string{"echo EVIL >> a/.vscode/more/tasks.json"}},
		"a file in it made":         {turns: []string{"echo EVIL >> a/.vscode/more/x"}},
		"replaced":                  {turns: []string{"echo EVIL > x; mv x a/.envrc; mkdir y; echo EVIL > y/tasks.json; rm -r a/.vscode; mv y a/.vscode"}},
		"exchanged":                 {turns: []string{"echo EVIL > x; " + python(exchange+`swap("x", "a/.envrc")`)}},
		"directory above replaced":  {turns: []string{"cp -r a x; echo EVIL > x/.envrc; rm -rf a; mv x a"}},
		"directory above exchanged": {turns: []string{"true", "cp -r a x; echo EVIL > x/.envrc; " + python(exchange+`swap("x", "a")`)}},
		"by another name":           {before: func(h *host) { before(h); otherName("a/.envrc", "copy")(h) }, turns: []string{"echo EVIL >> copy"}},
		"of a time before":          {turns: []string{"echo EVIL > a/b/.envrc; touch -d 2001-01-01 a/b/.envrc a/b a"}},
		"without a name first":      {turns: []string{python(strings.ReplaceAll(unnamed, `"."`, `"a"`) + `name("a/b/.envrc")`)}},
		"behind a link":             {before: link("../env", "a/.envrc"), turns: []string{"echo EVIL > env"}},
		"behind a link that leads nowhere": {
			before: func(h *host) { link("../none", "a/.envrc")(h) }, turns: []string{"echo EVIL > none"},
		},
		"link at the top, replaced":     {before: link("none", ".vscode"), turns: []string{"rm .vscode; mkdir .vscode; echo EVIL > .vscode/tasks.json"}},
		"not to be written":             {turns: []string{"mkdir a/b/.vscode; echo EVIL > a/b/.vscode/x; echo EVIL > a/b/c/.envrc; chmod 555 a/b/.vscode a/b/c a/b"}},
		"directory behind a lock":       {turns: []string{"echo EVIL > a/b/.envrc; chmod 000 a/b; chmod 755 a", "chmod -R u+rwx a"}},
		"a turn before under this name": {turns: []string{"mkdir n; echo EVIL > n/envrc", "mv n/envrc n/.envrc"}},
		"moved out of a git directory":  {turns: []string{"true", "git init -q n; mkdir -p n/.git/x/evil/b/.vscode; echo EVIL > n/.git/x/evil/.envrc; echo EVIL > n/.git/x/evil/b/.vscode/tasks.json", "mv n/.git/x/evil new"}},
		"moved out, in long turns":      {turns: []string{"sleep 0.5", "mkdir -p .git/x/evil/b/.vscode; echo EVIL > .git/x/evil/.envrc; echo EVIL > .git/x/evil/b/.vscode/tasks.json; sleep 0.5", "mv .git/x/evil new; sleep 0.5"}},
		"moved out, into what is there": {turns: []string{"true", "git init -q n; mkdir -p n/.git/x/evil; echo EVIL > n/.git/x/evil/.envrc", "rm -rf a/b; mv n/.git/x/evil a/b; rmdir n/.git/x"}},
		"moved with its directory":      {before: func(h *host) { before(h); h.write("src/project/fixtures/evil/.envrc", "EVIL") }, turns: []string{"true", "mv a old; mv fixtures/evil a; rm -rf old fixtures"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				h.repository()
				if c.before == nil {
					c.before = before
				}
				c.before(h)
				h.policy.Tier = tier
				var told []string
				h.policy.Notice = func(s string) { told = append(told, s) }
				for _, script := range c.turns {
					h.run("/bin/bash", "-c", script)
				}
				got := plantedBelow(t, h.policy.Workspace)
				if tier == Off && len(got) == 0 {
					t.Errorf("the attack fails outside, too")
				} else if tier != Off && len(got) > 0 {
					t.Errorf("the attack succeeds: %q; told: %q", got, told)
				} else if tier != Off && !strings.Contains(strings.Join(told, "\n"), "while the sandbox ran") {
					t.Errorf("nothing is told: %q", told)
				}
				if data, err := os.ReadFile(filepath.Join(h.policy.Workspace, "a/.envrc")); tier != Off && strings.HasPrefix(name, "changed") && (err != nil || string(data) != "export A=1\n") {
					t.Errorf("not put back: %q, %v", data, err)
				}
			}
		})
	}
}

// What the sandbox has put behind a lock is not there any more when the user opens it.
func TestLocksHideNothing(t *testing.T) {
	commit := []string{"commit", "-q", "--allow-empty", "-m", "second"}
	submodule := func(h *host) {
		h.write("src/project/.gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = ../sub\n")
		h.write("src/project/sub/README", "not there yet")
		h.git(h.policy.Workspace, "update-index", "--add", "--cacheinfo", "160000,1111111111111111111111111111111111111111,sub")
	}
	for name, c := range map[string]struct {
		before func(h *host)
		script string
		git    []string
	}{
		"hooks": {
			before: func(h *host) { _ = os.RemoveAll(h.policy.Workspace + "/.git/hooks") },
			script: `hook .git/hooks; chmod 600 .git`, git: commit,
		},
		"hooks that were there": {script: `hook .git/hooks; chmod 600 .git/hooks`, git: commit},
		"workspace":             {script: `mkdir .vscode; echo EVIL > .vscode/tasks.json; echo EVIL > .envrc; chmod 000 .`},
		"workspace, below":      {script: `mkdir a; echo EVIL > a/.envrc; chmod 000 a .`},
		"submodule":             {before: submodule, script: `evil_in .git/x "$PWD/sub"; echo "gitdir: ../.git/x" > sub/.git; chmod 000 sub`},
		"index":                 {script: `git init -q nested; git -C nested $me commit -q --allow-empty -m x; fsmonitor nested/.git/config; git add nested; chmod 000 .git/index; chmod 600 .git`},
		"settings":              {script: `mkdir -p a/b/.vscode; echo EVIL > a/b/.vscode/x; chmod 600 a/b/.vscode; chmod 000 a/b`},
		"settings of old":       {before: func(h *host) { h.write("src/project/a/.vscode/x", "{}") }, script: `echo EVIL > a/.vscode/x; chmod 600 a/.vscode`},
		"repository":            {script: `git init -q .; mkdir a; git init -q a/x; fsmonitor a/x/.git/config; chmod 600 a/x/.git; mv a/x .; chmod 000 x`},
		"repository's worktrees": {
			before: func(h *host) {
				h.nested("a/x")
				h.git(h.policy.Workspace+"/a/x", "config", "extensions.worktreeConfig", "true")
				h.git(h.policy.Workspace+"/a/x", "worktree", "add", "-q", "../../y")
			},
			script: `fsmonitor a/x/.git/worktrees/y/config.worktree; chmod 000 a/x/.git/worktrees`,
		},
		"one of the repository's worktrees": {
			before: func(h *host) {
				h.git(h.policy.Workspace, "config", "extensions.worktreeConfig", "true")
				h.git(h.policy.Workspace, "worktree", "add", "-q", "y")
			},
			script: `fsmonitor .git/worktrees/y/config.worktree; chmod 000 .git/worktrees/y`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				h.repository()
				if c.before != nil {
					c.before(h)
				}
				h.policy.Tier = tier
				var told []string
				h.policy.Notice = func(s string) { told = append(told, s) }
				h.run("/bin/bash", "-c", evilScripts+"export evil\n"+c.script)
				if tier != Off {
					h.sh("true") // no other turn is kept from beginning
				}
				open := exec.CommandContext(t.Context(), "chmod", "-R", "u+rwX", h.policy.Workspace)
				if out, err := open.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				got := plantedBelow(t, h.policy.Workspace)
				for _, in := range []string{".", "nested", "x", "y"} {
					if _, err := os.Lstat(filepath.Join(h.policy.Workspace, in)); err == nil {
						if owned, says := h.gitOutside(in, c.git...); owned {
							got = append(got, in+": "+says)
							break
						}
					}
				}
				if tier == Off && len(got) == 0 {
					t.Errorf("the attack fails outside, too")
				} else if tier != Off && len(got) > 0 {
					t.Errorf("the attack succeeds: %q; told: %q", got, told)
				} else if tier != Off && name != "hooks that were there" && !strings.Contains(strings.Join(told, "\n"), "while the sandbox ran") {
					t.Errorf("nothing is told: %q", told)
				}
			}
		})
	}
}

// quietly runs a script in the sandbox and expects that nothing is told.
func (h *host) quietly(script string) {
	h.t.Helper()
	var told []string
	h.policy.Notice = func(s string) {
		if !strings.Contains(s, "weaker than namespaces") {
			told = append(told, s)
		}
	}
	h.sh(script)
	if len(told) > 0 {
		h.t.Errorf("%s\ntold: %q", script, told)
	}
}

// Who works with git in the sandbox finds his repositories as he left them, and nobody tells him anything.
func TestHonestWorkBelowStays(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.write("src/project/a/.envrc", "export A=1\n")
	h.write("src/project/a/.vscode/settings.json", "{}")
	h.nested("vendor/old")
	me := "export GIT_AUTHOR_NAME=u GIT_AUTHOR_EMAIL=u@x GIT_COMMITTER_NAME=u GIT_COMMITTER_EMAIL=u@x\nset -e\n"
	h.quietly(me + `
git init -q --bare store/lib.git; git clone -q store/lib.git work/lib 2> /dev/null; cd work/lib
git config user.name somebody; git commit -q --allow-empty -m first; git push -qu origin HEAD
git checkout -qb topic; git push -qu origin topic; git worktree add -q ../tree; cd ../..
git init -q work/super; cd work/super; git -c protocol.file.allow=always submodule --quiet add ../../store/lib.git sub; git commit -qm sub; cd ../..
git clone -q work/super copy; git -C copy -c protocol.file.allow=always submodule --quiet update --init
git worktree add -q trees/x
git -C vendor/old commit -q --allow-empty -m second; git -C vendor/old gc -q`)
	work := me + `
git -C work/lib commit -q --allow-empty -m more; git -C work/lib push -q; git -C work/tree status; git -C work/super/sub log; git -C copy/sub log; git -C trees/x commit -q --allow-empty -m x
test "$(git -C work/lib config user.name)" = somebody; git -C work/lib fetch -q
chmod -R u+rw a work copy vendor; cp a/.envrc "${TMPDIR:-/tmp}/e"; rm a/.envrc; cp "${TMPDIR:-/tmp}/e" a/.envrc; chmod 600 a/.envrc; mv a/.vscode v; mv v a/.vscode`
	h.quietly(work)
	h.quietly(work + "; sleep 0.5")
	for _, dir := range []string{"work/lib", "work/tree", "work/super", "work/super/sub", "copy", "copy/sub", "trees/x", "vendor/old"} {
		h.git(filepath.Join(h.policy.Workspace, dir), "status")
	}
	h.git(filepath.Join(h.policy.Workspace, "store/lib.git"), "rev-parse", "--verify", "topic")
	h.git(filepath.Join(h.policy.Workspace, "work/lib"), "push", "-q")

	// What the user makes and changes between turns is his.
	h.write("src/project/b/.envrc", "export B=1\n")
	h.write("src/project/a/.envrc", "export A=2\n")
	h.git(filepath.Join(h.policy.Workspace, "vendor/old"), "config", "core.fsmonitor", "false")
	if err := os.RemoveAll(filepath.Join(h.policy.Workspace, "a", ".vscode")); err != nil {
		t.Fatal(err)
	}
	h.write("src/elsewhere/.envrc", "export B=1\n")
	h.git(filepath.Join(h.policy.Home, "src"), "init", "-q", "elsewhere/x")
	h.git(filepath.Join(h.policy.Home, "src/elsewhere/x"), "config", "core.fsmonitor", "false")
	time.Sleep(20 * time.Millisecond) // as long as a file system's clock stands still
	h.quietly("true")
	if err := os.Rename(filepath.Join(h.policy.Home, "src/elsewhere"), filepath.Join(h.policy.Workspace, "came")); err != nil {
		t.Fatal(err)
	}
	h.quietly("echo x > came/made; echo x > came/x/made; echo x > b/made; mkdir a/made; git -C vendor/old status")
	h.quietly("sleep 0.5; echo x > b/made; mkdir a/more")
	if a, b := h.read("src/project/a/.envrc"), h.read("src/project/b/.envrc"); a != "export A=2\n" || b != "export B=1\n" {
		t.Errorf("%q, %q", a, b)
	}
	h.git(filepath.Join(h.policy.Workspace, "vendor/old"), "config", "--get", "core.fsmonitor")
	h.git(filepath.Join(h.policy.Workspace, "came/x"), "config", "--get", "core.fsmonitor")
	if got := h.read("src/project/came/.envrc"); got != "export B=1\n" {
		t.Errorf("%q", got)
	}

	// And what he has changed is what is put back.
	h.run("/bin/bash", "-c", "echo EVIL >> a/.envrc; echo EVIL > b/.envrc; echo EVIL >> vendor/old/.git/config")
	if a, b := h.read("src/project/a/.envrc"), h.read("src/project/b/.envrc"); a != "export A=2\n" || b != "export B=1\n" {
		t.Errorf("put back: %q, %q", a, b)
	}
	h.git(filepath.Join(h.policy.Workspace, "vendor/old"), "config", "--get", "core.fsmonitor")
}

// What the user has changed since the last look is what is put back, though the sandbox changes it as soon as it begins.
func TestChangesBetweenTurnsAreKept(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.nested("a/b/lib")
	lib := filepath.Join(h.policy.Workspace, "a/b/lib")
	h.write("src/project/sub/.envrc", "export A=1\n")
	h.write("src/project/gone/.envrc", "export A=1\n")
	h.sh("true")
	h.git(lib, "remote", "add", "upstream", "https://example.com/x.git")
	h.write("src/project/sub/.envrc", "export A=2\n")
	if err := os.Remove(filepath.Join(h.policy.Workspace, "gone/.envrc")); err != nil {
		t.Fatal(err)
	}
	var told []string
	h.policy.Notice = func(s string) { told = append(told, s) }
	h.sh("git -C a/b/lib config branch.main.description hi; echo EVIL > sub/.envrc; echo EVIL > gone/.envrc")
	h.git(lib, "config", "--get", "remote.upstream.url")
	if got := h.read("src/project/sub/.envrc"); got != "export A=2\n" {
		t.Errorf("%q, told %q", got, told)
	}
	if data, err := os.ReadFile(filepath.Join(h.policy.Workspace, "gone/.envrc")); err == nil {
		t.Errorf("there again: %q, told %q", data, told)
	}
	told = nil
	h.quietly("true")
}

// A repository that the user has made where the sandbox had made one is his, though it has the same number.
func TestRepositoryMadeAgainIsTheUsers(t *testing.T) {
	h := newHost(t)
	h.policy.Tier = Namespaces
	h.sh("git init -q lib")
	dotGit := filepath.Join(h.policy.Workspace, "lib/.git")
	isMount := func() bool {
		tree, err := drawTree(&h.policy)
		if err != nil {
			t.Fatal(err)
		}
		return tree.guarded[filepath.Join(dotGit, "config")]
	}
	if isMount() {
		t.Error("the sandbox's repository cannot be worked on")
	}
	for range 20 {
		before := identify(dotGit).Inode
		time.Sleep(20 * time.Millisecond) // as long as a file system's clock stands still
		if err := os.RemoveAll(filepath.Dir(dotGit)); err != nil {
			t.Fatal(err)
		}
		h.git(h.policy.Workspace, "init", "-q", "lib")
		if !isMount() {
			t.Fatal("the user's repository is taken for the sandbox's")
		}
		if identify(dotGit).Inode == before {
			return
		}
	}
	t.Skip("this file system does not give a number to another file soon")
}

// What is put back or moved away goes nowhere else, whatever the sandbox has put in the way.
func TestPuttingBackStaysInside(t *testing.T) {
	for name, script := range map[string]string{
		"directory":       "rm -rf vendor; ln -s ../../victim vendor",
		"repository":      "rm -rf vendor/x; ln -s ../../../victim/x vendor/x",
		"git directory":   "rm -rf vendor/x/.git; ln -s ../../../../victim/x/.git vendor/x/.git",
		"configuration":   "rm -f vendor/x/.git/config; ln -s ../../../../../victim/x/.git/config vendor/x/.git/config",
		"hooks":           "rm -rf vendor/x/.git/hooks; ln -s ../../../../../victim/x/.git/hooks vendor/x/.git/hooks",
		"settings":        "rm -rf a/.vscode; ln -s ../../../victim a/.vscode",
		"above settings":  "rm -rf a; ln -s ../../victim a",
		"file of a link":  "rm -f a/.envrc; ln -s ../../../victim/file a/.envrc",
		"new ones":        "mkdir n; ln -s ../../../victim n/.vscode; ln -s ../../../victim/x/.git n/.git",
		"pointing ones":   "mkdir n; echo 'gitdir: ../../../victim/x/.git' > n/.git",
		"top's hooks":     "rm -rf .git/hooks; ln -s ../../../victim/x/.git/hooks .git/hooks",
		"top's directory": "mv .git g; ln -s ../../victim/x/.git .git",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.repository()
			h.nested("vendor/x")
			h.write("src/project/a/.envrc", "export A=1\n")
			h.write("src/project/a/.vscode/settings.json", "{}")
			victim := filepath.Join(h.policy.Home, "victim")
			h.write("victim/file", "victim's")
			h.write("victim/.envrc", "victim's")
			h.write("victim/.vscode/settings.json", "victim's")
			h.git(victim, "init", "-q", "x")
			h.write("victim/x/.git/hooks/pre-commit", "victim's")
			before := h.state(victim)
			h.run("/bin/bash", "-c", script)
			h.run("/bin/bash", "-c", "true")
			if after := h.state(victim); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// state is all that there is to know of a directory.
func (h *host) state(dir string) string {
	h.t.Helper()
	out, err := exec.Command("find", dir, "-type", "f", "-printf", "%p %i %C@ %m ", "-exec", "md5sum", "{}", ";", "-o", "-printf", "%p %i %C@ %m\n").Output()
	if err != nil {
		h.t.Fatal(err)
	}
	return string(out)
}

// Neither depth nor number of directories keeps a sandbox's end from coming, and what is not looked at is told.
func TestEndlessDirectories(t *testing.T) {
	h := newHost(t)
	h.repository()
	var told []string
	h.policy.Notice = func(s string) { told = append(told, s) }
	begin := time.Now()
	r := h.run("/bin/bash", "-c", python(`
import os, time
for i in range(3000):
    os.mkdir("many%d" % i)
for i in range(3000):
    os.mkdir("d" * 20); os.chdir("d" * 20)
os.mkdir(".vscode")
time.sleep(1) # a look comes here while it runs
`))
	if r.code != 0 {
		t.Error(r.out)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if !strings.Contains(strings.Join(told, "\n"), "cannot be looked through") {
		t.Errorf("told %q", told)
	}
	if err := exec.CommandContext(t.Context(), "rm", "-rf", filepath.Join(h.policy.Workspace, strings.Repeat("d", 20))).Run(); err != nil {
		t.Error(err)
	}
}

// A pipe that is exchanged for a file while that is read keeps nobody waiting.
func TestPipesKeepNoLookWaiting(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, ".git"), filepath.Join(dir, "pipe")
	if err := errorsOf(os.WriteFile(file, []byte("gitdir: x\n"), 0o600), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Second)
	exchanged := make(chan struct{})
	go func() {
		defer close(exchanged)
		for time.Now().Before(end) {
			_ = unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, pipe, unix.RENAME_EXCHANGE)
		}
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for time.Now().Before(end) {
			if data, err := readSmall(file); err == nil && string(data) != "gitdir: x\n" {
				t.Errorf("read %q", data)
			}
		}
	}()
	<-exchanged
	select {
	case <-read:
	case <-time.After(10 * time.Second):
		t.Error("it waits for somebody who writes to the pipe")
	}
}

// lookAt is a look at a workspace of which all is remembered.
func (h *host) lookAt() *look {
	h.t.Helper()
	tree, err := drawTree(&h.policy)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.MkdirAll(h.policy.guardDir(), 0o700); err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(indexSettles)
	l := newLook(&h.policy, &tree.sweep, true)
	l.first()
	l.since, l.treat = math.MaxInt64, true
	if whole, err := l.finish(time.Minute); !whole || err != nil {
		h.t.Fatal(whole, err)
	}
	return l
}

// A look that was cut short is told, and the next one finds what it did not.
func TestUnfinishedLookIsGoneOnWith(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.policy.Tier = Namespaces
	for i := range 50 {
		h.write(fmt.Sprintf("src/project/d%d/e/file", i), "x")
	}
	l := h.lookAt()
	since, err := clock(h.policy.Workspace, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		h.write(fmt.Sprintf("src/project/d%d/e/.envrc", i), "EVIL")
	}
	l.since, l.treat = since, true
	n := 0
	if whole, err := l.through(func() bool { n++; return n > 30 }); whole || err != nil || l.whole {
		t.Fatal(whole, err)
	}
	if whole, err := l.finish(time.Minute); !whole || err != nil {
		t.Fatal(whole, err)
	}
	if got := plantedBelow(t, h.policy.Workspace); len(got) > 0 || len(l.changes) != 50 {
		t.Errorf("%d changes, left: %q", len(l.changes), got)
	}

	// The same of a whole sandbox, whose note says what is left to do.
	b := &box{policy: &h.policy}
	var told []string
	h.policy.Notice = func(s string) { told = append(told, s) }
	tree, err := drawTree(&h.policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.join(t.Context()), b.noteSweep(tree.sweep, 0)); err != nil {
		t.Fatal(err)
	}
	h.write("src/project/d7/e/.envrc", "EVIL")
	b.sweep.began = time.Now()
	b.look.whole, b.look.memory = false, map[string]seen{}
	b.look.deadline = func(time.Duration) func() bool { return func() bool { return true } }
	looked := b.look
	if whole := b.takeAway(); len(looked.changes) > 0 || whole || !strings.Contains(strings.Join(told, "\n"), "not looked through to its end") {
		t.Fatalf("found %v, whole %v, told %q", looked.changes, whole, told)
	}
	if owed := b.sweepLeft(); owed != 0 {
		t.Errorf("the next one leaves something, too; told %q", told)
	}
	b.leaveGuard()
	if got := plantedBelow(t, h.policy.Workspace); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// What a test tells the process that it has killed.
const (
	killedHome      = "SESAME_TEST_KILLED_HOME"
	killedWorkspace = "SESAME_TEST_KILLED_WORKSPACE"
	killedTier      = "SESAME_TEST_KILLED_TIER"
	killedScript    = "SESAME_TEST_KILLED_SCRIPT"
)

// TestToBeKilled is that process.
func TestToBeKilled(t *testing.T) {
	home := os.Getenv(killedHome)
	if home == "" {
		return
	}
	h := &host{t: t, policy: hostPolicy(home)}
	h.policy.Workspace, h.policy.Tier = os.Getenv(killedWorkspace), Tier(os.Getenv(killedTier))
	h.env = Environment(os.Environ(), home, nil)
	if _, err := h.start(t.Context(), os.Stdout, "/bin/bash", "-c", os.Getenv(killedScript)+"\necho ready; sleep 60"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
}

// doomed is such a process.
type doomed struct {
	t   *testing.T
	cmd *exec.Cmd
	out *lockedBuffer
}

func (d doomed) kill() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	_ = d.cmd.Wait()
}

// killed has a sandbox execute a script, by another process, and kills that.
func (h *host) killed(script string) {
	h.t.Helper()
	h.doomed(script).kill()
}

// doomed has one execute a script.
func (h *host) doomed(script string) doomed {
	h.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.CommandContext(h.t.Context(), exe, "-test.run", "^TestToBeKilled$")
	cmd.Env = append(os.Environ(), killedHome+"="+h.policy.Home, killedWorkspace+"="+h.policy.Workspace, killedTier+"="+string(h.policy.Tier), killedScript+"="+script)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	out.waitFor(h.t, "ready")
	return doomed{h.t, cmd, out}
}

// When sesame was killed, the next sandbox puts right what the killed one did, before it begins.
func TestKilledSandboxIsSweptBelow(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.nested("vendor/x")
	h.write("src/project/a/.envrc", "export A=1\n")
	h.killed(evilScripts + `
fsmonitor vendor/x/.git/config; hook vendor/x/.git/hooks; echo EVIL >> a/.envrc; echo EVIL > .envrc; mkdir a/.vscode; echo EVIL > a/.vscode/tasks.json
git init -q n/y; fsmonitor n/y/.git/config; fsmonitor .git/config; hook .git/hooks`)
	var told []string
	h.policy.Notice = func(s string) { told = append(told, s) }
	h.sh("true")
	if got := plantedBelow(t, h.policy.Workspace); len(got) > 0 {
		t.Errorf("left: %q, told %q", got, told)
	}
	for _, dir := range []string{".", "vendor/x", "n/y"} {
		for _, git := range [][]string{{"status"}, {"commit", "-q", "--allow-empty", "-m", "x"}} {
			if owned, says := h.gitOutside(dir, git...); owned {
				t.Fatalf("%s: git executed what the killed sandbox wrote: %s; told %q", dir, says, told)
			}
		}
	}
	if a := h.read("src/project/a/.envrc"); a != "export A=1\n" {
		t.Errorf("not put back: %q", a)
	}
	told = nil
	h.quietly("true")
}

// In the tier landlock what is at the top, too, is as it was when the sandbox has ended.
func TestTopIsPutBackInTierLandlock(t *testing.T) {
	for name, script := range map[string]string{
		"changed":     "echo EVIL >> .git/config; echo EVIL >> .git/hooks/pre-commit; echo EVIL >> .vscode/settings.json; echo EVIL >> .git/info/exclude",
		"removed":     "rm -rf .git/hooks .git/config .vscode .git/info",
		"replaced":    "rm -rf .vscode .git/hooks; ln -s /etc .vscode; mkdir -p .git/hooks/x; rm .git/config; mkdir .git/config",
		"modes":       "chmod 777 .git/config; chmod 644 .git/hooks/pre-commit; chmod 000 .vscode",
		"nothing new": "touch .git/config .vscode .git/hooks/*; cp .git/config x; cat x > .git/config; rm x",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.policy.Tier = Landlock
			h.repository()
			hook := h.write("src/project/.git/hooks/pre-commit", "#!/bin/sh\nexit 0\n")
			h.write("src/project/.vscode/settings.json", "{}")
			if err := os.Chmod(hook, 0o755); err != nil {
				t.Fatal(err)
			}
			content := func() string {
				out, err := exec.Command("find", h.policy.Workspace, "-printf", "%P %m %l ", "-type", "f", "-exec", "md5sum", "{}", ";", "-o", "-printf", "\n").Output()
				if err != nil {
					t.Fatal(err)
				}
				return string(out)
			}
			before := content()
			var told []string
			h.policy.Notice = func(s string) { told = append(told, s) }
			h.run("/bin/bash", "-c", script)
			if after := content(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if n := len(told); (n == 1) != (name == "nothing new") {
				t.Errorf("told %q", told)
			}
		})
	}
}

// What the user has allowed is left alone, and much that happened is told in few words.
func TestLookIsToldBriefly(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.write("src/project/free/file", "x")
	h.policy.AllowWrite = []string{filepath.Join(h.policy.Workspace, "free")}
	var told []string
	h.policy.Notice = func(s string) {
		if strings.Contains(s, "while the sandbox ran") {
			told = append(told, s)
		}
	}
	h.sh("git init -q free/x; git -C free/x config core.fsmonitor wanted; echo wanted > free/.envrc; for i in $(seq 40); do mkdir d$i; echo EVIL > d$i/.envrc; done")
	if got := plantedBelow(t, h.policy.Workspace); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	if len(told) != maxTold+1 || !strings.Contains(told[maxTold], "30 more") {
		t.Errorf("told %q", told)
	}
	if got := h.read("src/project/free/.envrc"); got != "wanted\n" {
		t.Errorf("%q", got)
	}
	h.git(filepath.Join(h.policy.Workspace, "free/x"), "config", "--get", "core.fsmonitor")
}

// Whatever matters shows without reading a directory.
func TestMemoryIsNotQuiet(t *testing.T) {
	h := newHost(t)
	h.policy.Tier = Namespaces
	h.repository()
	h.nested("vendor/x")
	w := h.policy.Workspace
	h.git(filepath.Join(w, "vendor/x"), "worktree", "add", "-q", "../../t/y")
	h.git(filepath.Join(w, "vendor/x"), "config", "core.hooksPath", "../hooks")
	h.git(w, "init", "-q", "--bare", "b.git")
	h.write("src/project/a/.vscode/more/tasks.json", "{}")
	h.write("src/project/z/.git", "gitdir: ../.git/nowhere\n")
	if err := errorsOf(os.MkdirAll(w+"/vendor/x/.git/info", 0o755), os.Symlink("../env", w+"/a/.envrc")); err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{
		"touch new", "touch a/new", "mkdir vendor/x/.git/modules", "echo >> vendor/x/.git/config", "touch vendor/x/.git/hooks/x", "rm vendor/x/.git/hooks/*.sample",
		"touch vendor/x/.git/info/attributes", "echo >> vendor/x/.git/worktrees/y/commondir", "touch vendor/x/.git/worktrees/y/config.worktree", "mkdir vendor/x/.git/worktrees/z",
		"mkdir vendor/hooks", "echo >> b.git/config", "touch b.git/hooks/x", "echo >> a/.vscode/more/tasks.json", "touch a/.vscode/more/new", "chmod 600 a/.vscode/more/tasks.json",
		"touch env", "mkdir .git/nowhere", "echo >> t/y/.git", "mv a c; mv c a", "chmod 700 a",
	} {
		h.lookAt()
		tree, err := drawTree(&h.policy)
		if err != nil {
			t.Fatal(err)
		}
		l := newLook(&h.policy, &tree.sweep, true)
		if !l.quietSince(l.file(memoryFile), deadline(time.Minute)) {
			t.Fatalf("not quiet before %s", script)
		}
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Dir = w
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
		if l.quietSince(l.file(memoryFile), deadline(time.Minute)) {
			t.Errorf("%s does not show", script)
		}
		l.load()
		if l.quiet() {
			t.Errorf("%s does not show when it was loaded", script)
		}
	}
}

// Editors ask repositories in directories of the top by themselves: those cannot even be written while the sandbox runs.
func TestRepositoriesBesideEachOtherAreMounts(t *testing.T) {
	h := newHost(t)
	h.policy.Tier = Namespaces
	h.nested("x")
	h.refuse([]attack{
		{"configuration", "echo '# EVIL' >> x/.git/config && echo GOT", true},
		{"hook", "echo EVIL > x/.git/hooks/y && echo GOT; rm -f x/.git/hooks/y", true},
	})
}

// What is noted of the guard is read as it was, whatever bytes are in names.
func TestNotesAreReadAgain(t *testing.T) {
	k := kept{Path: "/w/\xff\n", In: 1 << 63, More: true, Files: []keptFile{
		{Mode: 0o40755, ID: fileID{Inode: 2, Changed: -3, Size: 4}},
		{Path: "a\xfe b", ID: fileID{Inode: 1<<64 - 1, Changed: 1 << 62}, UID: 5, GID: 6, Modified: -7, Text: "li\xffnk"},
	}}
	s := sweep{
		top: "/w\xff", absent: []string{"/w\xff/.envrc"}, gits: []string{"/w\xff/.git"}, shut: []cover{{Path: "/w\xff/ ", Is: birth{1<<64 - 1, -2}, Changed: 3, Hides: true}, {Path: "/w/x"}}, since: 1, until: 2,
		indexes: []gitIndex{{File: "/w/.git/index", Dir: "/w", ID: fileID{1, 2, 3}, Links: []string{"a"}, Hash: 20}}, kept: []kept{k, {Path: "/none"}},
	}
	data, err := s.encode()
	if got := decodeSweep(data); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, s)
	}
	for i := range data { // what is cut off is missing, no more
		decodeSweep(data[:i])
	}
	l := &look{memory: map[string]seen{"a\xff/b": {1, 2, directory, 0}, "c": {3, 0, guarded, 0}}}
	memory := l.encode()
	for i := range memory {
		var got int
		if whole := eachSeen(memory[:i], func([]byte, seen) bool { got++; return true }); whole && i != 0 && got != 1 || got > 1 {
			t.Errorf("%d of %d bytes: %d records, all: %t", i, len(memory), got, whole)
		}
	}
	var parts, got int
	for part := range seenParts(memory, 1) {
		parts++
		eachSeen(part, func(path []byte, s seen) bool {
			if l.memory[string(path[:len(path)-1])] == s {
				got++
			}
			return true
		})
	}
	if parts != 2 || got != 2 {
		t.Errorf("%d parts with %d records", parts, got)
	}
}

// Of many turns the older ones become one, and none is lost of a place that is still there.
func TestTurnsAreKept(t *testing.T) {
	state, mine := t.TempDir(), t.TempDir()
	looks := map[string]*look{}
	for _, top := range []string{mine, mine + "/sub", t.TempDir(), mine + "/gone"} {
		looks[top] = &look{policy: &Policy{GuardState: state}, plan: &sweep{top: top, gits: []string{top + "/.git"}}}
	}
	if err := os.Mkdir(mine+"/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	l := looks[mine]
	turns := int64(mostTurns / len((turn{since: 1e6, until: 1e6, places: l.plan.places()}).encode()))
	for i := range turns {
		for top, one := range looks {
			one.since = 100 * i
			if top != mine {
				one.since += 10
			}
			if err := one.noteTurn(one.since + 5); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A linked worktree of the repository, elsewhere.
	linked := &look{policy: l.policy, plan: &sweep{top: t.TempDir(), gits: []string{mine + "/.git"}}, since: 100*turns + 50}
	if err := linked.noteTurn(100*turns + 55); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(state, turnsFile)); err != nil || info.Size() > mostTurns {
		t.Errorf("%v, %v", info, err)
	}
	for when, want := range map[int64]bool{3: true, 13: true, 100*turns - 97: true, 100*turns - 92: false, 100*turns - 87: true, 100 * turns: false, 100*turns + 53: true} {
		if l.byEarlierTurn(mine+"/x", when, brought) != want {
			t.Errorf("%d: not %v", when, want)
		}
		if l.byEarlierTurn(mine+"/x", when, unknown) {
			t.Errorf("%d: of a workspace that nobody remembers", when)
		}
	}
	for _, turn := range l.turns {
		if len(turn.places) > 0 && !within(turn.places[0], mine) && turn.places[0] != linked.plan.top {
			t.Errorf("a turn in %q", turn.places)
		}
	}
}

// What another program makes and removes while it is looked at is no error.
func TestKeepingWhatGoes(t *testing.T) {
	hooks := filepath.Join(t.TempDir(), "hooks")
	ctx, cancel := context.WithCancel(t.Context())
	var coming sync.WaitGroup
	coming.Go(func() {
		for ctx.Err() == nil {
			_ = os.Mkdir(hooks, 0o755)
			_ = os.WriteFile(filepath.Join(hooks, "a"), []byte("x"), 0o755)
			_ = os.RemoveAll(hooks)
			_ = os.Symlink("elsewhere", hooks)
			_ = os.Remove(hooks)
			_ = unix.Mknod(hooks, unix.S_IFSOCK|0o600, 0)
			_ = os.Remove(hooks)
			_ = os.WriteFile(hooks, nil, 0o600)
			_ = os.Remove(hooks)
		}
	})
	var c copies
	found := 0
	for range 20_000 {
		k, err := c.keep(hooks)
		if err != nil {
			t.Error(err)
			break
		}
		found += len(k.Files)
	}
	cancel()
	coming.Wait()
	if found == 0 {
		t.Error("it was never there")
	}
}
