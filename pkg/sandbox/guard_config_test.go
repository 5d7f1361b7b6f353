package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Branches that follow others are no reason to put a configuration back; all else is.
func TestBranchesMayFollow(t *testing.T) {
	const config = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = git@[fd00::5]:x.git\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n"
	const follows = "[branch \"topic/x\"]\n\tremote = origin\n\tmerge = refs/heads/topic/x\n"
	for now, want := range map[string]bool{
		config:                                 true,
		config + follows:                       true,
		follows + config:                       true,
		"# a note\n" + config + "\n" + follows: true,
		config + "[branch \"y\"]\n\tremote = .\n\tmerge = refs/heads/main\n":                false,
		config + "[branch \"y\"]\n\tremote = origin\n\tmerge = refs/heads/main\n":           false,
		config + "[branch \"y\"]\n\tremote = elsewhere\n":                                   false,
		config + "[branch \"y\"]\n\tremote = https://example.org/y\n":                       false,
		config + "[branch \"y\"]\n\tpushRemote = origin\n":                                  false,
		config + "[branch \"y\"] remote = origin\n":                                         false,
		config + "[branch \"y\"]\n\tmerge = refs/heads/y \\\n[core]\nfsmonitor = evil\n":    false,
		config + "[branch \"y\"]\n[core]\n\tfsmonitor = evil\n":                             false,
		config + "[branch.y]\n\tremote = origin\n":                                          false,
		config + "[branch \"main\"]\n\tremote = origin\n":                                   false,
		config + follows + "[core]\n\tfsmonitor = evil\n":                                   false,
		strings.Replace(config, "\turl", "[branch \"y\"]\n\turl", 1):                        false,
		strings.Replace(config, "\tbare", "[branch \"y\"]\n\tbare", 1):                      false,
		strings.Replace(config, "refs/heads/main", "refs/heads/other", 1):                   false,
		strings.Replace(config, "fd00::5", "fd00::6", 1):                                    false,
		config[:strings.Index(config, "[branch")]:                                           false,
		config[:strings.Index(config, "[remote")]:                                           false,
		config + "[remote \"x\"]\n\turl = y\n" + strings.ReplaceAll(follows, "origin", "x"): false,
		"": false,
	} {
		if got := onlyFollows([]byte(config), []byte(now)); got != want {
			t.Errorf("%t, want %t:\n%s", got, want, now)
		}
	}
	two := config + "[remote \"stranger\"]\n\turl = y\n"
	if onlyFollows([]byte(two), []byte(two+follows)) {
		t.Error("it may be one of two remotes")
	}
	if odd := "[alias]\n\tx = !a \\\n\t-e s/[0-9]//\n" + config; onlyFollows([]byte(odd), []byte(odd+follows)) {
		t.Error("what is not understood is no reason to put it back")
	}
}

// What git itself writes for a clone, a submodule, a worktree and a sparse checkout stays as it is, to the byte.
func TestHonestConfigStays(t *testing.T) {
	dir := t.TempDir()
	git := func(in string, args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=u", "-c", "user.email=u@x", "-c", "protocol.file.allow=always"}, args...)...)
		cmd.Dir = filepath.Join(dir, in)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	git("", "init", "-q", "lib")
	git("lib", "commit", "-q", "--allow-empty", "-m", "first")
	git("", "init", "-q", "one")
	git("one", "submodule", "--quiet", "add", filepath.Join(dir, "lib"), "sub")
	git("one", "commit", "-qm", "first")
	git("", "clone", "-q", "--recurse-submodules", "one", "two")
	git("two", "config", "user.email", "u@example.com")
	git("two", "checkout", "-qb", "topic/x")
	git("two", "push", "-qu", "origin", "topic/x")
	git("two", "remote", "add", "fork", "git@example.com:u/x.git")
	git("", "clone", "-q", "--bare", "one", "three.git")
	git("", "clone", "-q", "--mirror", "one", "four.git")
	git("one", "sparse-checkout", "init", "--cone")
	for _, file := range []string{"one/.git/config", "one/.git/config.worktree", "one/.git/modules/sub/config", "two/.git/config", "two/.git/modules/sub/config", "three.git/config", "four.git/config"} {
		data, err := readSmall(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		text, taken := harmlessConfig(data, func(worktree string) bool { return worktree == "../../../sub" })
		if string(text) != string(data) || len(taken) > 0 {
			t.Errorf("%s: %q is taken out of\n%s", file, taken, data)
		}
	}
}

// What git executes or follows is taken out however it is written; the rest stays, and is what git understands.
func TestEvilConfigIsTakenOut(t *testing.T) {
	const good = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n[remote \"origin\"]\n\turl = https://example.com/x.git\n"
	for _, evil := range []string{
		"[core]\n\tfsmonitor = evil\n",
		"[core]fsmonitor = evil\n",
		"[core] fsmonitor = evil\n",
		"[CORE]\nFSMonitor = evil\n",
		"[core]\n\tfsmonitor = \"evil\"\n",
		"[core]\n\tfsmonitor \\\n = evil\n",
		"[core]\n\tbare = false\\\n\n\tfsmonitor = evil\n",
		"[core]\n\tabbrev = \\\nfsmonitor=evil\n[core]\n\tfsmonitor=evil\n",
		"[core] ; [user]\n\tfsmonitor = evil\n",
		"[core]\n\tworktree = /home/u\n",
		"[core]\n\thooksPath = x\n\tsshCommand = evil\n\tpager = evil\n\teditor = evil\n\taskPass = evil\n\tgitProxy = evil\n\talternateRefsCommand = evil\n",
		"[include]\n\tpath = ../evil\n",
		"[includeIf \"gitdir:/\"]\n\tpath = ../evil\n",
		"[include \"x\"]\n\tpath = ../evil\n",
		"[filter \"lfs\"]\n\tclean = evil\n",
		"[alias]\n\tstatus = !evil\n",
		"[diff \"x\"]\n\ttextconv = evil\n",
		"[remote \"origin\"]\n\tuploadpack = evil\n",
		"[remote \"origin\"]\n\turl = ext::evil\n",
		"[remote \"origin\"]\n\tvcs = evil\n",
		"[remote \"origin\"]\n\turl = -oProxyCommand=evil\n",
		"[branch \"main\"]\n\tremote = ext::evil\n",
		"[submodule \"x\"]\n\tupdate = !evil\n",
		"[url \"ext::evil\"]\n\tinsteadOf = https://example.com/\n",
		"[credential]\n\thelper = !evil\n",
		"[gpg]\n\tprogram = evil\n",
		"[core.x]\n\tfsmonitor = evil\n",
		"[core \"\"]\n\tfsmonitor = evil\n",
		"\ufeff[core]\n\tfsmonitor = evil\n",
		"[core]\r\n\tfsmonitor = evil\r\n",
		"[core]\n\tfsmonitor = evil",
		"[user]\n\tname = x\x00\n[core]\n\tfsmonitor = evil\n",
	} {
		for _, text := range []string{evil, good + evil, evil + good} {
			got, taken := harmlessConfig([]byte(text), func(string) bool { return false })
			if len(taken) == 0 {
				t.Errorf("nothing is taken out of %q", text)
			}
			if lower := strings.ToLower(string(got)); strings.Contains(lower, "evil") || strings.Contains(lower, "/home/u") || strings.Contains(lower, "hookspath") {
				t.Errorf("%q becomes %q", text, got)
			}
			if again, more := harmlessConfig(got, func(string) bool { return false }); string(again) != string(got) || len(more) > 0 {
				t.Errorf("%q is not harmless yet: %q", got, more)
			}
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("git", "config", "-f", file, "--name-only", "--list").Output()
			if err != nil {
				t.Errorf("git does not read %q: %v", got, err)
			}
			for line := range strings.Lines(string(out)) {
				section, key, _ := strings.Cut(strings.TrimSpace(line), ".")
				if !slices.Contains(harmlessSettings[section], key[strings.LastIndex(key, ".")+1:]) {
					t.Errorf("of %q git reads %q", text, line)
				}
			}
		}
	}
}

// What git makes of a configuration, eachSetting makes of it.
func TestSettingsAreReadAsGitDoes(t *testing.T) {
	for _, text := range []string{
		"[core]\n\thooksPath = a\n",
		"[core] hooksPath=a # b\n[CORE] HooksPath = \"a # b\" ; c\n",
		"\ufeff[core]\r\n\thooksPath = a\\\r\n  b \"c  \"  d  \r\n",
		"[core]\n\thooksPath = a\\\\b\\\"c\\td\n\thooksPath\n\thooksPath =\n",
		"[includeIf \"gitdir:~/a]b\\\"/\"] path = x\n# [core]\n;[core]\npath = \"y\\\nz\"\n",
		"[include]path=a b   c\n[core \"x\"]\n\thooksPath = no\n[include.sub] path = d",
		"[core]hooksPath=\ta\"b c\"d\"\"\n\n[include]\n\tpath = ~/x;y\n",
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("git", "config", "--file", file, "--list", "-z").CombinedOutput()
		if err != nil {
			t.Errorf("%q: git says %s", text, out)
		}
		var want, got []string
		for item := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			name, value, _ := strings.Cut(item, "\n")
			section, _, _ := strings.Cut(name, ".")
			want = append(want, section+"."+name[strings.LastIndexByte(name, '.')+1:]+"="+value)
		}
		eachSetting(text, func(section, key, value string) { got = append(got, section+"."+key+"="+value) })
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, git has %q", text, got, want)
		}
	}
}
