package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/viper"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// machine is a home, a workspace and an administrator's directory on disk.
type machine struct {
	t                       *testing.T
	home, workspace, system string
	env                     Env
	flags                   []Flag
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{
		t:         t,
		home:      filepath.Join(dir, "home"),
		workspace: filepath.Join(dir, "work"),
		system:    filepath.Join(dir, "xdg"),
		env:       Env{},
	}
	m.write(filepath.Join(m.workspace, "README"), "")
	return m
}

func (m *machine) write(path, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) userFile() string { return filepath.Join(m.home, ".config", "sesame", "config.yaml") }

func (m *machine) options() Options {
	return Options{
		Env: m.env,
		Dirs: Dirs{
			Home:   m.home,
			Config: filepath.Join(m.home, ".config", "sesame"),
			System: []string{filepath.Join(m.system, "sesame"), filepath.Join(m.system, "second", "sesame")},
		},
		Workspace: m.workspace,
		Dir:       m.workspace,
		Flags:     m.flags,
	}
}

func (m *machine) load() *Config {
	m.t.Helper()
	cfg, err := Load(m.options())
	if err != nil {
		m.t.Fatal(err)
	}
	return cfg
}

func TestDefaults(t *testing.T) {
	cfg := newMachine(t).load()
	want := &Config{
		Mode: "smart", Output: Text, Labels: []string{},
		Amp: Amp{
			URL: "https://ampcode.com/", Version: "latest", Sources: []string{}, Modes: map[string]string{},
			Args: []string{}, KeepVersions: 2, UpdateInterval: 24 * time.Hour,
		},
		Sandbox: Sandbox{
			Tier: "auto", Profile: "standard",
			AllowHosts: []string{}, AllowRead: []string{}, AllowWrite: []string{}, DenyRead: []string{}, PassEnv: []string{},
		},
		origins: map[string][]Origin{},
	}
	if diff := cmp.Diff(want, cfg, cmp.AllowUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
}

// Each layer sets mode; the last one of those present must win.
func TestLayers(t *testing.T) {
	layers := []struct {
		name string
		set  func(*machine)
		want string
	}{
		{"default", func(*machine) {}, "smart"},
		{"less important system directory", func(m *machine) {
			m.write(filepath.Join(m.system, "second", "sesame", "config.yaml"), "mode: second")
		}, "second"},
		{"system", func(m *machine) { m.write(filepath.Join(m.system, "sesame", "config.yaml"), "mode: system") }, "system"},
		{"user", func(m *machine) { m.write(m.userFile(), "mode: user") }, "user"},
		{"workspace", func(m *machine) { m.write(filepath.Join(m.workspace, ".sesame.yaml"), "mode: workspace") }, "workspace"},
		{"environment", func(m *machine) { m.env["SESAME_MODE"] = "environment" }, "environment"},
		{"flag", func(m *machine) { m.flags = []Flag{{"--mode", "mode", []string{"flag"}}} }, "flag"},
	}
	m := newMachine(t)
	for i, layer := range layers {
		layer.set(m)
		cfg := m.load()
		if cfg.Mode != layer.want {
			t.Errorf("%s: mode %q, want %q", layer.name, cfg.Mode, layer.want)
		}
		if i > 1 && cfg.Origin("mode").Layer != Layer(i-1) {
			t.Errorf("%s: origin %v", layer.name, cfg.Origin("mode"))
		}
	}
}

func TestEverySettingFromFileAndEnvironment(t *testing.T) {
	m := newMachine(t)
	m.write(m.userFile(), `
mode: deep
output: json
output-file: ~/last.txt
timeout: 90s
labels: [a, b]
show-thinking: true
quiet: true
verbose: false
amp:
  url: HTTPS://Amp.Example.com:443/base
  version: 0.0.1770734955-g93e689
  path: /opt/amp
  sources: [static, https://mirror.example.com/cli, ~/mirror]
  modes: {Deep: high}
  args: [--foo]
  mcp-config: '{"a":{}}'
  keep-versions: 5
  update-interval: 1h30m
sandbox:
  tier: namespaces
  profile: strict
  allow-hosts: [example.com]
  allow-read: [/opt/../srv]
  allow-write: ['~']
  deny-read: [~/private]
  pass-env: [GOFLAGS]
  expose-key: true
`)
	fromFile := m.load()
	want := &Config{
		Mode: "deep", Output: JSON, OutputFile: m.home + "/last.txt", Timeout: 90 * time.Second, Labels: []string{"a", "b"},
		ShowThinking: true, Quiet: true,
		Amp: Amp{
			URL: "https://amp.example.com/base/", Version: "0.0.1770734955-g93e689", Path: "/opt/amp",
			Sources: []string{"static", "https://mirror.example.com/cli", m.home + "/mirror"},
			Modes:   map[string]string{"Deep": "high"}, Args: []string{"--foo"}, MCPConfig: `{"a":{}}`,
			KeepVersions: 5, UpdateInterval: 90 * time.Minute,
		},
		Sandbox: Sandbox{
			Tier: "namespaces", Profile: "strict", AllowHosts: []string{"example.com"}, AllowRead: []string{"/srv"},
			AllowWrite: []string{m.home}, DenyRead: []string{m.home + "/private"}, PassEnv: []string{"GOFLAGS"}, ExposeKey: true,
		},
		Files: []string{m.userFile()},
	}
	ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".origins" }, cmp.Ignore())
	if diff := cmp.Diff(want, fromFile, ignore); diff != "" {
		t.Errorf("file: %s", diff)
	}
	if got := fromFile.Origin("sandbox.tier").String(); got != m.userFile()+":21" {
		t.Errorf("origin of sandbox.tier: %s", got)
	}

	if err := os.Remove(m.userFile()); err != nil {
		t.Fatal(err)
	}
	m.env = Env{
		"SESAME_MODE": "deep", "SESAME_OUTPUT": "json", "SESAME_OUTPUT_FILE": "~/last.txt", "SESAME_TIMEOUT": "90s",
		"SESAME_LABELS": "a, b", "SESAME_SHOW_THINKING": "1", "SESAME_QUIET": "true", "SESAME_VERBOSE": "0",
		"AMP_URL": "https://other.example.com", "SESAME_AMP_URL": "HTTPS://Amp.Example.com:443/base",
		"SESAME_AMP_VERSION": "0.0.1770734955-g93e689", "SESAME_AMP_PATH": "/opt/amp",
		"SESAME_AMP_SOURCES": "static,https://mirror.example.com/cli,~/mirror", "SESAME_AMP_MODES": "Deep=high",
		"SESAME_AMP_ARGS": "--foo", "SESAME_AMP_MCP_CONFIG": `{"a":{}}`, "SESAME_AMP_KEEP_VERSIONS": "5",
		"SESAME_AMP_UPDATE_INTERVAL": "1h30m", "SESAME_SANDBOX_TIER": "namespaces", "SESAME_SANDBOX_PROFILE": "strict",
		"SESAME_SANDBOX_ALLOW_HOSTS": "example.com,", "SESAME_SANDBOX_ALLOW_READ": "/srv", "SESAME_SANDBOX_ALLOW_WRITE": "~",
		"SESAME_SANDBOX_DENY_READ": "~/private", "SESAME_SANDBOX_PASS_ENV": "GOFLAGS", "SESAME_SANDBOX_EXPOSE_KEY": "true",
	}
	want.Files = nil
	if diff := cmp.Diff(want, m.load(), ignore); diff != "" {
		t.Errorf("environment: %s", diff)
	}
}

// What viper has of a setting arrives in the field that has its key, whatever that is.
func TestEverySettingHasAField(t *testing.T) {
	settings := schema()
	var field func(v reflect.Value, key string) reflect.Value
	fields := 0
	field = func(v reflect.Value, key string) (found reflect.Value) {
		for i := range v.NumField() {
			switch name := v.Type().Field(i).Tag.Get("key"); {
			case name == "":
			case v.Field(i).Kind() == reflect.Struct:
				if inner := field(v.Field(i), strings.TrimPrefix(key, name+".")); inner.IsValid() && strings.HasPrefix(key, name+".") {
					found = inner
				}
			default:
				if fields++; name == key {
					found = v.Field(i)
				}
			}
		}
		return found
	}
	values := map[kind]any{
		textKind: "a text", boolKind: true, countKind: 7, durationKind: 3 * time.Hour,
		listKind: []string{"a", "b"}, tableKind: map[string]string{"a": "b"},
	}
	for _, s := range settings {
		l := &loader{viper: viper.New()}
		for _, other := range settings {
			l.viper.SetDefault(other.name, other.zero())
		}
		want := values[s.kind]
		l.viper.Set(s.name, want)
		fields = 0
		got := field(reflect.ValueOf(l.config()).Elem(), s.name)
		if !got.IsValid() || !reflect.DeepEqual(got.Convert(reflect.TypeOf(want)).Interface(), want) {
			t.Errorf("%s: %v instead of %v", s.name, got, want)
		}
		if fields != len(settings) {
			t.Fatalf("%d fields for %d settings", fields, len(settings))
		}
	}
}

func TestAmpURLVariable(t *testing.T) {
	m := newMachine(t)
	m.write(m.userFile(), "amp: {url: https://file.example.com}")
	m.env["AMP_URL"] = "http://127.0.0.1:4000"
	cfg := m.load()
	if cfg.Amp.URL != "http://127.0.0.1:4000/" || cfg.Origin("amp.url").String() != "AMP_URL" {
		t.Errorf("got %s from %s", cfg.Amp.URL, cfg.Origin("amp.url"))
	}
}

func TestListsOfLayers(t *testing.T) {
	m := newMachine(t)
	m.write(m.userFile(), "sandbox: {allow-hosts: [a.example], deny-read: [/secret]}")
	m.write(filepath.Join(m.workspace, ".sesame.yaml"), "sandbox: {deny-read: [private]}")
	m.flags = []Flag{
		{"--allow-host", "sandbox.allow-hosts", []string{"b.example", "c.example"}},
		{"--deny-read", "sandbox.deny-read", []string{"here"}},
	}
	cfg := m.load()
	if diff := cmp.Diff([]string{"a.example", "b.example", "c.example"}, cfg.Sandbox.AllowHosts); diff != "" {
		t.Errorf("a flag forgot the file's hosts: %s", diff)
	}
	want := []string{"/secret", filepath.Join(m.workspace, "private"), filepath.Join(m.workspace, "here")}
	if diff := cmp.Diff(want, cfg.Sandbox.DenyRead); diff != "" {
		t.Errorf("a layer took a denial back: %s", diff)
	}
	if cfg.ItemOrigin("sandbox.allow-hosts", 0).Layer != LayerUser || cfg.ItemOrigin("sandbox.allow-hosts", 2).Name != "--allow-host" {
		t.Errorf("origins: %v", cfg.origins["sandbox.allow-hosts"])
	}
	m.env["SESAME_SANDBOX_ALLOW_HOSTS"] = ""
	m.flags = nil
	if got := m.load().Sandbox.AllowHosts; len(got) != 0 {
		t.Errorf("an empty variable must empty the list, got %q", got)
	}
}

func TestBadFiles(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"unknown key", "mode: smart\nmodel: x", ":2: model: unknown key"},
		{"unknown nested key", "amp:\n  url: https://a.example\n  verison: x", ":3: amp.verison: unknown key"},
		{"case counts", "Mode: smart", ":1: Mode: unknown key"},
		{"dotted key", "sandbox.tier: off", ":1: sandbox.tier: unknown key"},
		{"dotted key inside", "sandbox: {deny.read: []}", ":1: sandbox.deny.read: unknown key"},
		{"number for text", "mode: 5", ":1: mode: must be a string, not 5"},
		{"yes is a string", "quiet: 'yes'", `:1: quiet: must be true or false, not "yes"`},
		{"nothing for text", "\nmode:", ":2: mode: must be a string, not nothing"},
		{"list for text", "mode: [a]", ":1: mode: must be a string, not a list"},
		{"text for list", "labels: a", `:1: labels: must be a list such as [a, b], not "a"`},
		{"number in list", "labels:\n  - a\n  - 7", ":3: labels: must be a string, not 7"},
		{"text for section", "sandbox: off", `:1: sandbox: must be a section of keys, not "off"`},
		{"list at the top", "- a", ":1: a configuration is a list of `key: value`, this is a list"},
		{"bare number for duration", "timeout: 30", ":1: timeout: must be a duration such as 30s, not 30"},
		{"bad duration", "timeout: soon", `:1: timeout: "soon" is not a duration`},
		{"negative duration", "timeout: -5s", `:1: timeout: "-5s" is negative`},
		{"set twice", "mode: a\noutput: text\nmode: b", ":3: mode: set twice, first in line 1"},
		{"section twice", "amp: {}\namp: {}", ":2: amp: set twice, first in line 1"},
		{"mode in a table twice", "amp:\n  modes:\n    a: b\n    a: c", ":4: amp.modes.a: set twice"},
		{"alias", "mode: &m smart\namp: {version: *m}", ":1: mode: anchors, aliases and merges are not supported"},
		{"merge", "<<: {mode: x}", ":1: a key: anchors, aliases and merges are not supported"},
		{"no YAML", "mode: smart\n  output: [", ":2: not YAML:"},
		{"tab", "amp:\n\turl: x", ":2: not YAML:"},
		{"two documents", "mode: a\n---\nmode: b", ":2: a second document"},
		{"bad enumeration", "output: jsn", `:1: output: "jsn" is not one of text, json, stream-json (did you mean json?)`},
		{"mode that is an option", "mode: --settings-file=/x", `:1: mode: "--settings-file=/x" is not the name of a mode`},
		{"label that is an option", "labels: [-x]", ":1: labels: \"-x\" is not a label"},
		{"version that is a path", "amp: {version: ../../x}", ":1: amp.version: \"../../x\" is not a version"},
		{"relative path", "sandbox: {allow-read: [../x]}", ":1: sandbox.allow-read: \"../x\" must be absolute or begin with ~/"},
		{"empty path", "sandbox: {allow-write: ['']}", ":1: sandbox.allow-write: must not be empty"},
		{"bad source", "amp: {sources: [pip]}", `:1: amp.sources: "pip" is not a source`},
		{"bad variable", "sandbox: {pass-env: [A=B]}", `:1: sandbox.pass-env: "A=B" is not the name`},
		{"no digest", "amp: {sha256: abc}", ":1: amp.sha256: \"abc\" is no sha256"},
		{"count too small", "amp: {keep-versions: 0}", ":1: amp.keep-versions: 0 is too small: at least 1"},
		{"fraction for count", "amp: {keep-versions: 1.5}", ":1: amp.keep-versions: must be a number, not 1.5"},
		{"plain http", "amp: {url: http://amp.example.com}", ":1: amp.url: would send the key unencrypted to amp.example.com"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			m.write(m.userFile(), test.content)
			_, err := Load(m.options())
			wantUsage(t, err, m.userFile()+test.want)
		})
	}
}

func wantUsage(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", text)
	}
	if fault.CodeOf(err) != fault.Usage || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %s: %v\nwant usage: …%s…", fault.CodeOf(err), err, text)
	}
}

func TestHarmlessFiles(t *testing.T) {
	for _, content := range []string{"", "\n# nothing\n", "---\n", "amp:\nsandbox:\n", "timeout: 0", "\ufeffmode: smart"} {
		m := newMachine(t)
		m.write(m.userFile(), content)
		if _, err := Load(m.options()); err != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestBadVariablesAndFlags(t *testing.T) {
	tests := []struct {
		name string
		env  Env
		flag []Flag
		want string
	}{
		{name: "duration", env: Env{"SESAME_TIMEOUT": "30"}, want: `SESAME_TIMEOUT: "30" is not a duration`},
		{name: "bool", env: Env{"SESAME_QUIET": "maybe"}, want: `SESAME_QUIET: "maybe" is not true or false`},
		{name: "count", env: Env{"SESAME_AMP_KEEP_VERSIONS": "-1"}, want: "SESAME_AMP_KEEP_VERSIONS: -1 is too small"},
		{name: "table", env: Env{"SESAME_AMP_MODES": "deep"}, want: `SESAME_AMP_MODES: "deep" is not of the form NAME=VALUE`},
		{name: "amp url", env: Env{"AMP_URL": "https://me:secret@amp.example"}, want: "AMP_URL: must not have a user name"},
		{name: "sandbox slip", env: Env{"SESAME_SANDBOX_DENYREAD": "/x"}, want: "SESAME_SANDBOX_DENYREAD: no such setting"},
		{name: "flag", flag: []Flag{{"--timeout", "timeout", []string{"x"}}}, want: `--timeout: "x" is not a duration`},
		{name: "flag tier", flag: []Flag{{"--sandbox", "sandbox.tier", []string{"none"}}}, want: `--sandbox: "none" is not one of`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			m.env, m.flags = test.env, test.flag
			_, err := Load(m.options())
			wantUsage(t, err, test.want)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("a password is in %q", err)
			}
		})
	}
}

func TestStrangeVariables(t *testing.T) {
	m := newMachine(t)
	m.env = Env{"SESAME_MDOE": "x", "SESAME_PORT_80_TCP": "tcp://10.0.0.1:80", "SESAME_SERVICE_HOST": "10.0.0.1"}
	cfg := m.load()
	if diff := cmp.Diff([]string{"SESAME_MDOE is no setting (did you mean SESAME_MODE?)"}, cfg.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestConfigFlagReplacesUserFile(t *testing.T) {
	m := newMachine(t)
	m.write(m.userFile(), "mode: user")
	other := filepath.Join(m.home, "other.yaml")
	m.write(other, "output: json")
	o := m.options()
	o.ConfigFile = other
	cfg, err := Load(o)
	if err != nil || cfg.Mode != "smart" || cfg.Output != JSON {
		t.Fatalf("got %+v, %v", cfg, err)
	}
	o.ConfigFile = filepath.Join(m.home, "missing.yaml")
	_, err = Load(o)
	wantUsage(t, err, "missing.yaml")
	o.ConfigFile = m.home
	_, err = Load(o)
	wantUsage(t, err, "not a regular file")
}

// The form of the error has to be known although there is an error.
func TestOutputKnownDespiteError(t *testing.T) {
	m := newMachine(t)
	m.write(m.userFile(), "modle: x")
	m.flags = []Flag{{"--output", "output", []string{"json"}}}
	cfg, err := Load(m.options())
	if err == nil || cfg == nil || cfg.Output != JSON {
		t.Fatalf("got %+v, %v", cfg, err)
	}
}
