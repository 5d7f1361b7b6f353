package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWorkspaceMay(t *testing.T) {
	m := newMachine(t)
	m.write(filepath.Join(m.workspace, ".sesame.yaml"), `
mode: rush
output: json
timeout: 10m
labels: [ci]
sandbox: {tier: namespaces, profile: strict, deny-read: [secrets, /srv/keys]}
`)
	cfg := m.load()
	if cfg.Mode != "rush" || cfg.Output != JSON || cfg.Timeout != 10*time.Minute || len(cfg.Labels) != 1 ||
		cfg.Sandbox.Tier != "namespaces" || cfg.Sandbox.Profile != "strict" || len(cfg.Sandbox.DenyRead) != 2 {
		t.Errorf("got %+v", cfg)
	}
}

func TestHostileWorkspace(t *testing.T) {
	tests := []struct{ name, user, workspace, want string }{
		{"host", "", "sandbox:\n  allow-hosts: [evil.example]", ":2: sandbox.allow-hosts: refused: a repository may only tighten"},
		{"empty list of hosts", "", "sandbox: {allow-hosts: []}", ":1: sandbox.allow-hosts: refused"},
		{"read", "", "sandbox: {allow-read: [/]}", ":1: sandbox.allow-read: refused"},
		{"write", "", "sandbox: {allow-write: [/]}", ":1: sandbox.allow-write: refused"},
		{"variable", "", "sandbox: {pass-env: [AWS_SECRET_ACCESS_KEY]}", ":1: sandbox.pass-env: refused"},
		{"key", "", "sandbox: {expose-key: true}", ":1: sandbox.expose-key: refused"},
		{"url", "", "amp: {url: 'https://evil.example/'}", ":1: amp.url: refused: a repository must not choose who gets the key"},
		{"binary", "", "mode: rush\namp: {path: ./amp}", ":2: amp.path: refused: a repository must not choose what is run"},
		{"version", "", "amp: {version: 0.0.1-g1}", ":1: amp.version: refused"},
		{"pin", "", "amp: {sha256: ''}", ":1: amp.sha256: refused"},
		{"source", "", "amp: {sources: ['https://evil.example']}", ":1: amp.sources: refused"},
		{"arguments", "", "amp: {args: [--mcp-config, x]}", ":1: amp.args: refused"},
		{"servers", "", "amp: {mcp-config: '{}'}", ":1: amp.mcp-config: refused"},
		{"output file", "", "output-file: /home/u/.bashrc", ":1: output-file: refused"},
		{"off", "", "sandbox: {tier: off}", ":1: sandbox.tier: refused: off is weaker than auto"},
		{"off on off", "sandbox: {tier: 'off'}", "sandbox: {tier: 'off'}", ":1: sandbox.tier: refused"},
		{"landlock on auto", "", "sandbox: {tier: landlock}", ":1: sandbox.tier: refused: landlock is weaker than auto"},
		{"auto on namespaces", "sandbox: {tier: namespaces}", "sandbox: {tier: auto}", ":1: sandbox.tier: refused"},
		{"landlock on namespaces", "sandbox: {tier: namespaces}", "sandbox: {tier: landlock}", ":1: sandbox.tier: refused"},
		{"standard on strict", "sandbox: {profile: strict}", "sandbox: {profile: standard}", ":1: sandbox.profile: refused: standard is weaker than strict"},
		{"unknown", "", "hooks: {pre: evil}", ":1: hooks: unknown key"},
		{"option as mode", "", "mode: --settings-file=.x", ":1: mode: "},
		{"terminal escape", "", "\"\\e[2J\": 1", ":1: \x1b[2J: unknown key"}, // shown escaped by cmd
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			m.write(m.userFile(), test.user)
			path := filepath.Join(m.workspace, ".sesame.yaml")
			m.write(path, test.workspace)
			_, err := Load(m.options())
			wantUsage(t, err, path+test.want)
		})
	}
}

func TestTierOrder(t *testing.T) {
	tests := []struct {
		users, wanted string
		ok            bool
	}{
		{"auto", "auto", true},
		{"auto", "namespaces", true},
		{"auto", "landlock", false},
		{"auto", "seatbelt", false},
		{"landlock", "namespaces", true},
		{"landlock", "landlock", true},
		{"landlock", "auto", true},
		{"namespaces", "namespaces", true},
		{"namespaces", "seatbelt", false},
		{"off", "landlock", true},
		{"off", "off", false},
		{"", "auto", false},
	}
	for _, test := range tests {
		if err := tighterTier(test.users, test.wanted); (err == nil) != test.ok {
			t.Errorf("%s over %s: %v", test.wanted, test.users, err)
		}
	}
}

// What the user says on the spot is above the workspace's file, in both directions.
func TestUserOverridesWorkspace(t *testing.T) {
	m := newMachine(t)
	m.write(filepath.Join(m.workspace, ".sesame.yaml"), "sandbox: {profile: strict}")
	m.flags = []Flag{{"--profile", "sandbox.profile", []string{"standard"}}}
	if got := m.load().Sandbox.Profile; got != "standard" {
		t.Errorf("profile %s", got)
	}
}

func TestWorkspaceFileThatIsNone(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.yaml")
	if err := os.WriteFile(outside, []byte("mode: rush"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		make func(path string) error
		want string
	}{
		{"symlink out", func(p string) error { return os.Symlink(outside, p) }, "a symbolic link to " + outside},
		{"symlink up", func(p string) error { return os.Symlink("../home/x", p) }, "a symbolic link to ../home/x"},
		{"symlink to itself", func(p string) error { return os.Symlink(".sesame.yaml", p) }, "a symbolic link"},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }, "not a regular file"},
		{"too large", func(p string) error {
			return os.WriteFile(p, []byte(strings.Repeat("# padding\n", 1<<20/10+1)), 0o600)
		}, "larger than 1 MiB"},
		{"nested deeply", func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("[", 1<<19)), 0o600) }, "not YAML"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			if err := test.make(filepath.Join(m.workspace, ".sesame.yaml")); err != nil {
				t.Fatal(err)
			}
			_, err := Load(m.options())
			wantUsage(t, err, test.want)
		})
	}
}

func TestWorkspaceSymlinkInside(t *testing.T) {
	m := newMachine(t)
	m.write(filepath.Join(m.workspace, "ci", "sesame.yaml"), "mode: rush")
	if err := os.Symlink("ci/sesame.yaml", filepath.Join(m.workspace, ".sesame.yaml")); err != nil {
		t.Fatal(err)
	}
	if got := m.load().Mode; got != "rush" {
		t.Errorf("mode %s", got)
	}
}
