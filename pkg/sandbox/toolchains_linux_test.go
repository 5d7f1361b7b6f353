package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// layouts are where managers of toolchains put programs below the home, and what they lead there by: a directory for
// PATH, or a link or script in one.
var layouts = map[string]struct{ program, path, link, script string }{
	"nvm":    {program: ".nvm/versions/node/v20.0.0/bin/tool", path: ".nvm/versions/node/v20.0.0/bin"},
	"fnm":    {program: ".local/share/fnm/node-versions/v20.0.0/installation/bin/tool", path: ".local/share/fnm/aliases/default/bin", link: ".local/share/fnm/aliases/default>.local/share/fnm/node-versions/v20.0.0/installation"},
	"volta":  {program: ".volta/tools/image/node/20.0.0/bin/tool", path: ".volta/tools/image/node/20.0.0/bin"},
	"pyenv":  {program: ".pyenv/versions/3.12.1/bin/tool", path: ".pyenv/shims", script: "exec ~/.pyenv/versions/3.12.1/bin/tool \"$@\""},
	"rustup": {program: ".rustup/toolchains/stable/bin/tool", path: ".cargo/bin", link: ".cargo/bin/tool>.rustup/toolchains/stable/bin/tool"},
	"asdf":   {program: ".asdf/installs/nodejs/20.0.0/bin/tool", path: ".asdf/shims", script: "exec ~/.asdf/installs/nodejs/20.0.0/bin/tool \"$@\""},
	"mise":   {program: ".local/share/mise/installs/node/20.0.0/bin/tool", path: ".local/share/mise/shims", link: ".local/share/mise/shims/tool>.local/share/mise/installs/node/20.0.0/bin/tool"},
	"pipx":   {program: ".local/share/pipx/venvs/tool/bin/tool", path: ".local/bin", link: ".local/bin/tool>.local/share/pipx/venvs/tool/bin/tool"},
	"uv":     {program: ".local/share/uv/tools/tool/bin/tool", path: ".local/bin", link: ".local/bin/tool>.local/share/uv/tools/tool/bin/tool"},
}

// A toolchain that lives in the home works in every profile.
func TestToolchainsOfTheHome(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range layouts {
		for _, profile := range []Profile{Standard, Strict} {
			t.Run(name+" "+string(profile), func(t *testing.T) {
				h := newHost(t)
				h.policy.Profile = profile
				h.policy.AllowHosts = nil
				program := h.write(l.program, "")
				if err := os.Remove(program); err != nil {
					t.Fatal(err)
				}
				real, ask, want := node, "tool -p 6*7", "42\n"
				if name != "nvm" { // one real node is enough of them
					real, ask, want = "/usr/bin/expr", "tool 6 '*' 7", "42\n"
				}
				if out, err := exec.Command("cp", resolve(real), program).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if at, to, ok := strings.Cut(l.link, ">"); ok {
					at = filepath.Join(h.policy.Home, at)
					if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink(filepath.Join(h.policy.Home, to), at); err != nil {
						t.Fatal(err)
					}
				}
				if l.script != "" {
					shim := h.write(l.path+"/tool", "#!/bin/sh\n"+l.script+"\n")
					if err := os.Chmod(shim, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				for i, kv := range h.env {
					if path, ok := strings.CutPrefix(kv, "PATH="); ok {
						h.env[i] = "PATH=" + filepath.Join(h.policy.Home, l.path) + ":" + path
					}
				}
				if out := h.sh(ask); out != want {
					t.Errorf("%q", out)
				}
				if name == "nvm" { // by the home's own name, too
					if out := h.sh("~/" + l.program + " -p 6*7"); out != want {
						t.Errorf("%q", out)
					}
				}
				h.run("/bin/sh", "-c", "echo evil > ~/"+l.program)
				if info, err := os.Stat(program); err != nil || info.Size() < 1000 {
					t.Errorf("the host's program was changed: %v", err)
				}
			})
		}
	}
}

// A language server, asked as an editor does: over its standard streams.
func TestLanguageServer(t *testing.T) {
	cache := os.Getenv("SESAME_TEST_CACHE")
	if cache == "" {
		own, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(own, "sesame-test")
	}
	dir := filepath.Join(cache, "language-server")
	server := filepath.Join(dir, "node_modules", "typescript-language-server", "lib", "cli.mjs")
	if _, err := os.Stat(server); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		install := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", dir, "typescript-language-server@4.3.3", "typescript@5.4.5")
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("npm install: %v\n%s", err, out)
		}
	}
	ask := `const child = require("child_process").spawn(process.execPath, [process.argv[2], "--stdio"], {stdio: ["pipe", "pipe", "inherit"]})
const send = m => { const s = JSON.stringify({jsonrpc: "2.0", ...m}); child.stdin.write("Content-Length: " + s.length + "\r\n\r\n" + s) }
let text = ""
child.stdout.on("data", d => {
  text += d
  if (text.includes('"definitionProvider":true') && !child.asked) {
    child.asked = true
    send({method: "initialized", params: {}})
    send({method: "textDocument/didOpen", params: {textDocument: {uri: "file://" + process.cwd() + "/a.ts", languageId: "typescript", version: 1, text: "const answer = 42\nanswer"}}})
    send({id: 2, method: "textDocument/hover", params: {textDocument: {uri: "file://" + process.cwd() + "/a.ts"}, position: {line: 1, character: 2}}})
  }
  if (text.includes("const answer: 42")) { console.log("HOVERS"); child.kill() }
})
send({id: 1, method: "initialize", params: {processId: null, rootUri: "file://" + process.cwd(), capabilities: {}, initializationOptions: {disableAutomaticTypingAcquisition: true}}})
`
	for _, profile := range []Profile{Standard, Strict} {
		h := newHost(t)
		h.policy.Profile = profile
		h.policy.AllowRead = []string{resolve(dir)}
		h.write("src/project/ask.js", ask)
		h.write("src/project/a.ts", "")
		if out := h.sh(fmt.Sprintf("timeout 50 node ask.js '%s'", server)); !strings.Contains(out, "HOVERS") {
			t.Errorf("%s: %s", profile, out)
		}
	}
}
