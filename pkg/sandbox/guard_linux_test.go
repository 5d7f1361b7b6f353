package sandbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// git runs git on the host.
func (h *host) git(dir string, args ...string) {
	h.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=u", "-c", "user.email=u@example.com", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+h.policy.Home, "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

// repository makes the workspace a repository with one commit.
func (h *host) repository() {
	h.t.Helper()
	h.git(h.policy.Workspace, "init", "-q")
	h.git(h.policy.Workspace, "add", "-A")
	h.git(h.policy.Workspace, "commit", "-qm", "first")
}

// planted finds the guarded places of a workspace in which something evil stands.
func planted(t *testing.T, workspace string) []string {
	t.Helper()
	var found []string
	for _, name := range append([]string{".git/hooks", ".git/config", ".git/config.worktree", ".git/info", ".git/commondir", ".git/modules", ".git"}, guardedNames...) {
		path := filepath.Join(workspace, name)
		if info, err := os.Lstat(path); err != nil || name == ".git" && info.IsDir() {
			continue
		}
		_ = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				data, _ := os.ReadFile(p)
				if d.Type()&os.ModeSymlink != 0 || strings.Contains(string(data), "EVIL") {
					found = append(found, p)
				}
			}
			return nil
		})
	}
	return found
}

// exchange swaps two names in one step (renameat2).
const exchange = `
import ctypes, os
def swap(a, b): ctypes.CDLL(None).renameat2(-100, a.encode(), -100, b.encode(), 2)
`

// unnamed is a file that gets a name when it is whole (O_TMPFILE).
const unnamed = `
import ctypes, os
f = os.open(".", os.O_TMPFILE | os.O_RDWR)
os.write(f, b"EVIL")
def name(path): ctypes.CDLL(None).linkat(-100, b"/proc/self/fd/%d" % f, -100, path.encode(), 0x400)
`

func TestWorkspaceGuard(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		bare   bool // the workspace is no repository
	}{
		"hook":                  {script: "echo EVIL > .git/hooks/pre-commit"},
		"config":                {script: "echo EVIL >> .git/config"},
		"config by git":         {script: "git config core.fsmonitor EVIL"},
		"attributes":            {script: "mkdir -p .git/info; echo EVIL > .git/info/attributes"},
		"commondir":             {script: "mkdir evil; echo EVIL > .git/commondir"},
		"worktree's config":     {script: "echo EVIL > .git/config.worktree"},
		"submodule":             {script: "mkdir -p .git/modules/x/hooks; echo EVIL > .git/modules/x/hooks/post-checkout"},
		"new editor settings":   {script: "mkdir -p .vscode .idea; echo EVIL > .vscode/tasks.json; echo EVIL > .idea/workspace.xml"},
		"new files":             {script: "for f in .envrc .mcp.json .gitmodules .gitconfig .sesame.yaml; do echo EVIL > $f; done"},
		"all names":             {script: "for n in " + strings.Join(guardedNames, " ") + "; do mkdir -p $n; echo EVIL > $n/x; done"},
		"new settings":          {script: "mkdir -p .amp .husky; echo EVIL > .amp/settings.json; echo EVIL > .husky/pre-commit"},
		"links":                 {script: "echo EVIL > harmless; ln -s harmless .envrc; mkdir d; ln -s d .vscode; echo EVIL > d/tasks.json"},
		"parent renamed":        {script: "mv .git x; mkdir -p .git/hooks; echo EVIL > .git/hooks/pre-commit"},
		"hooks renamed":         {script: "mv .git/hooks .git/old; mkdir .git/hooks; echo EVIL > .git/hooks/pre-commit"},
		"renamed into place":    {script: "echo EVIL > f; mv f .git/config"},
		"linked into place":     {script: "echo EVIL > f; rm -f .git/config; ln f .git/config"},
		"exchanged":             {script: python(exchange + `open("f", "w").write("EVIL"); swap("f", ".git/config")`)},
		"hooks exchanged":       {script: "mkdir f; echo EVIL > f/pre-commit; " + python(exchange+`swap("f", ".git/hooks")`)},
		"repository exchanged":  {script: "cp -r .git f; echo EVIL > f/hooks/pre-commit; " + python(exchange+`swap("f", ".git")`)},
		"settings exchanged":    {script: "mkdir f; echo EVIL > f/tasks.json; " + python(exchange+`swap("f", ".vscode")`)},
		"without a name first":  {script: python(unnamed + `name(".git/hooks/pre-commit")`)},
		"new without a name":    {script: python(unnamed + `name(".envrc")`)},
		"replaced without name": {script: "rm -f .git/config; " + python(unnamed+`name(".git/config")`)},
		"by an open directory":  {script: python(`import os; d = os.open(".git/hooks", os.O_PATH); os.fchdir(d); open("pre-commit", "w").write("EVIL")`)},
		"by another name":       {script: "echo EVIL > /proc/self/cwd/.git/hooks/pre-commit; echo EVIL > .git/../.git//hooks/./post-commit"},
		"old config":            {script: "echo EVIL >> .vscode/settings.json"},
		"old config replaced":   {script: "rm -rf .vscode; mkdir .vscode; echo EVIL > .vscode/settings.json"},
		"unmounted":             {script: "umount .git/hooks; echo EVIL > .git/hooks/x"},
		"new repository":        {script: "git init -q .; echo EVIL > .git/hooks/pre-commit; echo EVIL >> .git/config", bare: true},
		"new repository's file": {script: "echo 'gitdir: EVIL' > .git", bare: true},
		"new repository's link": {script: "mkdir r; git init -q r; echo EVIL > r/.git/hooks/x; ln -s r/.git .git", bare: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				h.write("src/project/.vscode/settings.json", "{}")
				if !c.bare {
					h.repository()
				}
				h.policy.Tier = tier
				h.run("/bin/bash", "-c", c.script)
				got := planted(t, h.policy.Workspace)
				if tier == Off && len(got) == 0 {
					t.Errorf("the attack fails outside, too")
				} else if tier != Off && len(got) > 0 {
					t.Errorf("the attack succeeds: %q", got)
				}
			}
		})
	}
}

// inTurn runs a script in the sandbox and, when that has begun and says so, one on the host, as another program of the user would.
// The first then goes on. It returns what that says.
func (h *host) inTurn(outside, inside string) string {
	h.t.Helper()
	var out lockedBuffer
	p, err := h.start(h.t.Context(), &out, "/bin/bash", "-c", evilScripts+"export evil\ngo() { echo ready; until [ -e go ]; do sleep 0.02; done; rm go; }\n"+inside)
	if err != nil {
		h.t.Fatal(err)
	}
	out.waitFor(h.t, "ready")
	cmd := exec.Command("/bin/bash", "-ec", outside+"\ntouch go")
	cmd.Dir = h.policy.Workspace
	cmd.Env = append(os.Environ(), "HOME="+h.policy.Home, "GIT_CONFIG_NOSYSTEM=1")
	if said, err := cmd.CombinedOutput(); err != nil {
		h.t.Errorf("%v: %s", err, said)
	}
	if _, err := p.Wait(); err != nil {
		h.t.Fatal(err)
	}
	return out.String()
}

// What changes while a sandbox is made for a command that never runs is nobody's doing but the host's.
func TestWithoutACommandNothingIsSwept(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.policy.Notice = func(s string) {
		if !strings.Contains(s, "weaker") {
			t.Errorf("it says %q", s)
		}
	}
	fresh := filepath.Join(h.policy.Workspace, ".envrc")
	config := filepath.Join(h.policy.Workspace, ".git/config")
	watch := func() {
		h.git(h.policy.Workspace, "config", "core.pager", "mine")
		if err := os.WriteFile(fresh, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		var missing *NoCommandError
		_, err := Start(t.Context(), &h.policy, &Command{Args: []string{"/no/such/command"}, Env: h.env, Watch: watch})
		if !errors.As(err, &missing) {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(config); err != nil || !strings.Contains(string(data), "mine") {
			t.Errorf("%v, %s", err, data)
		}
		if _, err := os.Lstat(fresh); err != nil {
			t.Error(err)
		}
		if r := h.run("true"); r.code != 0 { // nor by the next one
			t.Errorf("%+v", r)
		}
		if _, err := os.Lstat(fresh); err != nil {
			t.Error(err)
		}
	}
}

// What another program of the host replaces during a turn can be written inside from then on: it is put back, and told.
func TestReplacedDuringTheTurn(t *testing.T) {
	for name, c := range map[string]struct {
		outside, inside string
		in              string   // where the user then runs git
		git             []string // if not status
		early           bool     // before a look has come there
		lost            bool     // it is not put back, but moved away
	}{
		"configuration":                              {outside: "git config user.email x@y", inside: "fsmonitor .git/config"},
		"configuration, early":                       {outside: "git config user.email x@y", inside: "fsmonitor .git/config", early: true},
		"configuration, twice":                       {outside: "git config user.email x@y; git config user.email z@y", inside: "fsmonitor .git/config"},
		"configuration beside":                       {outside: "git -C x config user.email x@y", inside: "fsmonitor x/.git/config", in: "x"},
		"configuration of the worktree's repository": {outside: "git -C tree config user.email x@y", inside: "fsmonitor .git/config", in: "tree"},
		"hooks":         {outside: "rm -r .git/hooks", inside: "hook .git/hooks", git: []string{"commit", "-q", "--allow-empty", "-m", "x"}},
		"hooks, early":  {outside: "rm -r .git/hooks", inside: "hook .git/hooks", git: []string{"commit", "-q", "--allow-empty", "-m", "x"}, early: true},
		"settings":      {outside: "mv .vscode old", inside: "mkdir .vscode; echo EVIL > .vscode/tasks.json"},
		"file":          {outside: "cp .mcp.json n; mv n .mcp.json", inside: "echo EVIL >> .mcp.json"},
		"submodule's":   {outside: "mv .git/modules old", inside: "git init -q .git/modules/m; mv .git/modules/m/.git .git/modules/sub; rmdir .git/modules/m; git -C .git/modules/sub config core.worktree ../../../sub; fsmonitor .git/modules/sub/config", in: "sub"},
		"file, early":   {outside: "cp .mcp.json n; mv n .mcp.json", inside: "echo EVIL >> .mcp.json", early: true, lost: true},
		"file, removed": {outside: "rm .mcp.json", inside: "echo EVIL >> .mcp.json"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				h.write("src/project/.vscode/settings.json", "{}")
				h.write("src/project/.mcp.json", "{}")
				h.repository()
				h.nested("x")
				h.git(h.policy.Workspace, "config", "alias.mine", "log -1")
				h.git(h.policy.Workspace, "init", "-q", "--separate-git-dir", "made", "sub")
				if err := errorsOf(os.Mkdir(h.policy.Workspace+"/.git/modules", 0o755), os.Rename(h.policy.Workspace+"/made", h.policy.Workspace+"/.git/modules/sub")); err != nil {
					t.Fatal(err)
				}
				h.write("src/project/sub/.git", "gitdir: ../.git/modules/sub\n")
				h.git(h.policy.Workspace+"/.git/modules/sub", "config", "core.worktree", "../../../sub")
				h.git(h.policy.Workspace, "worktree", "add", "-q", "tree")
				h.policy.Tier = tier
				var told []string
				h.policy.Notice = func(s string) { told = append(told, s) }
				wait := "sleep 0.6; "
				if c.early {
					wait = ""
				}
				h.inTurn(c.outside, wait+"go; "+c.inside)
				owned, says := h.gitOutside(c.in, c.git...)
				got := planted(t, h.policy.Workspace)
				if bad := owned || len(got) > 0; bad != (tier == Off) {
					t.Errorf("in tier %s git executed it: %t, and says %s; left %q; told %q", tier, owned, says, got, told)
				}
				if tier == Off {
					continue
				}
				if !strings.Contains(strings.Join(told, "\n"), "while the sandbox ran") {
					t.Errorf("nothing is told: %q", told)
				}
				if data, err := os.ReadFile(filepath.Join(h.policy.Workspace, ".mcp.json")); !c.lost && (err != nil || string(data) != "{}") {
					t.Errorf("%q, %v; told %q", data, err, told)
				}
				if !c.early {
					h.git(h.policy.Workspace, "config", "--get", "alias.mine")
				}
				h.quietly("true")
			}
		})
	}
}

// That a branch follows another one is not put back, though git replaces its configuration for that.
func TestBranchFollowsDuringTheTurn(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.git(h.policy.Workspace, "init", "-q", "--bare", "../origin.git")
	h.git(h.policy.Workspace, "remote", "add", "origin", "../origin.git")
	var told []string
	h.policy.Notice = func(s string) {
		if !strings.Contains(s, "weaker than namespaces") {
			told = append(told, s)
		}
	}
	h.inTurn("git push -q -u origin main", "sleep 0.6; go")
	h.git(h.policy.Workspace, "rev-parse", "--abbrev-ref", "main@{upstream}")
	if len(told) > 0 {
		t.Errorf("told %q", told)
	}
	h.quietly("true")
	h.inTurn("git branch -q --unset-upstream", "sleep 0.6; go; fsmonitor .git/config")
	if owned, says := h.gitOutside("."); owned {
		t.Error(says)
	}
}

// What the host writes in place, or into a directory, stays out of the sandbox's reach and is left alone.
func TestWrittenDuringTheTurn(t *testing.T) {
	h := newHost(t)
	h.policy.Tier = Namespaces
	h.write("src/project/.mcp.json", "{}")
	h.repository()
	var told []string
	h.policy.Notice = func(s string) { told = append(told, s) }
	h.inTurn("echo '{ }' > .mcp.json; echo true > .git/hooks/pre-commit", "sleep 0.6; go; echo EVIL > .mcp.json; echo EVIL > .git/hooks/pre-commit")
	if got := h.read("src/project/.mcp.json") + h.read("src/project/.git/hooks/pre-commit"); got != "{ }\ntrue\n" || len(told) > 0 {
		t.Errorf("%q, told %q", got, told)
	}
}

// A secret of the workspace that another program replaces during a turn comes into sight, and that is told.
func TestSecretReplacedDuringTheTurn(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.policy.DenyRead = []string{h.write("src/project/.env", "SECRET\n"), h.write("src/project/kept", "SECRET\n")}
	var told []string
	h.policy.Notice = func(s string) { told = append(told, s) }
	out := h.inTurn("cp .env n; mv n .env", "go; cat .env; echo; cat kept")
	exposed := strings.Contains(out, "SECRET")
	if says := strings.Contains(strings.Join(told, "\n"), ".env is to be kept from the sandbox"); says != exposed {
		t.Errorf("it could be read: %t; told %q", exposed, told)
	}
	if exposed && testTier() == Landlock {
		t.Error("it could be read")
	}
}

// What cannot be looked at when a turn begins could be opened up, and written or read, while it lasts.
func TestUnreadableDirectories(t *testing.T) {
	for name, c := range map[string]struct{ before, script string }{
		"repository": {"chmod 000 .git", "chmod 755 .git && echo EVIL > .git/hooks/pre-commit && echo GOT"},
		"submodule":  {"chmod 000 lib", "chmod 755 lib && echo EVIL > lib/sub/.git && echo GOT"},
		"secret":     {"chmod 000 conf", "chmod 755 conf && grep SECRET conf/deep/key && echo GOT"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				h.repository()
				h.write("src/project/.gitmodules", "[submodule \"sub\"]\n\tpath = lib/sub\n")
				h.write("src/project/lib/sub/.git", "gitdir: ../../.git/modules/sub\n")
				h.policy.DenyRead = []string{h.write("src/project/conf/deep/key", "SECRET")}
				h.policy.Tier = Off
				h.sh(c.before)
				h.policy.Tier = tier
				var out lockedBuffer
				p, err := h.start(t.Context(), &out, "/bin/bash", "-c", c.script)
				if err == nil {
					_, err = p.Wait()
				}
				got := strings.Contains(out.String(), "GOT")
				if name != "secret" { // what is put back was of no use
					got = exec.CommandContext(t.Context(), "grep", "-rq", "EVIL", h.policy.Workspace).Run() == nil
				}
				if tier == Off && !got {
					t.Errorf("the attack fails outside, too: %s", out.String())
				}
				if tier != Off && got {
					t.Errorf("the attack succeeds")
				}
				if tier != Off && err != nil && !strings.Contains(strings.Join(fault.HintsOf(err), " "), "chmod") {
					t.Errorf("%v, hints %q", err, fault.HintsOf(err))
				}
			}
		})
	}
}

// Submodules are guarded, and so is every other repository in the workspace.
func TestSubmodulesAreGuarded(t *testing.T) {
	for _, script := range []string{
		"echo 'gitdir: EVIL' > lib/sub/.git",
		"rm lib/sub/.git; echo 'gitdir: EVIL' > lib/sub/.git",
		"mv lib/sub x; mkdir lib/sub; echo 'gitdir: EVIL' > lib/sub/.git",
		"mv lib x; mkdir -p lib/sub; echo 'gitdir: EVIL' > lib/sub/.git",
		"echo EVIL >> .git/modules/sub/config",
		"echo EVIL > .git/modules/sub/hooks/post-checkout",
		"echo 'gitdir: EVIL' > lib/empty/.git",
		"mkdir -p lib/empty/.git/hooks; echo EVIL > lib/empty/.git/hooks/x",
		"echo EVIL >> lib/old/.git/config",
		"mv lib/old/.git x; mkdir -p lib/old/.git; echo EVIL > lib/old/.git/config",
		"echo EVIL >> other/.git/config",
		"mkdir -p new/.git/hooks; echo EVIL > new/.git/hooks/post-checkout",
	} {
		t.Run(script, func(t *testing.T) {
			for _, tier := range []Tier{Off, testTier()} {
				h := newHost(t)
				h.repository()
				h.write("src/project/.gitmodules", "[submodule \"sub\"]\n\tpath = lib/sub\n[submodule \"old\"]\n\tpath = lib/old\n[submodule \"empty\"]\n\tpath = lib/empty\n")
				h.write("src/project/lib/empty/README", "not there yet")
				h.git(h.policy.Workspace, "init", "-q", "lib/old")
				if err := os.Mkdir(filepath.Join(h.policy.Workspace, ".git", "modules"), 0o755); err != nil {
					t.Fatal(err)
				}
				h.git(h.policy.Workspace, "init", "-q", "--separate-git-dir", ".git/modules/sub", "lib/sub")
				h.git(h.policy.Workspace, "init", "-q", "other")
				h.policy.Tier = tier
				h.run("/bin/bash", "-c", script)
				out, err := exec.CommandContext(t.Context(), "grep", "-rl", "EVIL", h.policy.Workspace).Output()
				// What lies beside the place that git looks at does no harm.
				if planted := err == nil && !strings.Contains(string(out), "/x/"); planted != (tier == Off) {
					t.Errorf("%s: planted %v: %s", tier, planted, out)
				}
			}
		})
	}
}

func TestGuardLeavesNoGhosts(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.nested("vendor/x")
	h.nested("y")
	h.write("src/project/a/.envrc", "x")
	before := listTree(t, h.policy.Workspace)
	h.run("/bin/bash", "-c", "echo EVIL >> vendor/x/.git/config; echo EVIL > a/.envrc; mkdir a/.vscode .idea")
	h.git(h.policy.Workspace, "config", "status.showUntrackedFiles", "no")
	if out := h.sh("ls -a; git status --porcelain"); strings.Contains(out, ".envrc") || strings.Contains(out, "?") {
		t.Errorf("ghosts inside: %s", out)
	}
	if after := listTree(t, h.policy.Workspace); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func listTree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		b.WriteString(path + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// gitWork is what must go on working.
const gitWork = `set -e
export GIT_AUTHOR_NAME=u GIT_AUTHOR_EMAIL=u@x GIT_COMMITTER_NAME=u GIT_COMMITTER_EMAIL=u@x
echo one > one; git status --short; git add one; git commit -qm one
git checkout -qb topic; echo two > two; git stash -uq; git stash pop -q; git add -A; git commit -qm two
git checkout -q -; git merge -q topic; git tag v1; git gc -q 2> said; [ ! -s said ]; rm said
[ "$(git log --oneline | wc -l)" = 3 ]
`

func TestGitWorks(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.quietly(gitWork)
	h.git(h.policy.Workspace, "rev-parse", "--verify", "v1^{commit}") // on the host, too
}

func TestGitWorksInALinkedWorktree(t *testing.T) {
	h := newHost(t)
	h.repository()
	main, linked := h.policy.Workspace, filepath.Join(h.policy.Home, "src", "linked")
	h.git(main, "worktree", "add", "-q", "-b", "side", linked)
	h.policy.Workspace = linked
	work := gitWork
	if testTier() == Landlock {
		work = strings.Replace(work, "git gc -q 2> said; [ ! -s said ]; rm said", "", 1) // packing makes files beside what is guarded
	}
	h.sh(work)
	h.git(main, "rev-parse", "--verify", "v1^{commit}")
	h.run("/bin/bash", "-c", "cd ../project; echo EVIL >> .git/config; echo EVIL > .git/hooks/pre-commit; echo EVIL > README; echo EVIL > .git/commondir")
	h.run("/bin/bash", "-c", "echo 'gitdir: EVIL' > .git; rm -f .git; echo 'gitdir: EVIL' > .git")
	if got := append(planted(t, main), planted(t, linked)...); len(got) > 0 || h.read("src/project/README") != "hello" {
		t.Errorf("changed: %q, README %q", got, h.read("src/project/README"))
	}
}

// A repository behind a link is worked in like any other, by turns and by the host while they run, and guarded like any other.
func TestRepositoryBehindALink(t *testing.T) {
	for _, dir := range []string{".", "beside", "a/below"} {
		t.Run(dir, func(t *testing.T) {
			h := newHost(t)
			h.repository()
			work := filepath.Join(h.policy.Workspace, dir)
			if dir != "." {
				if err := os.MkdirAll(work, 0o755); err != nil {
					t.Fatal(err)
				}
				h.git(work, "init", "-q")
			}
			h.git(work, "config", "alias.mine", "status")
			h.write(filepath.Join("src/project", dir, "big"), strings.Repeat("0123456789abcdef\n", 200_000))
			h.git(work, "add", "big")
			h.git(work, "-c", "core.compression=0", "commit", "-q", "-m", "big") // more than is kept of what is guarded
			store := filepath.Join(work, "store")
			if err := os.Mkdir(store, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(work, ".git"), filepath.Join(store, "g")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("store/g", filepath.Join(work, ".git")); err != nil {
				t.Fatal(err)
			}
			const me = "export GIT_AUTHOR_NAME=u GIT_AUTHOR_EMAIL=u@x GIT_COMMITTER_NAME=u GIT_COMMITTER_EMAIL=u@x\n"
			for _, name := range []string{"first", "second"} {
				h.quietly(me + "set -e; cd " + dir + "; git status --short; echo " + name + " > " + name + "; git add " + name + "; git commit -qm " + name + "; sleep 0.5")
				h.git(work, "rev-parse", "--verify", "HEAD:"+name)
			}
			h.inTurn(me+"(cd "+dir+" && git commit -q --allow-empty -m mine)", "go")
			if got, err := os.ReadFile(filepath.Join(store, "g", "logs", "HEAD")); err != nil || !strings.HasSuffix(string(got), "mine\n") {
				t.Errorf("what was committed during a turn is gone: %q, %v", got, err)
			}
			h.git(work, "fsck", "--no-dangling")
			h.policy.Notice = func(string) {}
			h.run("/bin/bash", "-c", "cd "+dir+"; echo EVIL > store/g/hooks/post-commit; chmod +x store/g/hooks/post-commit; echo EVIL >> store/g/config; git config core.fsmonitor EVIL; rm .git; cp -r store/g other; echo EVIL > other/hooks/pre-commit; ln -s other .git")
			if got, err := os.ReadFile(filepath.Join(store, "g", "config")); err != nil || strings.Contains(string(got), "EVIL") || !strings.Contains(string(got), "mine = status") {
				t.Errorf("the configuration is %q, %v", got, err)
			}
			if _, err := os.Lstat(filepath.Join(store, "g", "hooks", "post-commit")); err == nil {
				t.Error("a hook was planted")
			}
			if text, err := os.Readlink(filepath.Join(work, ".git")); err != nil || text != "store/g" {
				t.Errorf("the link leads to %q, %v", text, err)
			}
		})
	}
}

// A .git file may come with a hostile workspace and name somebody else's repository.
func TestForeignRepositoryIsNotOpened(t *testing.T) {
	h := newHost(t)
	victim := filepath.Join(h.policy.Home, "src", "victim")
	if err := os.MkdirAll(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	h.git(victim, "init", "-q")
	h.git(victim, "commit", "-q", "--allow-empty", "-m", "first")
	h.git(victim, "worktree", "add", "-q", filepath.Join(h.policy.Home, "src", "other"))
	for _, dir := range []string{victim + "/.git", victim + "/.git/worktrees/other", "../victim/.git/worktrees/other"} {
		h.write("src/project/.git", "gitdir: "+dir+"\n")
		h.run("/bin/bash", "-c", "echo EVIL > ../victim/.git/HEAD; echo EVIL > ../victim/.git/worktrees/other/HEAD")
		if got := h.read("src/victim/.git/HEAD") + h.read("src/victim/.git/worktrees/other/HEAD"); strings.Contains(got, "EVIL") {
			t.Errorf("%s: the victim's repository was written", dir)
		}
	}
}

// What a killed sandbox left is swept before the next one begins.
func TestSweepAfterKill(t *testing.T) {
	h := newHost(t)
	h.repository()
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	p, err := h.start(ctx, write, "/bin/sh", "-c", "git init -q nested; git -C nested -c user.name=u -c user.email=u@x commit -q --allow-empty -m x; git add nested 2> /dev/null; echo EVIL > .envrc; echo made; sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(read, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	// As if sesame had been killed: the list is there, and nobody has swept.
	list, err := os.ReadFile(filepath.Join(h.policy.guardDir(), guardFile))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, _ = p.Wait()
	envrc := h.write("src/project/.envrc", "EVIL")
	nested := h.write("src/project/nested/.git/HEAD", "EVIL")
	if err := os.WriteFile(filepath.Join(h.policy.guardDir(), guardFile), list, 0o600); err != nil {
		t.Fatal(err)
	}
	var told []string
	h.policy.Notice = func(s string) {
		if strings.Contains(s, "while the sandbox ran") {
			told = append(told, s)
		}
	}
	h.sh("true")
	if _, err := os.Lstat(envrc); err == nil {
		t.Error(".envrc is still there")
	}
	if _, err := os.Lstat(nested); err == nil {
		t.Error("the repository that was added is still there")
	}
	if len(told) != 2 || !strings.Contains(told[0], ".envrc") || !strings.Contains(told[1], "nested/.git") {
		t.Errorf("told %q", told)
	}
}

func TestAllowWriteOpensTheGuard(t *testing.T) {
	h := newHost(t)
	h.repository()
	h.write("src/project/nested/wanted", "x")
	h.write("src/project/.vscode/settings.json", "{}")
	h.policy.AllowWrite = []string{filepath.Join(h.policy.Workspace, ".vscode"), filepath.Join(h.policy.Workspace, "nested")}
	h.sh("echo wanted > .vscode/settings.json; git init -q nested; git -C nested -c user.name=u -c user.email=u@x commit -q --allow-empty -m x; git add nested 2> /dev/null")
	if _, err := os.Lstat(filepath.Join(h.policy.Workspace, "nested", ".git")); err != nil {
		t.Error(err)
	}
	if got := h.read("src/project/.vscode/settings.json"); got != "wanted\n" {
		t.Errorf("%q", got)
	}
}

// The guard must not look through the repository.
func BenchmarkPlanOfALargeWorkspace(b *testing.B) {
	for _, files := range []int{100, 200_000} {
		dir := b.TempDir()
		for i := range files {
			if i%1000 == 0 {
				if err := os.Mkdir(filepath.Join(dir, "d"+strconv.Itoa(i)), 0o755); err != nil {
					b.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "d"+strconv.Itoa(i-i%1000), strconv.Itoa(i)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
		p := &Policy{Tier: Namespaces, Workspace: dir}
		b.Run(strconv.Itoa(files), func(b *testing.B) {
			for b.Loop() {
				if _, err := drawTree(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
