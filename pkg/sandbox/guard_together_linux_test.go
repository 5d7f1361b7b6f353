package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// companion is a sandbox whose command waits for a file of the workspace when it has done something.
type companion struct {
	*Process
	h    *host
	name string
}

// runs starts one: it does what the script says, once that is there the word is given.
func (h *host) runs(name, script string) companion {
	h.t.Helper()
	out := &lockedBuffer{}
	p, err := h.start(h.t.Context(), out, "/bin/bash", "-c", script+"\necho ready; until [ -e end-"+name+" ]; do sleep 0.02; done")
	if err != nil {
		h.t.Fatal(err)
	}
	out.waitFor(h.t, "ready")
	return companion{p, h, name}
}

func (r companion) end() {
	r.h.t.Helper()
	r.h.write(strings.TrimPrefix(r.h.policy.Workspace, r.h.policy.Home)+"/end-"+r.name, "")
	if st, err := r.Wait(); err != nil || st.Code != 0 {
		r.h.t.Errorf("%s: %+v, %v", r.name, st, err)
	}
}

// beside is the same host for a sandbox that runs at the same time.
func (h *host) beside() *host { return &host{t: h.t, policy: h.policy, env: h.env} }

// plants is a script that plants something at the top, below it and in git's directory.
const plants = `echo EVIL > .envrc; mkdir .vscode; echo EVIL > .vscode/tasks.json; mkdir -p deep/x; echo EVIL > deep/x/.envrc
mkdir -p .git/evil; echo EVIL > .git/commondir; echo EVIL 2> /dev/null >> .git/config; git init -q deep/r; printf '[core]\n\tfsmonitor = EVIL\n' >> deep/r/.git/config`

// longEnough is how long a sandbox runs until it has looked at its workspace.
const longEnough = lookDelay + 300*time.Millisecond

// What a sandbox plants while others run none of them takes for the user's, and puts back.
func TestTogether(t *testing.T) {
	for name, ends := range map[string][]string{
		"the first one ends first": {"evil", "good"},
		"the last one ends first":  {"good", "evil"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.repository()
			all := map[string]companion{"evil": h.runs("evil", plants)}
			all["good"] = h.beside().runs("good", "")
			time.Sleep(longEnough)
			for _, name := range ends {
				all[name].end()
			}
			if got := append(planted(t, h.policy.Workspace), plantedBelow(t, h.policy.Workspace)...); len(got) > 0 {
				t.Errorf("left: %q", got)
			}
			if r := h.run("true"); r.code != 0 {
				t.Errorf("%+v", r)
			}
			if got := append(planted(t, h.policy.Workspace), plantedBelow(t, h.policy.Workspace)...); len(got) > 0 {
				t.Errorf("left by the next one: %q", got)
			}
		})
	}
}

// in is the same host for a sandbox of another workspace that runs at the same time.
func (h *host) in(dir string) *host {
	other := h.beside()
	other.policy.Workspace = filepath.Join(h.policy.Home, "src", dir)
	return other
}

// worktrees makes a repository of the workspace, with linked worktrees beside it.
func (h *host) worktrees(names ...string) {
	h.t.Helper()
	h.repository()
	for _, name := range names {
		h.git(h.policy.Workspace, "worktree", "add", "-q", "../"+name)
	}
}

// Nor does one of another workspace that can write in the same places, or with another profile; and what is the user's stays.
func TestTogetherElsewhere(t *testing.T) {
	const evil = `D=$(git rev-parse --git-common-dir 2> /dev/null); [ -w "$D" ] || D=.git
echo EVIL > .envrc; mkdir .vscode; echo EVIL > .vscode/tasks.json; mkdir -p deep/x; echo EVIL > deep/x/.envrc
{ echo EVIL > "$D/commondir"; printf '[core]\n\tfsmonitor = EVIL\n' >> "$D/config"; echo EVIL > "$D/hooks/post-checkout"; echo EVIL >> "$D/hooks/pre-commit"; echo EVIL >> mine/.envrc; echo EVIL >> .idea/x; } 2> /dev/null`
	mine := []string{"project/.git/config", "project/.git/hooks/pre-commit", "project/mine/.envrc", "project/.idea/x", "project/sub/mine/.envrc", "project/sub/.idea/x", "w2/mine/.envrc", "w2/.idea/x"}
	for name, c := range map[string]struct{ evil, good string }{
		"linked worktrees":                     {"w2", "w3"},
		"a linked worktree and its repository": {"w2", "project"},
		"a repository and its linked worktree": {"project", "w3"},
		"below":                                {"project/sub", "project"},
		"above":                                {"project", "project/sub"},
		"profiles":                             {"project", "project"},
	} {
		for _, tiers := range [][]Tier{{testTier(), testTier()}, {Landlock, testTier()}} {
			for _, goodFirst := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s and %s/%v", name, tiers[0], tiers[1], goodFirst), func(t *testing.T) {
					t.Parallel()
					h := newHost(t)
					h.worktrees("w2", "w3")
					h.git(h.policy.Workspace, "config", "alias.mine", "status")
					before := map[string]string{}
					for _, path := range mine {
						if !strings.HasSuffix(path, "config") {
							h.write("src/"+path, "mine\n")
						}
						before[path] = h.read("src/" + path)
					}
					for _, dir := range []string{c.evil, c.good} {
						h.in(dir).sh("true") // what is there is known
					}
					one, other := h.in(c.evil), h.in(c.good)
					one.policy.Tier, other.policy.Tier = tiers[0], tiers[1]
					if name == "profiles" {
						one.policy.Profile, one.policy.HomeState = Strict, h.policy.HomeState+"-strict"
					}
					bad := one.runs("evil", evil)
					time.Sleep(longEnough)
					good := other.runs("good", "")
					time.Sleep(longEnough)
					ends := []companion{bad, good}
					if goodFirst {
						slices.Reverse(ends)
					}
					for _, r := range ends {
						r.end()
					}
					for _, dir := range []string{c.evil, c.good, "project"} {
						dir = filepath.Join(h.policy.Home, "src", dir)
						if got := append(planted(t, dir), plantedBelow(t, dir)...); len(got) > 0 {
							t.Errorf("left: %q", got)
						}
					}
					for path, text := range before {
						if got, err := os.ReadFile(filepath.Join(h.policy.Home, "src", path)); err != nil || string(got) != text {
							t.Errorf("%s: %q, %v", path, got, err)
						}
					}
				})
			}
		}
	}
}

// What one that still runs has changed a look at the end of another one does not take for the user's either: a third one would put it back.
func TestLeftToThoseWhoRun(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.repository()
	h.git(h.policy.Workspace, "init", "-q", "sub/a/repo")
	mine := map[string]string{"src/project/sub/a/.envrc": "mine", "src/project/sub/a/repo/.git/config": h.read("src/project/sub/a/repo/.git/config")}
	for path, text := range mine {
		h.write(path, text)
	}
	h.in("project").sh("true")
	h.in("project/sub").sh("true")
	evil := h.in("project").runs("evil", `printf '[core]\n\tfsmonitor = EVIL\n' >> sub/a/repo/.git/config; echo EVIL > sub/a/repo/.git/hooks/post-checkout
echo EVIL >> sub/a/.envrc; mkdir sub/a/.vscode; echo EVIL > sub/a/.vscode/tasks.json; git init -q sub/b; printf '[core]\n\tfsmonitor = EVIL\n' >> sub/b/.git/config`)
	time.Sleep(longEnough)
	for range 2 {
		first, good := h.in("project/sub").runs("first", ""), h.in("project/sub").runs("good", "")
		time.Sleep(longEnough)
		first.end()
		good.end() // and it sweeps for both
		for _, name := range []string{"first", "good"} {
			if err := os.Remove(filepath.Join(h.policy.Workspace, "sub/end-"+name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	third := h.in("project/sub").runs("third", "")
	time.Sleep(longEnough)
	evil.end()
	third.end()
	h.in("project/sub").sh("true")
	if got := append(planted(t, h.policy.Workspace), plantedBelow(t, h.policy.Workspace)...); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	for path, text := range mine {
		if got, err := os.ReadFile(filepath.Join(h.policy.Home, path)); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{"sub/a/repo/.git/hooks/post-checkout", "sub/b/.git/config"} {
		if data, err := os.ReadFile(filepath.Join(h.policy.Workspace, path)); err == nil && bytes.Contains(data, []byte("EVIL")) {
			t.Errorf("%s: %q", path, data)
		}
	}
}

// makesEvil is a function that makes a repository with something evil in it.
const makesEvil = `evil() { mkdir -p "$1" && git init -q "$1/x" && printf '[core]\n\tfsmonitor = EVIL\n' >> "$1/x/.git/config" && echo EVIL > "$1/x/.envrc"; }
`

// What one that still runs has hidden where nobody looks is not the user's when another one moves it out.
func TestHiddenByThoseWhoRun(t *testing.T) {
	for name, c := range map[string]struct {
		hider, mover string
		tier         Tier // of the mover: a mount is not moved out of
		in, from     string
	}{
		"linked worktrees": {"w2", "w3", Landlock, "../project/.git/objects/p", "../project/.git/objects/p"},
		"below":            {"project/a/b", "project", testTier(), ".git/p", "a/b/.git/p"},
	} {
		for _, hiderFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, hiderFirst), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.worktrees("w2", "w3")
				h.git(h.policy.Workspace, "init", "-q", "a/b")
				hider, mover := h.in(c.hider), h.in(c.mover)
				mover.policy.Tier = c.tier
				hider.sh("true")
				mover.sh("true")
				ends := []companion{hider.runs("hider", makesEvil+"evil "+c.in)}
				time.Sleep(longEnough)
				ends = append(ends, mover.runs("mover", "mv "+c.from+" p"))
				time.Sleep(longEnough)
				if !hiderFirst {
					slices.Reverse(ends)
				}
				for _, r := range ends {
					r.end()
				}
				mover.sh("true")
				config, err := os.ReadFile(filepath.Join(mover.policy.Workspace, "p/x/.git/config"))
				if err != nil || bytes.Contains(config, []byte("EVIL")) {
					t.Errorf("the configuration is %q, %v", config, err)
				}
				if got := plantedBelow(t, mover.policy.Workspace); len(got) > 0 {
					t.Errorf("left: %q", got)
				}
			})
		}
	}
}

// What a turn has made before, and one that still runs has put in the place of the user's, is not put back when that one's sweep has removed it.
func TestPutThereByThoseWhoRun(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.repository()
	h.git(h.policy.Workspace, "init", "-q", "a/sub")
	sub := h.in("project/a/sub")
	h.in("project").sh("true")
	sub.sh("true")
	sub.sh(`mkdir .git/e; for f in .git/*; do [ $f = .git/e ] || cp -r $f .git/e/; done; printf '[core]\n\tfsmonitor = EVIL\n' >> .git/e/config; echo EVIL > .git/e/hooks/pre-commit`)
	evil := h.in("project").runs("evil", "mv a/sub/.git/e a/e; mv a/sub/.git a/real; mv a/e a/sub/.git")
	time.Sleep(longEnough)
	good := sub.runs("good", "")
	time.Sleep(longEnough)
	evil.end()
	good.end()
	sub.sh("true")
	if got := planted(t, sub.policy.Workspace); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// A sandbox that joins others of its workspace may write in no repository elsewhere that one of them has put into an index.
func TestIndexOpensNothingElsewhere(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.repository()
	h.git(h.policy.Workspace, "init", "-q", "../two")
	two := h.in("two")
	h.git(h.policy.Workspace, "worktree", "add", "-q", "../two/wt")
	two.sh("true")
	one := two.runs("one", "git update-index --add --cacheinfo 160000,$(git -C wt rev-parse HEAD),wt")
	two.beside().run("/bin/bash", "-c", "echo EVIL > '"+h.policy.Workspace+"/.git/evil'") // which may work, in the home's own layer
	one.end()
	if _, err := os.Lstat(filepath.Join(h.policy.Workspace, ".git/evil")); err == nil {
		t.Error("it is there")
	}
}

// What leads a linked worktree elsewhere that the user makes while a sandbox runs is put right at its end, and the worktree stays one.
func TestWorktreeMadeDuringTheTurn(t *testing.T) {
	for _, dir := range []string{"project", "w2"} {
		for _, beside := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", dir, beside), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.worktrees("w2")
				evil := h.in(dir).runs("evil", `D=$(git rev-parse --git-common-dir); echo ready; until [ -e go ]; do sleep 0.02; done
echo EVIL > "$D/worktrees/w4/commondir"; printf '[core]\n\tfsmonitor = EVIL\n' > "$D/worktrees/w4/config.worktree"`)
				h.git(h.policy.Workspace, "worktree", "add", "-q", "../w4")
				h.write("src/"+dir+"/go", "")
				time.Sleep(longEnough)
				if beside {
					good := h.in("w4").runs("good", "")
					time.Sleep(longEnough)
					defer good.end()
				}
				evil.end()
				own := filepath.Join(h.policy.Workspace, ".git/worktrees/w4")
				if data, err := os.ReadFile(own + "/commondir"); err != nil || string(data) != "../..\n" {
					t.Errorf("it leads to %q, %v", data, err)
				}
				if data, _ := os.ReadFile(own + "/config.worktree"); bytes.Contains(data, []byte("EVIL")) {
					t.Errorf("its configuration is %q", data)
				}
				h.git(filepath.Join(h.policy.Home, "src/w4"), "status")
			})
		}
	}
}

// What another one without mounts has removed, and put back, is the user's: it neither appeared nor is it somebody else's.
func TestPutBackByAnother(t *testing.T) {
	for name, c := range map[string]struct {
		good      string
		goodFirst bool
	}{
		"a linked worktree": {"w2", false}, "before it": {"w2", true}, "the same workspace": {"project", false}, "the same, before it": {"project", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.worktrees("w2")
			h.git(h.policy.Workspace, "config", "alias.mine", "status")
			hook, config := h.write("src/project/.git/hooks/pre-commit", "mine"), h.read("src/project/.git/config")
			good, evil := h.in(c.good), h.in("project")
			good.sh("true")
			evil.sh("true")
			evil.policy.Tier = Landlock
			var there companion
			if c.goodFirst {
				there = good.runs("good", "")
			}
			script := "mkdir .git/gone; mv .git/config .git/hooks .git/gone; echo '[x]' > .git/config"
			if c.goodFirst { // then these are there and cannot go away
				script = "printf '[core]\n\tfsmonitor = EVIL\n' >> .git/config; echo EVIL >> .git/hooks/pre-commit"
			}
			one := evil.runs("evil", script)
			if !c.goodFirst {
				there = good.runs("good", "")
			}
			time.Sleep(longEnough)
			one.end()
			there.end()
			if got := h.read("src/project/.git/config"); got != config {
				t.Errorf("the configuration is %q", got)
			}
			if data, err := os.ReadFile(hook); err != nil || string(data) != "mine" {
				t.Errorf("the hook is %q, %v", data, err)
			}
		})
	}
}

// Turns elsewhere do not make the user's files theirs: a guard that sees them for the first time asks those that have seen them.
func TestTurnsElsewhereAndTheUsersFiles(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.worktrees("w2")
	sub := h.in("project/sub")
	settings := h.write("src/project/sub/a/.vscode/settings.json", "mine")
	sub.sh("true")
	sub.sh("rm -rf a/.vscode; mkdir a/.vscode; printf mine > a/.vscode/settings.json") // it is put back
	sub.sh("git init -q lib/r")
	hook := h.write("src/project/sub/lib/r/.git/hooks/pre-commit", "mine")
	h.in("w2").sh("sleep 0.5; true")
	other := h.in("w2").runs("other", "")
	h.git(h.policy.Workspace, "init", "-q", "vendor/x") // by the user, while a worktree is worked in
	vendor := h.write("src/project/vendor/x/.git/hooks/pre-commit", "mine")
	other.end()
	for range 2 {
		h.in("project").sh("true")
		for _, path := range []string{settings, hook, vendor} {
			if data, err := os.ReadFile(path); err != nil || string(data) != "mine" {
				t.Errorf("%s: %q, %v", path, data, err)
			}
		}
		// Nor where a workspace is forgotten and its turns are not.
		unlock, ok, err := LockGuard(h.policy.guardDir())
		if !ok || os.RemoveAll(h.policy.guardDir()) != nil {
			t.Fatalf("not removed: %v", err)
		}
		unlock()
	}
}

// Of sandboxes that begin at the same moment none forgets what it knew.
func TestBeginningTogether(t *testing.T) {
	h := newHost(t)
	h.repository()
	var all []*host
	for _, name := range []string{"w1", "w2", "w3", "w4"} {
		h.git(h.policy.Workspace, "worktree", "add", "-q", "../"+name)
		one := h.in(name)
		one.policy.HomeState += name
		h.write("src/"+name+"/sub/a/.vscode/settings.json", "mine")
		one.sh("true")
		one.sh("rm -rf sub/a/.vscode; mkdir sub/a/.vscode; printf mine > sub/a/.vscode/settings.json")
		one.policy.Notice = func(s string) {
			if !strings.Contains(s, "weaker than namespaces") {
				t.Errorf("%s: told %q", name, s)
			}
		}
		all = append(all, one)
	}
	for range 15 {
		var group sync.WaitGroup
		for _, one := range all {
			group.Go(func() {
				if r := one.run("true"); r.code != 0 {
					t.Errorf("%+v", r)
				}
			})
		}
		group.Wait()
	}
	for _, one := range all {
		path := filepath.Join(one.policy.Workspace, "sub/a/.vscode/settings.json")
		if data, err := os.ReadFile(path); err != nil || string(data) != "mine" {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
}

// Notes that are only half written are none.
func TestNotesAreWhole(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.policy.GuardState = filepath.Join(t.TempDir(), "guards")
	if err := os.MkdirAll(h.policy.guardDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	s := sweep{top: h.policy.Workspace, since: 1234567890, gits: []string{"/elsewhere/.git"}}
	for i := range 2000 {
		s.absent = append(s.absent, fmt.Sprintf("%s/%d", s.top, i))
	}
	b := &box{policy: &h.policy, sweep: s}
	done := make(chan bool)
	go func() {
		defer close(done)
		for i := range 300 {
			b.sweep.absent = s.absent[:i%3*1000]
			if err := errors.Join(b.writeSweep(), b.writeSweep(), b.overwriteGuardFile(swept)); err != nil {
				t.Error(err)
			}
		}
	}()
	for read := 0; ; {
		select {
		case <-done:
			if read == 0 {
				t.Error("nothing was read")
			}
			return
		default:
		}
		if noted, ok := readNoted(h.policy.guardDir()); ok {
			read++
			if noted.since != s.since || len(noted.absent)%1000 != 0 || !slices.Equal(noted.gits, s.gits) {
				t.Fatalf("noted since %d, %d absent, %q", noted.since, len(noted.absent), noted.gits)
			}
		}
		if places, ok := readPlaces(h.policy.guardDir()); ok && !slices.Equal(places, s.places()) {
			t.Fatalf("places %q", places)
		}
	}
}

// What a turn has hidden where nobody looks is still that turn's when one of another workspace, or with another profile, moves it out.
func TestHiddenByTurnsElsewhere(t *testing.T) {
	for name, c := range map[string]struct {
		hider, mover string
		tier         Tier // of the mover: a mount is not moved out of
		repository   string
		from         string
	}{
		"linked worktrees": {"w2", "w3", Landlock, "../project/.git/objects/r", "../project/.git/objects/r"},
		"below":            {"project/a/b", "project", testTier(), ".git/objects/r", "a/b/.git/objects/r"},
		"above":            {"project", "project/a/b", Landlock, "a/b/.git/objects/r", ".git/objects/r"},
		"profiles":         {"project", "project", testTier(), "a/b/.git/objects/r", "a/b/.git/objects/r"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.worktrees("w2", "w3")
			h.git(h.policy.Workspace, "init", "-q", "a/b")
			hider, mover := h.in(c.hider), h.in(c.mover)
			mover.policy.Tier = c.tier
			mover.sh("true") // what is there is known
			if name == "profiles" {
				hider.policy.Profile, hider.policy.HomeState = Strict, h.policy.HomeState+"-strict"
			}
			hider.sh("mkdir -p " + c.repository + "; cd " + c.repository + ` && git init -q; printf '[core]\n\tfsmonitor = EVIL\n' >> .git/config`)
			mover.sh("mv " + c.from + " r")
			config, err := os.ReadFile(filepath.Join(mover.policy.Workspace, "r", ".git", "config"))
			if err != nil || bytes.Contains(config, []byte("EVIL")) {
				t.Errorf("the configuration is %q, %v", config, err)
			}
		})
	}
}

// What one has planted that was killed is gone when another one begins that can write there, whatever its workspace is.
func TestKilledElsewhere(t *testing.T) {
	const evil = `D=$(git rev-parse --git-common-dir); [ -w "$D" ] || D=.git
{ echo EVIL > "$D/commondir"; printf '[core]\n\tfsmonitor = EVIL\n' >> "$D/config"; echo EVIL > "$D/hooks/post-checkout"; } 2> /dev/null; echo EVIL >> mine/.envrc; echo EVIL >> .envrc`
	for name, c := range map[string]struct{ killed, next string }{
		"linked worktrees":                     {"w2", "w3"},
		"a linked worktree that is gone":       {"w2", "project"},
		"a repository and its linked worktree": {"project", "w3"},
		"below":                                {"project/sub", "project"},
		"above":                                {"project", "project/sub"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.worktrees("w2", "w3")
			h.git(h.policy.Workspace, "init", "-q", "sub")
			mine := h.write("src/"+c.killed+"/mine/.envrc", "mine")
			config := h.read("src/project/.git/config")
			h.in(c.next).sh("true")
			killed := h.in(c.killed)
			killed.sh("true") // what is there is known
			killed.killed(evil)
			if strings.HasSuffix(name, "gone") {
				if err := os.RemoveAll(killed.policy.Workspace); err != nil {
					t.Fatal(err)
				}
			} else if got := plantedBelow(t, killed.policy.Workspace); len(got) == 0 {
				t.Error("nothing evil is left")
			}
			next := h.in(c.next)
			var told []string
			next.policy.Notice = func(s string) { told = append(told, s) }
			next.sh("true")
			for _, dir := range []string{"project", "project/sub", "w2", "w3"} {
				if dir = filepath.Join(h.policy.Home, "src", dir); isDir(dir) {
					if got := append(planted(t, dir), plantedBelow(t, dir)...); len(got) > 0 {
						t.Errorf("left: %q, told %q", got, told)
					}
				}
			}
			if data, err := os.ReadFile(mine); err == nil && string(data) != "mine" {
				t.Errorf("%q is not put back, told %q", data, told)
			}
			if got := h.read("src/project/.git/config"); got != config {
				t.Errorf("the configuration is %q", got)
			}
			next.quietly("true")
			killed = h.in(c.killed)
			if isDir(killed.policy.Workspace) {
				killed.quietly("true")
			}
		})
	}
}

// What the first of them noted is what all go by, also when it has ended.
func TestNotedByTheFirst(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.repository()
	mine := h.write("src/project/deep/x/.envrc", "mine")
	h.git(h.policy.Workspace, "init", "-q", "deep/r")
	config := filepath.Join(h.policy.Workspace, "deep/r/.git/config")
	before, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	h.sh("true") // what is there is known
	first := h.runs("first", "")
	time.Sleep(longEnough)
	evil := h.beside().runs("evil", "echo ready; until [ -e go ]; do sleep 0.02; done; echo EVIL > deep/x/.envrc; printf '[core]\n\tfsmonitor = EVIL\n' >> deep/r/.git/config; rm go")
	first.end()
	note := filepath.Join(h.policy.guardDir(), guardFile)
	if data, err := os.ReadFile(note); err != nil || bytes.HasPrefix(data, swept) {
		t.Errorf("nothing is noted any more: %q, %v", data, err)
	}
	goOn := h.write("src/project/go", "")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Lstat(goOn); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not go on")
		}
	}
	good := h.beside().runs("good", "")
	time.Sleep(longEnough)
	evil.end()
	good.end()
	if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := os.ReadFile(config); err != nil || !bytes.Equal(data, before) {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := os.ReadFile(note); err != nil || !bytes.HasPrefix(data, swept) {
		t.Errorf("the last one leaves %q, %v", data, err)
	}
}

// The last one sweeps for those that could not.
func TestLastSweepsForAll(t *testing.T) {
	h := newHost(t)
	h.repository()
	left := filepath.Join(h.policy.Workspace, "deep", ".envrc")
	h.write("src/project/deep/README", "")
	first := h.beside()
	first.policy.AllowWrite = []string{filepath.Dir(left)} // it leaves what is there, as one that is killed does
	one := first.runs("first", "echo EVIL > deep/.envrc")
	notes, err := os.ReadFile(filepath.Join(h.policy.guardDir(), guardFile))
	if err != nil {
		t.Fatal(err)
	}
	two := h.runs("second", "")
	one.end()
	if now, err := os.ReadFile(filepath.Join(h.policy.guardDir(), guardFile)); err != nil || !bytes.HasPrefix(now, notes[:20]) {
		t.Errorf("the notes were changed: %q, %v", now, err)
	}
	if _, err := os.Lstat(left); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.policy.GuardState, turnsFile)); err != nil { // which that does not tell of
		t.Fatal(err)
	}
	two.end()
	if _, err := os.Lstat(left); err == nil {
		t.Error("it is still there")
	}
}

// What one without mounts has changed under the mounts of others is put right by the last of them, or the next one, if it was killed.
func TestBesideOneWithoutMounts(t *testing.T) {
	names := []string{"another is the last one", "it is the last one itself", "it is the first one"}
	if testTier() == Namespaces {
		names = append(names, "it has done nothing")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.repository()
			h.git(h.policy.Workspace, "config", "alias.mine", "status")
			config := h.read("src/project/.git/config")
			mine := h.write("src/project/.vscode/settings.json", "mine")
			var other companion
			if name != "it is the first one" {
				other = h.runs("other", "")
				time.Sleep(longEnough)
			}
			one := h.beside()
			one.policy.Tier = Landlock
			const evil = "; printf '[core]\n\tfsmonitor = EVIL\n' >> .git/config; echo EVIL > .git/hooks/pre-commit; echo EVIL >> .vscode/settings.json; echo done"
			want := "mine"
			switch name {
			case "another is the last one":
				one.doomed("true" + evil).kill()
				if len(planted(t, h.policy.Workspace)) == 0 {
					t.Error("nothing evil is left")
				}
				other.end()
			case "it is the last one itself":
				d := one.doomed("true" + evil)
				other.end()
				d.kill()
				h.run("true")
			case "it is the first one":
				d := one.doomed("echo ready; until [ -e go ]; do sleep 0.02; done" + evil)
				other = h.runs("other", "")
				time.Sleep(longEnough)
				h.write("src/project/go", "")
				d.out.waitFor(t, "done")
				d.kill()
				other.end()
			default: // what the user writes in place is nobody else's
				one.sh("true")
				var none *NoCommandError
				if _, err := one.start(t.Context(), io.Discard, "/no/such/program"); !errors.As(err, &none) {
					t.Errorf("got %v", err)
				}
				want = "new"
				if err := os.WriteFile(mine, []byte(want), 0o600); err != nil {
					t.Fatal(err)
				}
				config += "# new\n"
				h.write("src/project/.git/config", config)
				other.end()
			}
			if got := planted(t, h.policy.Workspace); len(got) > 0 {
				t.Errorf("left: %q", got)
			}
			if got := h.read("src/project/.git/config"); got != config {
				t.Errorf("the configuration is %q", got)
			}
			if got := h.read("src/project/.vscode/settings.json"); got != want {
				t.Errorf("the settings are %q", got)
			}
			if l := newLook(&h.policy, &sweep{}, false); l.unmountedSince() != math.MaxInt64 {
				t.Error("nobody has ended it")
			}
		})
	}
}

// Whoever begins waits for one that sweeps last, but not for ever.
func TestWaitingForTheGuard(t *testing.T) {
	h := newHost(t)
	other, err := openGuardLock(h.policy.GuardState, guardNumber(h.policy.Workspace))
	if err != nil {
		t.Fatal(err)
	}
	defer other.file.Close()
	if err := other.take(unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	var told lockedBuffer
	h.policy.Notice = func(s string) { _, _ = io.WriteString(&told, s) }
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitingIsTold)
	defer cancel()
	if _, err := h.start(ctx, nil, "true"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(told.String(), "waiting for another sandbox") {
		t.Errorf("told %q", told.String())
	}
	released := make(chan error)
	time.AfterFunc(100*time.Millisecond, func() { released <- other.take(unix.F_UNLCK) })
	if r := h.run("true"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if err := <-released; err != nil {
		t.Error(err)
	}
}

// Who has a home and no place for the guard's notes is told where they were to be, and what helps.
func TestNoPlaceForNotes(t *testing.T) {
	h := newHost(t)
	h.policy.GuardState = h.write("file", "")
	_, err := h.start(t.Context(), io.Discard, "true")
	if fault.CodeOf(err) != fault.SandboxUnavailable || !strings.Contains(err.Error(), h.policy.GuardState) || len(fault.HintsOf(err)) == 0 {
		t.Errorf("got %v, hints %q", err, fault.HintsOf(err))
	}
}

// A sandbox that never ran leaves what is owed as it was.
func TestForgottenSweepStaysOwed(t *testing.T) {
	h := newHost(t)
	if err := os.MkdirAll(h.policy.guardDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	tree, err := drawTree(&h.policy)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{policy: &h.policy, owedUntil: 456}
	defer b.leaveGuard()
	if err := errors.Join(b.join(t.Context()), b.noteSweep(tree.sweep, 123)); err != nil {
		t.Fatal(err)
	}
	b.forgetSweep()
	if s, _ := readNoted(h.policy.guardDir()); s.since != 123 || s.until != 456 {
		t.Errorf("noted from %d to %d", s.since, s.until)
	}
}

// What one turn's guard held, or was not to hold, is looked at when the next one's does neither.
func TestWhatTheGuardHeldBefore(t *testing.T) {
	for name, c := range map[string]struct {
		before func(h *host)
		turn   string // an earlier one
		evil   string
	}{
		"out of the index": {
			before: func(h *host) {
				w := h.policy.Workspace
				h.git(w, "init", "-q", "deep/sub")
				h.git(filepath.Join(w, "deep/sub"), "commit", "-q", "--allow-empty", "-m", "x")
				h.git(w, "-c", "advice.addEmbeddedRepo=false", "add", "deep/sub")
			},
			turn: "git rm -qf --cached deep/sub",
			evil: `printf '[core]\n\tfsmonitor = EVIL\n' >> deep/sub/.git/config; echo EVIL > deep/sub/.git/hooks/pre-commit`,
		},
		"allowed before": {
			before: func(h *host) {
				h.write("src/project/deep/x/.envrc", "mine")
				h.policy.AllowWrite = []string{filepath.Join(h.policy.Workspace, "deep")}
			},
			turn: "true",
			evil: "echo EVIL > deep/x/.envrc; mkdir deep/.vscode; echo EVIL > deep/.vscode/tasks.json",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.repository()
			c.before(h)
			time.Sleep(2 * indexSettles) // or it would be looked at again for being young
			h.sh("true")                 // what is there is known
			h.sh(c.turn)
			time.Sleep(2 * indexSettles)
			h.sh("true")
			h.policy.AllowWrite = nil
			h.sh(c.evil)
			h.sh("true")
			if got := plantedBelow(t, h.policy.Workspace); len(got) > 0 {
				t.Errorf("left: %q", got)
			}
			for _, path := range []string{"deep/sub/.git/config", "deep/sub/.git/hooks/pre-commit"} {
				if data, err := os.ReadFile(filepath.Join(h.policy.Workspace, path)); err == nil && strings.Contains(string(data), "EVIL") {
					t.Errorf("left: %s", path)
				}
			}
			if mine := filepath.Join(h.policy.Workspace, "deep/x/.envrc"); name == "allowed before" {
				if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
}

// What is put aside lands where things are put aside, whatever was put there before.
func TestAsideFollowsNoLinks(t *testing.T) {
	for name, state := range map[string]bool{"in the state": true, "beside": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			top, outside := filepath.Join(dir, "top"), filepath.Join(dir, "outside")
			a := &aside{top: top}
			if state {
				a.state = filepath.Join(dir, "state")
			}
			git := filepath.Join(top, "d", ".git")
			for _, d := range []string{filepath.Dir(git), outside, filepath.Join(dir, "state")} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(outside, git); err != nil {
				t.Fatal(err)
			}
			one, err := a.take(git)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(git, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(git, "config"), []byte("EVIL"), 0o600); err != nil {
				t.Fatal(err)
			}
			two, err := a.take(filepath.Join(git, "config"))
			if err != nil {
				t.Fatal(err)
			}
			if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
				t.Errorf("outside: %v, %v", list, err)
			}
			if info, err := os.Lstat(one); err != nil || info.Mode()&os.ModeSymlink == 0 {
				t.Errorf("%s: %v", one, err)
			}
			if data, err := os.ReadFile(two); err != nil || string(data) != "EVIL" || !strings.HasPrefix(resolve(two), dir) || strings.HasPrefix(resolve(two), outside) {
				t.Errorf("%s: %q, %v", two, data, err)
			}
		})
	}
}
