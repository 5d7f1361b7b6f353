package cmd

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config"
)

// runsNothing runs a command line that must be refused with exit 2, by an error that has these texts.
func runsNothing(t *testing.T, w *world, want []string, flags ...string) {
	t.Helper()
	w.errOut.Reset()
	args := append(append([]string{"sandbox"}, flags...), "--", "/bin/sh", "-c", "echo ran > ran")
	if code := w.run(t, args...); code != 2 {
		t.Errorf("exit %d: %s", code, w.errOut)
	}
	for _, text := range want {
		if !strings.Contains(w.errOut.String(), text) {
			t.Errorf("no %q in\n%s", text, w.errOut)
		}
	}
	if _, err := os.Stat(filepath.Join(w.cwd, "ran")); err == nil {
		t.Error("the command ran")
	}
}

// ruleNames are how a rule is called as a flag, in a file and as a variable.
type ruleNames struct{ flag, key, variable string }

var (
	allowHost  = ruleNames{"--allow-host", "allow-hosts", "SESAME_SANDBOX_ALLOW_HOSTS"}
	allowRead  = ruleNames{"--allow-read", "allow-read", "SESAME_SANDBOX_ALLOW_READ"}
	allowWrite = ruleNames{"--allow-write", "allow-write", "SESAME_SANDBOX_ALLOW_WRITE"}
	denyRead   = ruleNames{"--deny-read", "deny-read", "SESAME_SANDBOX_DENY_READ"}
	passEnv    = ruleNames{"--pass-env", "pass-env", "SESAME_SANDBOX_PASS_ENV"}
)

func TestBadRules(t *testing.T) {
	type test struct {
		rule       ruleNames
		name, text string
		want       string
		relative   bool // but in a file it is seen from the working directory, and good or bad for that
	}
	var tests []test
	for _, text := range []string{
		"https://a.example", "a.example/path", "user@a.example", "a.example:0", "a.example:65536", "a.example:-1", "a.example:http", "a.example:22:33", "*", "*.com",
		"a.*.example", "10.0.0.0/8", "fe80::1%eth0", "2130706433", "0x7f.1", "a..example", "-a.example", "a example", "a.example:",
	} {
		tests = append(tests, test{rule: allowHost, name: text, text: text, want: text})
	}
	for _, rule := range []ruleNames{allowRead, allowWrite, denyRead} {
		tests = append(tests,
			test{rule, "missing", "HOME/missing", "HOME/missing: ", false},
			test{rule, "missing below dots", "HOME/there/../missing", "HOME/missing: ", false},
			test{rule, "link to nothing", "HOME/dangling", "HOME/dangling: ", false},
			test{rule, "link to itself", "HOME/loop", "HOME/loop: ", false},
			test{rule, "pattern without a match", "HOME/*.pem", "HOME/*.pem: ", false},
			test{rule, "pattern with a match", "HOME/the?e", "name each path", false},
			test{rule, "relative", "there", "", true},
			test{rule, "dots", "../there", "", true},
			test{rule, "the root", "/", "more precise", false},
			test{rule, "the root by dots", "/usr/../..", "more precise", false},
			test{rule, "kernel files", "/proc/sys", "has its own /proc", false},
		)
	}
	tests = append(tests, test{rule: passEnv, name: "assignment", text: "A=B", want: "A=B"}, test{rule: passEnv, name: "the key", text: "AMP_API_KEY", want: "AMP_API_KEY"})
	for _, test := range tests {
		for _, way := range []string{"flag", "file", "variable"} {
			t.Run(strings.TrimPrefix(test.rule.flag, "--")+"/"+test.name+"/"+way, func(t *testing.T) {
				w := newWorld(t)
				w.write(t, filepath.Join(w.home, "there"), "")
				for from, to := range map[string]string{"dangling": "missing", "loop": "loop"} {
					if err := os.Symlink(to, filepath.Join(w.home, from)); err != nil {
						t.Fatal(err)
					}
				}
				text, want := strings.ReplaceAll(test.text, "HOME", w.home), strings.ReplaceAll(test.want, "HOME", w.home)
				switch way {
				case "flag":
					if test.relative {
						want = test.rule.flag + ": stat "
					}
					runsNothing(t, w, []string{want, strings.TrimPrefix(test.rule.flag, "--")}, test.rule.flag, text)
				case "file":
					file := w.write(t, filepath.Join(w.home, ".config/sesame/config.yaml"), "sandbox:\n  "+test.rule.key+":\n    - '"+text+"'\n")
					wants := []string{test.rule.key}
					if test.relative {
						wants = append(wants, file+":3: ", "must be absolute")
					}
					runsNothing(t, w, append(wants, want))
				case "variable":
					w.env[test.rule.variable] = text
					if test.relative {
						want = test.rule.variable + ": stat "
					}
					runsNothing(t, w, []string{want})
				}
			})
		}
	}
}

// Saying something twice changes nothing, and of rules that contradict each other the one that hides wins, however they are written.
func TestContradictoryRules(t *testing.T) {
	w := newWorld(t)
	w.write(t, filepath.Join(w.home, "dir", "secret"), "x")
	if err := os.Symlink("dir", filepath.Join(w.home, "link")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.home, "dir")
	for _, rules := range [][]string{
		{"--deny-read", dir, "--allow-read", dir},
		{"--allow-write", dir, "--deny-read", dir},
		{"--allow-read", dir + "/secret", "--deny-read", dir},
		{"--deny-read", w.home + "/link", "--allow-read", dir},
		{"--deny-read", dir, "--allow-write", w.home + "/link"},
		{"--deny-read", dir, "--deny-read", dir, "--allow-read", dir, "--allow-read", dir + "/../dir"},
	} {
		w.out.Reset()
		args := append([]string{"sandbox", "--explain-path", dir + "/secret", "--allow-host", "a.example", "--allow-host", "A.example."}, rules...)
		if code := w.run(t, args...); code != 0 || !strings.Contains(w.out.String(), "absent") {
			t.Errorf("%q: exit %d: %s%s", rules, code, w.out, w.errOut)
		}
	}
}

// widening is, for each key of the configuration, a value by which a repository would get more than it may. Keys with ""
// cannot widen anything.
var widening = map[string]string{
	"mode": "", "output": "", "timeout": "", "labels": "", "sandbox.deny-read": "",

	"output-file": "/tmp/x", "show-thinking": "true", "quiet": "true", "verbose": "true",
	"amp.url": "https://evil.example/", "amp.version": "0.0.1", "amp.sha256": "''", "amp.path": "./amp", "amp.sources": "[./mirror]",
	"amp.modes": "{smart: x}", "amp.args": "[--x]", "amp.mcp-config": "'{}'", "amp.keep-versions": "9", "amp.update-interval": "1h",
	"sandbox.tier": "'off'", "sandbox.profile": "standard", "sandbox.allow-hosts": "[evil.example]", "sandbox.allow-read": "[/etc]",
	"sandbox.allow-write": "[/etc]", "sandbox.pass-env": "[AWS_SECRET_ACCESS_KEY]", "sandbox.expose-key": "true",
}

// keysOf are the keys of a configuration's type, as files have them.
func keysOf(prefix string, of reflect.Type) []string {
	var keys []string
	for i := range of.NumField() {
		field := of.Field(i)
		name := field.Tag.Get("key")
		switch {
		case name == "":
		case field.Type.Kind() == reflect.Struct:
			keys = append(keys, keysOf(prefix+name+".", field.Type)...)
		default:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

// Whatever a workspace's file could widen is refused, and nothing is run. A key that is new must say here what it could do.
func TestWorkspaceFileWidensNothing(t *testing.T) {
	keys := keysOf("", reflect.TypeFor[config.Config]())
	if len(keys) != len(widening) {
		t.Errorf("%d keys, of which %d are tested", len(keys), len(widening))
	}
	for _, key := range keys {
		value, known := widening[key]
		switch {
		case !known:
			t.Errorf("%s: what could a hostile repository set it to?", key)
			continue
		case value == "":
			continue
		}
		t.Run(key, func(t *testing.T) {
			w := newWorld(t)
			w.write(t, filepath.Join(w.home, ".config/sesame/config.yaml"), "sandbox: {profile: strict}")
			text := key + ": " + value
			if group, name, ok := strings.Cut(key, "."); ok {
				text = group + ": {" + name + ": " + value + "}"
			}
			file := w.write(t, ".sesame.yaml", text+"\n")
			runsNothing(t, w, []string{file + ":1: " + key + ": refused"})
		})
	}
}

// The workspace's file may hide what not every checkout has, but what hides nothing by its form is refused.
func TestWorkspaceFileHides(t *testing.T) {
	w := newWorld(t)
	w.write(t, ".sesame.yaml", "sandbox: {deny-read: [not-there]}\n")
	if _, _, err := policyOf(t, w); err != nil {
		t.Error(err)
	}
	file := w.write(t, ".sesame.yaml", "sandbox: {deny-read: ['*.pem']}\n")
	runsNothing(t, w, []string{file + ":1: sandbox.deny-read: ", "name each path"})
}
