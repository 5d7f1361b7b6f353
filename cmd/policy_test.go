package cmd

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// policyOf is the policy that the command line would run under.
func policyOf(t *testing.T, w *world, args ...string) (policy *sandbox.Policy, env []string, err error) {
	t.Helper()
	root := newSandboxCmd(w.app, nil)
	if err := root.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	dirs, err := w.dirs()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := w.load(root, w.cwd)
	if err != nil {
		t.Fatal(err)
	}
	if policy, err = w.newPolicy(cfg, dirs, w.cwd); err != nil {
		return nil, nil, err
	}
	env, _, err = w.insideEnv(cfg, policy, config.Key{})
	return policy, env, err
}

func TestPolicyHosts(t *testing.T) {
	tests := []struct {
		service string
		args    []string
		want    []string
	}{
		{"https://ampcode.com", nil, []string{"ampcode.com", "*.ampcode.com"}},
		{"https://eu.ampcode.com", nil, []string{"ampcode.com", "*.ampcode.com"}},
		{"https://evilampcode.com", nil, []string{"ampcode.com", "*.ampcode.com", "evilampcode.com:443"}},
		{"http://127.0.0.1:4000", nil, []string{"ampcode.com", "*.ampcode.com", "127.0.0.1:4000"}},
		{"", []string{"--allow-host", "A.example", "--allow-host", "b.example:22"}, []string{"ampcode.com", "*.ampcode.com", "a.example", "b.example:22"}},
	}
	for _, test := range tests {
		w := newWorld(t)
		w.env["AMP_URL"] = test.service
		policy, _, err := policyOf(t, w, test.args...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range policy.AllowHosts {
			got = append(got, h.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s %q: got %q", test.service, test.args, got)
		}
	}
}

func TestPolicyBadHost(t *testing.T) {
	w := newWorld(t)
	_, _, err := policyOf(t, w, "--allow-host", "https://a.example")
	if fault.CodeOf(err) != fault.Usage || !strings.HasPrefix(err.Error(), "--allow-host: ") {
		t.Errorf("flag: %v", err)
	}
	file := w.write(t, filepath.Join(w.home, ".config/sesame/config.yaml"), "\nsandbox: {allow-hosts: [2130706433]}")
	w.write(t, file, "sandbox:\n  allow-hosts: ['2130706433']")
	_, _, err = policyOf(t, w)
	if fault.CodeOf(err) != fault.Usage || !strings.HasPrefix(err.Error(), file+":2: sandbox.allow-hosts: ") {
		t.Errorf("file: %v", err)
	}
}

// sesame's own keys and sessions are absent inside whatever the rules say; the key
// does not come in through the environment, nor do variables nobody named.
func TestPolicyKeepsSecretsOut(t *testing.T) {
	w := newWorld(t)
	w.env["AMP_API_KEY"], w.env["LD_PRELOAD"], w.env["GITHUB_TOKEN"] = goodKey, "/x.so", "ghp_x"
	w.env["AMP_LOG_LEVEL"], w.env["LANG"] = "debug", "C.UTF-8"
	w.write(t, filepath.Join(w.home, ".config", "something"), "")
	policy, env, err := policyOf(t, w, "--pass-env", "AMP_*", "--allow-read", w.home+"/.config")
	if err != nil {
		t.Fatal(err)
	}
	inside := config.ParseEnv(env)
	if inside["LANG"] != "C.UTF-8" || inside["AMP_LOG_LEVEL"] != "debug" || inside["HOME"] != w.home {
		t.Errorf("missing in %q", env)
	}
	for _, name := range []string{"AMP_API_KEY", "LD_PRELOAD", "GITHUB_TOKEN"} {
		if value, ok := inside[name]; ok {
			t.Errorf("%s=%s is inside", name, value)
		}
	}
	for _, dir := range []string{".config/sesame", ".local/state/sesame"} {
		if !slices.Contains(policy.Private, filepath.Join(w.home, dir)) {
			t.Errorf("%s is not private: %q", dir, policy.Private)
		}
	}
	if _, _, err := policyOf(t, w, "--pass-env", "AMP_API_KEY"); fault.CodeOf(err) != fault.Usage {
		t.Errorf("AMP_API_KEY by name: %v", err)
	}
}

func TestSandboxCommandExitCode(t *testing.T) {
	w := newWorld(t)
	if code := w.run(t, "sandbox", "--sandbox", "off", "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 42"); code != 42 {
		t.Errorf("exit %d", code)
	}
	if w.out.String() != "out\n" || w.errOut.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", w.out, w.errOut)
	}
	for cmd, want := range map[string]int{"/nonexistent": 127, "no-such-command": 127, "/etc": 126} {
		if code := w.run(t, "sandbox", "--sandbox", "off", "--", cmd); code != want || !strings.Contains(w.errOut.String(), "exec: \""+cmd+"\": ") {
			t.Errorf("%s: exit %d, %q", cmd, code, w.errOut)
		}
	}
}

func TestExplain(t *testing.T) {
	w := newWorld(t)
	w.write(t, ".vscode/tasks.json", "{}")
	w.write(t, "secret", "x")
	args := []string{"sandbox", "--explain", "--allow-host", "a.example:22", "--deny-read", "secret"}
	if code := w.run(t, args...); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	for _, want := range []string{
		"read-write     " + w.cwd + " (the workspace)\n", "network        a.example (port 22)\n",
		"network        *.ampcode.com (ports 443 and 80)\n", "absent         ./secret (deny-read)\n",
		"read-only      ./.vscode (programs of the host execute what it says)\n",
		" ./.envrc ", "(programs of the host would execute it: it is taken away when the sandbox ends)\n",
	} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("no %q in\n%s", want, w.out)
		}
	}
	w.out.Reset()
	if code := w.run(t, append(args, "-o", "json")...); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	var got policyReport
	if err := json.Unmarshal(w.out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(got.Paths, func(v sandbox.Verdict) bool {
		return v.Target == w.cwd+"/secret" && v.Access == sandbox.AccessAbsent && !v.Allowed
	}) || !slices.Contains(got.Env, "HOME") {
		t.Errorf("%s", w.out)
	}
}

// The flags take what is there.
func TestExplainWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	w.write(t, ".vscode/tasks.json", "{}")
	for path, want := range map[string]string{
		"/nowhere/at/all": "; to change it: --allow-read /nowhere/at/all, once there is something\n",
		".vscode":         "; to change it: --allow-write " + w.cwd + "/.vscode\n",
		".envrc":          "; to change it: --allow-write " + w.cwd + "/.envrc, once there is something\n",
	} {
		if code := w.run(t, "sandbox", "--explain-path", path); code != 0 || !strings.HasSuffix(w.out.String(), want) {
			t.Errorf("%s: exit %d, %s%s", path, code, w.out, w.errOut)
		}
	}
}

// Names of files say nothing in sesame's name, neither to the terminal nor to who reads line by line.
func TestNamesOfFilesStayNames(t *testing.T) {
	const evil = "a\x1b]0;t\x07\n::error::forged\nsesame: everything was verified"
	w := newWorld(t)
	w.cwd = filepath.Join(w.cwd, evil)
	w.write(t, evil+"/.git/config", "")
	w.write(t, ".gitmodules", "[submodule \"x\"]\n\tpath = sub\x1b[31mEVIL\n")
	if code := w.run(t, "sandbox", "--explain"); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	if code := w.run(t, "sandbox", "--explain-path", evil); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	w.say("%s appeared while the sandbox ran", evil)
	w.printError(fault.New(fault.Usage, ".sesame.yaml: %s: unknown key", evil))
	for _, text := range []string{w.out.String(), w.errOut.String()} {
		if strings.Contains(text, "\x1b") || strings.Contains(text, "\n::") || strings.Contains(text, "\nsesame: everything") || !strings.Contains(text, `\x0a::error::forged\x0a`) {
			t.Errorf("%q", text)
		}
	}
}
