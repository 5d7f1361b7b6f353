package bootstrap

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNPMRC(t *testing.T) {
	env := []string{"TOKEN=s3cr3t", "HOST=registry.example", "EMPTY="}
	tests := map[string]struct {
		text string
		want map[string][]string
	}{
		"plain":                  {"registry=https://a.example/\n", map[string][]string{"registry": {"https://a.example/"}}},
		"spaces and windows":     {" registry = https://a.example/ \r\nx=1\r\n", map[string][]string{"registry": {"https://a.example/"}, "x": {"1"}}},
		"byte order mark":        {"\ufeffregistry=a", map[string][]string{"registry": {"a"}}},
		"comments":               {"; a=1\n# b=2\n  ;c=3\nd=4 ; five\ne=6#7\n", map[string][]string{"d": {"4"}, "e": {"6"}}},
		"escaped":                {`a=1\;2\#3\\4\5`, map[string][]string{"a": {`1;2#3\4\5`}}},
		"quotes":                 {"a=\"1;2\\n3\"\nb='x'\nc='\"y\"'\n\"d\"=1", map[string][]string{"a": {"1;2\n3"}, "b": {"x"}, "c": {"y"}, "d": {"1"}}},
		"quote that stays open":  {`a="x`, map[string][]string{"a": {`"x`}}},
		"value with =":           {"//h/:_auth=dXNlcjpwYXNz==", map[string][]string{"//h/:_auth": {"dXNlcjpwYXNz=="}}},
		"switch":                 {"always-auth\n", map[string][]string{"always-auth": {"true"}}},
		"last wins":              {"a=1\na=2", map[string][]string{"a": {"2"}}},
		"list":                   {"ca[]=1\nca[]=2", map[string][]string{"ca": {"1", "2"}}},
		"section is not npm's":   {"a=1\n[x]\nregistry=https://evil.example", map[string][]string{"a": {"1"}}},
		"variable":               {"//h/:_authToken=${TOKEN}", map[string][]string{"//h/:_authToken": {"s3cr3t"}}},
		"variable in the key":    {"//${HOST}/:_authToken=x", map[string][]string{"//registry.example/:_authToken": {"x"}}},
		"two variables":          {"a=${HOST}-${TOKEN}.", map[string][]string{"a": {"registry.example-s3cr3t."}}},
		"variable that is empty": {"a=x${EMPTY}", map[string][]string{"a": {"x"}}},
		"unset stays":            {"a=x${NONE}", map[string][]string{"a": {"x${NONE}"}}},
		"unset and optional":     {"a=x${NONE?}", map[string][]string{"a": {"x"}}},
		"escaped variable":       {`a=\\${TOKEN}`, map[string][]string{"a": {"${TOKEN}"}}},
		"open variable":          {"a=${TOKEN", map[string][]string{"a": {"${TOKEN"}}},
		"empty":                  {"\n\n", map[string][]string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := parseNPMRC(test.text, func(n string) (string, bool) { return lookupEnv(env, n) })
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseNPMRC(f *testing.F) {
	f.Add("a=${B}\n[x]\nca[]='\"1\"'\n=")
	f.Fuzz(func(_ *testing.T, text string) {
		parseNPMRC(text, func(n string) (string, bool) { return n, len(n)%2 == 0 })
	})
}

// layers is a machine: npm's files below one directory.
type layers struct {
	root string
	Network
}

func newLayers(t *testing.T) layers {
	t.Helper()
	root := t.TempDir()
	l := layers{root: root, Network: Network{Home: filepath.Join(root, "home"), OS: "linux"}}
	l.Environ = []string{"PATH=relative:" + filepath.Join(root, "usr", "bin")}
	l.write(t, "home/.keep", "")
	return l
}

func (l layers) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(l.root, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// node puts a node, and an npm that says text, where a distribution has them.
func (l layers) node(t *testing.T, text string) {
	t.Helper()
	l.write(t, "usr/bin/node", "")
	l.write(t, "usr/lib/node_modules/npm/bin/npm-cli.js", "#!/bin/sh\n"+text)
	if err := os.Symlink("../lib/node_modules/npm/bin/npm-cli.js", filepath.Join(l.root, "usr", "bin", "npm")); err != nil {
		t.Fatal(err)
	}
}

func (l layers) registry(t *testing.T) (string, error) {
	t.Helper()
	c, err := loadNPMConfig(l.Network)
	if err != nil {
		t.Fatal(err)
	}
	return c.registry(t.Context(), "@ampcode")
}

func TestRegistryByLayer(t *testing.T) {
	l := newLayers(t)
	check := func(want string) {
		t.Helper()
		if got, err := l.registry(t); err != nil || got != want {
			t.Errorf("registry %q, %v; want %q", got, err, want)
		}
	}
	if _, err := l.registry(t); !errors.Is(err, errNoRegistry) {
		t.Errorf("without anything: %v", err)
	}
	l.node(t, `[ "$*" = "config get registry --global" ] || exit 9
echo "npm notice something"
echo https://default.example/`)
	check("https://default.example/")
	l.write(t, "usr/lib/node_modules/npm/npmrc", "registry=https://builtin.example")
	check("https://builtin.example/")
	l.write(t, "usr/etc/npmrc", "registry=https://global.example")
	check("https://global.example/")
	l.write(t, "home/.npmrc", "registry=https://user.example")
	check("https://user.example/")
	l.NPMProject = filepath.Dir(l.write(t, "project/.npmrc", "registry=https://project.example"))
	check("https://project.example/")
	l.Environ = append(l.Environ, "NPM_CONFIG_REGISTRY=https://environment.example//")
	check("https://environment.example/")
	l.Environ = append(l.Environ, "npm_config_registry=") // npm passes over an empty one
	check("https://environment.example/")
	l.write(t, "home/.npmrc", "@ampcode:registry=https://scope.example/npm\nregistry=https://user.example")
	check("https://scope.example/npm/")
	l.Environ = append(l.Environ, "npm_config_@ampcode:registry=https://scope.environment.example")
	check("https://scope.environment.example/")
}

func TestWhereNPMFilesAre(t *testing.T) {
	tests := map[string]struct {
		file    string
		environ func(l layers) []string
		user    string
	}{
		"prefix variable":       {file: "p/etc/npmrc", environ: func(l layers) []string { return []string{"npm_config_prefix=" + l.root + "/p"} }},
		"PREFIX":                {file: "p/etc/npmrc", environ: func(l layers) []string { return []string{"PREFIX=" + l.root + "/p"} }},
		"prefix of the user":    {file: "p/etc/npmrc", user: "prefix=${ROOT}/p", environ: func(l layers) []string { return []string{"ROOT=" + l.root} }},
		"globalconfig variable": {file: "g/rc", environ: func(l layers) []string { return []string{"NPM_CONFIG_GLOBALCONFIG=" + l.root + "/g/rc"} }},
		"userconfig variable":   {file: "u/rc", environ: func(l layers) []string { return []string{"npm_config_userconfig=" + l.root + "/u/rc"} }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLayers(t)
			l.Environ = append(l.Environ, test.environ(l)...)
			l.write(t, "home/.npmrc", test.user)
			l.write(t, test.file, "registry=https://found.example")
			if got, err := l.registry(t); err != nil || got != "https://found.example/" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// A repository's .npmrc must not say where the executable comes from, neither
// to us nor to the npm that we ask.
func TestWorkingDirectoryIsNotAsked(t *testing.T) {
	l := newLayers(t)
	l.node(t, `if [ -e .npmrc ]; then echo https://evil.example/; else echo https://default.example/; fi`)
	l.write(t, "repository/.npmrc", "registry=https://evil.example")
	t.Chdir(filepath.Join(l.root, "repository"))
	if got, err := l.registry(t); err != nil || got != "https://default.example/" {
		t.Errorf("%q, %v", got, err)
	}
	l.write(t, "repository/relative/npm", "#!/bin/sh\necho https://evil.example/")
	l.Environ = []string{"PATH=relative"}
	if got, err := l.registry(t); !errors.Is(err, errNoRegistry) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNPMThatFails(t *testing.T) {
	for name, script := range map[string]string{"fails": "exit 1", "undefined": "echo undefined", "silent": "true"} {
		t.Run(name, func(t *testing.T) {
			l := newLayers(t)
			l.node(t, script)
			if got, err := l.registry(t); !errors.Is(err, errNoRegistry) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestAuthorization(t *testing.T) {
	const registry = "https://r.example/npm/team/"
	tests := map[string]struct {
		npmrc   string
		address string
		want    string
	}{
		"token":                    {"//r.example/npm/team/:_authToken=t", registry + "@ampcode%2fx", "Bearer t"},
		"token of a parent":        {"//r.example/npm/:_authToken=t", registry + "@ampcode%2fx", "Bearer t"},
		"without a slash":          {"//r.example/npm:_authToken=t", registry + "@ampcode%2fx", "Bearer t"},
		"of the host":              {"//r.example/:_authToken=t", registry, "Bearer t"},
		"the longest wins":         {"//r.example/:_authToken=short\n//r.example/npm/team/:_authToken=long", registry, "Bearer long"},
		"basic":                    {"//r.example/:_auth=dTpw", registry, "Basic dTpw"},
		"user and password":        {"//r.example/:username=u\n//r.example/:_password=cA==", registry, "Basic dTpw"},
		"password alone":           {"//r.example/:_password=cA==", registry, ""},
		"file elsewhere on it":     {"//r.example/npm/team/:_authToken=t", "https://r.example/files/a.tgz", "Bearer t"},
		"file on another host":     {"//r.example/:_authToken=t", "https://cdn.example/a.tgz", ""},
		"host that begins alike":   {"//r.example/:_authToken=t", "https://r.example.evil/a.tgz", ""},
		"other port":               {"//r.example/:_authToken=t", "https://r.example:8443/a.tgz", ""},
		"plain instead of TLS":     {"//r.example/npm/team/:_authToken=t", "http://r.example/npm/team/a.tgz", ""},
		"path that begins alike":   {"//other.example/npm/:_authToken=t", "https://other.example/npm-evil/x", ""},
		"without a host (old npm)": {"_authToken=t", registry, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLayers(t)
			l.write(t, "home/.npmrc", test.npmrc)
			c, err := loadNPMConfig(l.Network)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.authorization(test.address, registry); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
