package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// realTool is a program of everyday work with what it needs from the host, and what it does in two turns: cold, and
// warm, which must find the caches of the first.
type realTool struct {
	needs []string
	// files of the workspace, and of the home when their names begin with "~/"
	files map[string]string
	cold  string
	warm  string
	want  string // in what the warm turn says
}

// realTools work without a registry: packages are archives in the workspace, or of the workspace itself.
var realTools = map[string]realTool{
	"go build": {
		needs: []string{"go"},
		files: map[string]string{"go.mod": "module m\n\ngo 1.21\n", "main.go": "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"built\") }\n"},
		cold:  "go build -o m . && ./m",
		// Nothing is compiled again: -x would say so.
		warm: "touch main.go; go build -x -o m2 . 2>&1 | grep -c /compile; ./m2",
		want: "0\nbuilt\n",
	},
	"go test": {
		needs: []string{"go"},
		files: map[string]string{"go.mod": "module m\n\ngo 1.21\n", "m_test.go": "package m\n\nimport \"testing\"\n\nfunc TestM(t *testing.T) {}\n"},
		cold:  "go test ./...",
		warm:  "go test ./...",
		want:  "(cached)",
	},
	"npm ci": {
		needs: []string{"npm", "node"},
		files: map[string]string{
			"dep/package.json": `{"name":"dep","version":"1.0.0","main":"dep.js","bin":{"dep":"dep.js"}}`,
			"dep/dep.js":       "#!/usr/bin/env node\nmodule.exports = 'dep works'; if (require.main === module) console.log(module.exports)\n",
			"package.json":     `{"name":"m","version":"1.0.0","dependencies":{"dep":"file:dep-1.0.0.tgz"}}`,
			"~/.npmrc":         "//registry.example/:_authToken=SECRET\n",
		},
		cold: "npm pack --silent ./dep && npm install --silent --offline --no-audit --no-fund && rm -r node_modules && npm ci --silent --offline --no-audit --no-fund && node -p 'require(\"dep\")' && find ~/.npm/_cacache -type f | grep -q . && rm dep-1.0.0.tgz && touch ~/.npm/second",
		// The archive is gone: what is installed comes from the cache.
		warm: "test -e ~/.npm/second && npm cache ls --silent | head -1 | cut -c1-4; npm pack --silent ./dep && rm -rf node_modules && npm ci --silent --offline --no-audit --no-fund && npx --offline dep",
		want: "dep works\n",
	},
	"npx": {
		needs: []string{"npm", "node"},
		files: map[string]string{
			"dep/package.json": `{"name":"dep","version":"1.0.0","bin":{"dep":"dep.js"}}`,
			"dep/dep.js":       "#!/usr/bin/env node\nconsole.log('npx works')\n",
		},
		cold: "npm pack --silent ./dep && npx --offline --yes ./dep-1.0.0.tgz && find ~/.npm/_npx -name package.json | grep -q .",
		warm: "npx --offline --yes ./dep-1.0.0.tgz; ls ~/.npm/_npx | wc -l", // the same place again
		want: "npx works\n1\n",
	},
	"pip install --user": {
		needs: []string{"/usr/bin/python3", "/usr/bin/pip3"},
		files: map[string]string{"make.py": wheelMaker},
		cold:  "/usr/bin/python3 make.py && /usr/bin/pip3 install --user --no-index -q ./dep-1.0-py3-none-any.whl",
		warm:  "/usr/bin/python3 -c 'import dep; print(dep.text)'; ~/.local/bin/dep; /usr/bin/pip3 show -q dep && /usr/bin/pip3 install --user --no-index dep | grep -o 'already satisfied'",
		want:  "dep works\ndep works\nalready satisfied\n",
	},
	"cargo build": {
		needs: []string{"cargo", "rustc"},
		files: map[string]string{
			"Cargo.toml": "[package]\nname = \"m\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\ndep = { path = \"dep\" }\n", "src/main.rs": "fn main() { println!(\"{}\", dep::text()) }\n",
			"dep/Cargo.toml": "[package]\nname = \"dep\"\nversion = \"0.1.0\"\nedition = \"2021\"\n", "dep/src/lib.rs": "pub fn text() -> &'static str { \"cargo works\" }\n",
		},
		cold: "export CARGO_TARGET_DIR=~/target; cargo build --offline && ~/target/debug/m",
		warm: "export CARGO_TARGET_DIR=~/target; cargo build --offline 2>&1 | grep -c Compiling; ~/target/debug/m; cargo install -q --offline --path . --root ~/.cargo 2> /dev/null && ~/.cargo/bin/m",
		want: "0\ncargo works\ncargo works\n",
	},
	"git commit": {
		needs: []string{"git"},
		files: map[string]string{"~/.gitconfig": "[user]\n\tname = A Person\n\temail = person@example.com\n[init]\n\tdefaultBranch = main\n"},
		cold:  "git init -q sub && cd sub && echo 1 > f && git add f && git commit -qm one",
		warm:  "cd sub && echo 2 > f && git commit -qam two && git log --format='%an %ae %s' && git config --global alias.x log && git x --oneline | wc -l",
		want:  "A Person person@example.com two\nA Person person@example.com one\n2\n",
	},
}

// wheelMaker writes a wheel, which is an archive with a few files in it.
const wheelMaker = `import zipfile
with zipfile.ZipFile("dep-1.0-py3-none-any.whl", "w") as z:
    for name, text in {
        "dep.py": "text = 'dep works'\ndef main(): print(text)\n",
        "dep-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: dep\nVersion: 1.0\n",
        "dep-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "dep-1.0.dist-info/entry_points.txt": "[console_scripts]\ndep = dep:main\n",
        "dep-1.0.dist-info/RECORD": "",
    }.items(): z.writestr(name, text)
`

// TestRealTools has real programs do their work twice in a sandbox, each in a home that they fill with caches. The second time
// the caches are there, and the host's home is what it was.
func TestRealTools(t *testing.T) {
	for name, tool := range realTools {
		t.Run(name, func(t *testing.T) {
			h := tool.host(t)
			before := digestOf(t, h.policy.Home, h.policy.Workspace, h.policy.HomeState, h.policy.GuardState)
			cold := h.sh("set -e; " + tool.cold)
			if out := h.sh(tool.warm); !strings.Contains(out, tool.want) {
				t.Errorf("warm: %q, want %q; cold was %q", out, tool.want, cold)
			}
			if after := digestOf(t, h.policy.Home, h.policy.Workspace, h.policy.HomeState, h.policy.GuardState); after != before {
				t.Errorf("the host's home was changed; before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// host is one that has what the tool needs.
func (tool realTool) host(t *testing.T) *host {
	t.Helper()
	for _, need := range tool.needs {
		if _, err := exec.LookPath(need); err != nil && os.Getenv("CI") == "" {
			t.Skipf("%v: .ci/run installs it", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	h := newHost(t)
	h.limit = 10 * time.Minute // they compile all that they need, while other tests run
	for path, text := range tool.files {
		if rel, home := strings.CutPrefix(path, "~/"); home {
			h.write(rel, text)
		} else {
			h.write("src/project/"+path, text)
		}
	}
	h.toolchainsOfTheMachine()
	h.env = append(h.env, "PIP_BREAK_SYSTEM_PACKAGES=1", "PIP_ROOT_USER_ACTION=ignore") // which older ones do not know as flags
	return h
}

// toolchainsOfTheMachine shows the toolchains that the one who runs the tests has in their home.
func (h *host) toolchainsOfTheMachine() {
	h.t.Helper()
	own, err := os.UserHomeDir()
	if err != nil {
		h.t.Fatal(err)
	}
	env := os.Environ()
	for _, place := range []struct{ variable, dir string }{{"RUSTUP_HOME", ".rustup"}, {"", ".cargo/bin"}, {"", ".pyenv"}} {
		dir := filepath.Join(own, place.dir)
		if dir = resolve(dir); !isDir(dir) {
			continue
		}
		h.policy.AllowRead = append(h.policy.AllowRead, dir)
		if place.variable != "" && os.Getenv(place.variable) == "" {
			env = append(env, place.variable+"="+dir)
		}
	}
	h.env = Environment(env, h.policy.Home, nil)
}

// digestOf tells all that is in a directory: names, modes, times and content, but for what is in the directories left out.
func digestOf(t *testing.T, dir string, without ...string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, w := range without {
			switch {
			case path == w:
				return fs.SkipDir
			case within(w, path):
				return nil // on the way to it: what is made there is sesame's, or the workspace's
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			text, err = os.Readlink(path)
		case d.Type().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			sum := sha256.Sum256(data)
			text = hex.EncodeToString(sum[:])
		}
		fmt.Fprintf(&b, "%s %s %d %s\n", path, info.Mode(), info.ModTime().UnixNano(), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
