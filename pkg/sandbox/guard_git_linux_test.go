package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// evilRepository is a shell function that makes a git directory which executes $evil whoever asks for its status.
const evilRepository = `set -u
evil_in() { mkdir -p "$1/objects" "$1/refs"; echo ref: refs/heads/main > "$1/HEAD"; printf '[core]\n\trepositoryformatversion = 0\n\tworktree = %s\n\tfsmonitor = "%s"\n' "$2" "$evil" > "$1/config"; }
`

// Git on the host must execute nothing that the sandbox wrote, wherever in the repository the user asks it for something.
func TestHostGitExecutesNothing(t *testing.T) {
	submodule := func(h *host) {
		h.write("src/project/.gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = ../sub\n")
		h.git(h.policy.Workspace, "update-index", "--add", "--cacheinfo", "160000,1111111111111111111111111111111111111111,sub")
	}
	inSubmodule := func(h *host) {
		sub := filepath.Join(h.policy.Workspace, "sub")
		h.git(h.policy.Workspace, "init", "-q", "sub")
		h.git(sub, "commit", "-q", "--allow-empty", "-m", "first")
		submodule(h)
	}
	worktree := func(h *host) {
		h.git(h.policy.Workspace, "worktree", "add", "-q", filepath.Join(h.policy.Home, "src", "linked"))
	}
	embedded := func(h *host, dir string) {
		h.git(h.policy.Workspace, "init", "-q", dir)
		h.git(filepath.Join(h.policy.Workspace, dir), "commit", "-q", "--allow-empty", "-m", "first")
		h.git(filepath.Join(h.policy.Workspace, filepath.Dir(dir)), "add", filepath.Base(dir))
	}
	hooks := func(configure func(h *host)) func(h *host) {
		return func(h *host) {
			h.write("src/project/.githooks/README", "x")
			configure(h)
		}
	}
	const makeHook = `rm -rf .githooks; mkdir -p .githooks; printf '#!/bin/sh\n%s\n' "$evil" > .githooks/pre-commit; chmod +x .githooks/pre-commit`
	const hooksHere = "[core]\n\thooksPath = ~/src/project/.githooks\n"
	commit := []string{"commit", "-q", "--allow-empty", "-m", "second"}
	const makeNested = `git init -q nested; git -C nested -c user.name=u -c user.email=u@x commit -q --allow-empty -m x; git -C nested config core.fsmonitor "$evil"; `
	for name, c := range map[string]struct {
		before func(h *host)
		script string   // what the sandbox does; $evil is the command to have executed
		then   string   // what the next one does
		in     string   // where the user then runs git, below the directory of projects
		git    []string // what, status if nil
		bare   bool     // the workspace is no repository
	}{
		"another worktree's repository": {
			before: worktree, in: "linked",
			script: `cp -r .git x; printf '[core]\n\tfsmonitor = "%s"\n' "$evil" >> x/config; echo "$PWD/x" > .git/worktrees/linked/commondir`,
		},
		"another worktree, replaced": {
			before: worktree, in: "linked",
			script: `mv .git/worktrees/linked w; mkdir .git/worktrees/linked; cp w/* .git/worktrees/linked; cp -r .git x; printf '[core]\n\tfsmonitor = "%s"\n' "$evil" >> x/config; echo "$PWD/x" > .git/worktrees/linked/commondir`,
		},
		"another worktree's config": {
			before: func(h *host) {
				worktree(h)
				h.git(h.policy.Workspace, "config", "extensions.worktreeConfig", "true")
			},
			in:     "linked",
			script: `printf '[core]\n\tfsmonitor = "%s"\n' "$evil" > .git/worktrees/linked/config.worktree`,
		},
		"submodule that is not checked out": {
			before: submodule, in: "project",
			script: `git init -q sub; git -C sub -c user.name=u -c user.email=u@x commit -q --allow-empty -m x; git -C sub config core.fsmonitor "$evil"`,
		},
		"submodule with a git directory of its own": {
			before: inSubmodule, in: "project",
			script: `git -C sub config core.fsmonitor "$evil"`,
		},
		"repository that is added": {
			in: "project", script: makeNested + `git add nested`,
		},
		"repository that is added, its files first": {
			in: "project", script: makeNested + `mv nested/.git x; git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,nested; mv x nested/.git`,
		},
		"repository that is made a turn before it is added": {
			in: "project", script: makeNested, then: `git add nested`,
		},
		"repository that is made a turn after it was added": {
			in: "project", script: `git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,nested`, then: makeNested,
		},
		"repository that is added to an index of version 4": {
			in: "project", script: makeNested + `echo x > neste; git update-index --index-version 4; git add .`,
		},
		"repository that is added to a split index": {
			in: "project", script: `git update-index --split-index; ` + makeNested + `git add nested`,
		},
		"repository in the place of a file, in a split index": {
			before: func(h *host) {
				h.write("src/project/nested", "x")
				for i := range 100 {
					h.write(fmt.Sprintf("src/project/f%d", i), "x")
				}
				h.git(h.policy.Workspace, "add", ".")
				h.git(h.policy.Workspace, "commit", "-qm", "files")
				h.git(h.policy.Workspace, "update-index", "--split-index")
			},
			in: "project", script: `rm nested; ` + makeNested + `git add nested`,
		},
		"repository that is added by an index in place": {
			in: "project", script: makeNested + `cp .git/index x; GIT_INDEX_FILE=$PWD/x git add nested; cat x > .git/index; rm x`,
		},
		"repository that is added by a name that git would not write": {
			in: "project", script: makeNested + `git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,"xyzzynest${PWD//?/d}"; ` + python(`
import hashlib, os
data = open(".git/index", "rb").read()[:-20]
old = b"xyzzynest" + b"d" * len(os.getcwd())
new = os.getcwd().encode() + b"/./nested"
open(".git/index", "wb").write((lambda d: d + hashlib.sha1(d).digest())(data.replace(old, new)))
`),
		},
		"repository that is added, of SHA-256": {
			before: func(h *host) {
				if err := os.RemoveAll(filepath.Join(h.policy.Workspace, ".git")); err != nil {
					h.t.Fatal(err)
				}
				h.git(h.policy.Workspace, "init", "-q", "--object-format=sha256")
			},
			in: "project", script: strings.Replace(makeNested, "init", "init --object-format=sha256", 1) + `git add nested`,
		},
		"repository that is no submodule": {
			before: func(h *host) { embedded(h, "nested") },
			in:     "project", script: `git -C nested config core.fsmonitor "$evil"`,
		},
		"repository that keeps its own elsewhere": {
			before: func(h *host) {
				embedded(h, "nested")
				if err := os.Rename(filepath.Join(h.policy.Workspace, "nested", ".git"), filepath.Join(h.policy.Workspace, "elsewhere")); err != nil {
					h.t.Fatal(err)
				}
				h.write("src/project/nested/.git", "gitdir: ../elsewhere\n")
			},
			in: "project", script: `git -C nested config core.fsmonitor "$evil"`,
		},
		"repository in a repository": {
			before: func(h *host) { embedded(h, "nested"); embedded(h, "nested/deep") },
			in:     "project", script: `git -C nested/deep config core.fsmonitor "$evil"`,
		},
		"repository in a submodule, added": {
			before: inSubmodule, in: "project",
			script: `cd sub; ` + makeNested + `git add nested`,
		},
		"worktree in the workspace": {
			before: func(h *host) { h.git(h.policy.Workspace, "worktree", "add", "-q", "trees/x") },
			in:     "project/trees/x", script: `rm trees/x/.git; git init -q trees/x; git -C trees/x config core.fsmonitor "$evil"`,
		},
		"repository that is added in a worktree in the workspace": {
			before: func(h *host) { h.git(h.policy.Workspace, "worktree", "add", "-q", "trees/x") },
			in:     "project/trees/x", script: `cd trees/x; ` + makeNested + `git add nested`,
		},
		"workspace that becomes a bare repository": {
			in: "project", script: evilRepository + `evil_in . "$PWD"; rm .git/HEAD`,
		},
		"no repository becomes a bare one": {
			in: "project", script: evilRepository + `evil_in . "$PWD"`, bare: true,
		},
		"hooks of the workspace": {
			before: func(h *host) {
				h.write("src/project/.githooks/README", "x")
				h.git(h.policy.Workspace, "config", "core.hooksPath", ".githooks")
			},
			in: "project", git: []string{"commit", "-q", "--allow-empty", "-m", "second"},
			script: `printf '#!/bin/sh\n%s\n' "$evil" > .githooks/pre-commit; chmod +x .githooks/pre-commit`,
		},
		"hooks of the workspace, not there yet": {
			before: func(h *host) { h.git(h.policy.Workspace, "config", "core.hooksPath", "tools/hooks") },
			in:     "project", git: []string{"commit", "-q", "--allow-empty", "-m", "second"},
			script: `mkdir -p tools/hooks; printf '#!/bin/sh\n%s\n' "$evil" > tools/hooks/pre-commit; chmod +x tools/hooks/pre-commit`,
		},
		"hooks of the workspace by the name of a link": {
			before: hooks(func(h *host) {
				if err := os.Symlink("src/project", filepath.Join(h.policy.Home, "linked")); err != nil {
					h.t.Fatal(err)
				}
				h.git(h.policy.Workspace, "config", "core.hooksPath", "~/linked/.githooks")
			}),
			in: "project", git: commit, script: makeHook,
		},
		"hooks of the workspace that are a link": {
			before: func(h *host) {
				h.write("src/project/tools/README", "x")
				if err := os.Symlink("tools", filepath.Join(h.policy.Workspace, ".githooks")); err != nil {
					h.t.Fatal(err)
				}
				h.git(h.policy.Workspace, "config", "core.hooksPath", ".githooks")
			},
			in: "project", git: commit, script: makeHook,
		},
		"hooks of the workspace behind a link": {
			before: func(h *host) {
				h.write("src/project/tools/.githooks/README", "x")
				if err := os.Symlink("tools", filepath.Join(h.policy.Workspace, "link")); err != nil {
					h.t.Fatal(err)
				}
				h.git(h.policy.Workspace, "config", "core.hooksPath", "link/.githooks")
			},
			in: "project", git: commit, script: `rm link; mkdir link; cd link; ` + makeHook,
		},
		"hooks of the workspace by a value in pieces": {
			before: hooks(func(h *host) {
				config := filepath.Join("src", "project", ".git", "config")
				h.write(config, h.read(config)+"[core] ; settings\n\thooksPath = .git\\\nho\"ok\"s # here\n")
			}),
			in: "project", git: commit, script: makeHook,
		},
		"hooks of the workspace by the user's configuration elsewhere": {
			before: hooks(func(h *host) {
				h.policy.GitEnv = map[string]string{"XDG_CONFIG_HOME": filepath.Dir(filepath.Dir(h.write("xdg/git/config", hooksHere)))}
			}),
			in: "project", git: commit, script: makeHook,
		},
		"hooks of the workspace by a file that a variable names": {
			before: hooks(func(h *host) {
				h.policy.GitEnv = map[string]string{"GIT_CONFIG_GLOBAL": h.write("elsewhere", hooksHere)}
			}),
			in: "project", git: commit, script: makeHook,
		},
		"hooks of the workspace by variables": {
			before: hooks(func(h *host) {
				h.policy.GitEnv = map[string]string{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": ".githooks"}
			}),
			in: "project", git: commit, script: makeHook,
		},
		"command of the workspace": {
			before: func(h *host) {
				h.write("src/project/tools/changed", "#!/bin/sh\n")
				h.git(h.policy.Workspace, "config", "core.fsmonitor", "tools/changed")
			},
			in: "project", script: `printf '#!/bin/sh\n%s\n' "$evil" > tools/changed; chmod +x tools/changed`,
		},
		"command of the workspace, not there yet": {
			before: func(h *host) { h.git(h.policy.Workspace, "config", "core.fsmonitor", "./tools/changed") },
			in:     "project", script: `mkdir tools; printf '#!/bin/sh\n%s\n' "$evil" > tools/changed; chmod +x tools/changed`,
		},
		"command of the workspace that another one runs": {
			before: func(h *host) {
				h.write("src/project/clean.sh", "cat\n")
				h.write("src/project/.gitattributes", "* filter=x\n")
				h.git(h.policy.Workspace, "config", "filter.x.clean", "sh clean.sh %f")
			},
			in: "project", git: []string{"add", "README"}, script: `echo "$evil" > clean.sh; echo changed > README`,
		},
		"the user's configuration in the workspace": {
			before: func(h *host) {
				h.write("src/project/gitconfig", "[user]\n\tname = u\n")
				if err := os.Symlink("src/project/gitconfig", filepath.Join(h.policy.Home, ".gitconfig")); err != nil {
					h.t.Fatal(err)
				}
			},
			in: "project", script: `printf '[core]\n\tfsmonitor = "%s"\n' "$evil" >> gitconfig`,
		},
		"the user's configuration in the workspace, not there yet": {
			before: func(h *host) {
				h.write("src/project/config/README", "x")
				if err := os.Symlink("src/project/config", filepath.Join(h.policy.Home, ".config")); err != nil {
					h.t.Fatal(err)
				}
			},
			in: "project", script: `mkdir -p config/git; printf '[core]\n\tfsmonitor = "%s"\n' "$evil" >> config/git/config`,
		},
		"included configuration": {
			before: func(h *host) {
				h.write("src/project/shared.inc", "[user]\n\tname = u\n")
				h.git(h.policy.Workspace, "config", "include.path", "../shared.inc")
			},
			in: "project", script: `printf '[core]\n\tfsmonitor = "%s"\n' "$evil" >> shared.inc`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				if !c.bare {
					h.repository()
				}
				if c.before != nil {
					c.before(h)
				}
				owned := filepath.Join(h.policy.Home, "src", "owned")
				h.policy.Tier = tier
				h.run("/bin/bash", "-c", "evil='IFS=; touch $OWNED;:'\n"+c.script)
				if c.then != "" {
					h.run("/bin/bash", "-c", "evil='IFS=; touch $OWNED;:'\n"+c.then)
				}
				if c.git == nil {
					c.git = []string{"status"}
				}
				cmd := exec.Command("git", append([]string{"-c", "user.name=u", "-c", "user.email=u@x"}, c.git...)...)
				cmd.Dir = filepath.Join(h.policy.Home, "src", c.in)
				cmd.Env = append(os.Environ(), "HOME="+h.policy.Home, "GIT_CONFIG_NOSYSTEM=1", "OWNED="+owned)
				for name, value := range h.policy.GitEnv {
					cmd.Env = append(cmd.Env, name+"="+value)
				}
				out, _ := cmd.CombinedOutput() // the attack may leave git nothing to show
				_, err := os.Lstat(owned)
				if tier == Off && err != nil {
					t.Errorf("the attack fails outside, too: git says %q", out)
				} else if tier != Off && err == nil {
					t.Errorf("the host's git executed what the sandbox wrote; it says %q", out)
				}
			}
		})
	}
}
