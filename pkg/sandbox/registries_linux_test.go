package sandbox

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// registryClients install the package dep 1.0.0 from a registry on the host, whose address is in $REGISTRY, and use it.
var registryClients = map[string]realTool{
	"npm": {
		needs: []string{"npm", "node"},
		files: map[string]string{"package.json": `{"name":"m","version":"1.0.0"}`},
		cold:  `npm install --silent --no-audit --no-fund --fetch-retries=0 --registry $REGISTRY/npm/ dep@1.0.0 && node -p 'require("dep")'`,
	},
	"pip": {
		needs: []string{"/usr/bin/python3", "/usr/bin/pip3"},
		cold:  `/usr/bin/pip3 install --user -q --retries 0 --index-url $REGISTRY/pypi/simple --trusted-host localhost dep && /usr/bin/python3 -c 'import dep; print(dep.text)'`,
	},
	"go": {
		needs: []string{"go"},
		files: map[string]string{
			"go.mod":  "module m\n\ngo 1.21\n\nrequire registry.example/dep v1.0.0\n",
			"main.go": "package main\n\nimport \"registry.example/dep\"\n\nfunc main() { println(dep.Text) }\n",
		},
		cold: `GOPROXY=$REGISTRY/go GONOSUMDB='*' GOFLAGS=-mod=mod go run .`,
	},
	"cargo": {
		needs: []string{"cargo", "rustc"},
		files: map[string]string{
			"Cargo.toml":         "[package]\nname = \"m\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\ndep = { version = \"1\", registry = \"here\" }\n",
			"src/main.rs":        "fn main() { println!(\"{}\", dep::text()) }\n",
			".cargo/config.toml": "[net]\nretry = 0\n",
		},
		// Cargo before 1.68, as Debian 12 has it, knows such a registry only as an unstable feature.
		cold: `CARGO_REGISTRIES_HERE_INDEX=sparse+$REGISTRY/cargo/ RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_SPARSE_REGISTRY=true cargo run -q`,
	},
}

// TestRegistries has package managers install from a registry that the user allowed, and from one that nobody did.
func TestRegistries(t *testing.T) {
	server := httptest.NewServer(registry(t))
	t.Cleanup(server.Close)
	here := "localhost:" + port(t, server)
	for name, tool := range registryClients {
		t.Run(name, func(t *testing.T) {
			h := tool.host(t)
			h.env = append(h.env, "REGISTRY=http://"+here)
			before := digestOf(t, h.policy.Home, h.policy.Workspace, h.policy.HomeState, h.policy.GuardState)
			if r := h.run("/bin/bash", "-c", tool.cold); r.code == 0 {
				t.Errorf("it works without being allowed: %s", r.out)
			}
			h.allow(here)
			if r := h.run("/bin/bash", "-c", tool.cold); r.code != 0 || !strings.Contains(r.out, "dep works") {
				t.Errorf("exit %d: %s", r.code, r.out)
			}
			if after := digestOf(t, h.policy.Home, h.policy.Workspace, h.policy.HomeState, h.policy.GuardState); after != before {
				t.Errorf("the host's home was changed; before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// registry serves dep 1.0.0 as npm's registry, PyPI, a Go module proxy and a sparse index of cargo do.
func registry(t *testing.T) http.Handler {
	npm := tarball(t, map[string]string{
		"package/package.json": `{"name":"dep","version":"1.0.0","main":"dep.js"}`,
		"package/dep.js":       "module.exports = 'dep works'\n",
	})
	wheel := zipped(t, map[string]string{
		"dep.py":                       "text = 'dep works'\n",
		"dep-1.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: dep\nVersion: 1.0.0\n",
		"dep-1.0.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"dep-1.0.0.dist-info/RECORD":   "",
	})
	const goMod = "module registry.example/dep\n\ngo 1.21\n"
	module := zipped(t, map[string]string{
		"registry.example/dep@v1.0.0/go.mod": goMod,
		"registry.example/dep@v1.0.0/dep.go": "package dep\n\nconst Text = \"dep works\"\n",
	})
	crate := tarball(t, map[string]string{
		"dep-1.0.0/Cargo.toml": "[package]\nname = \"dep\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
		"dep-1.0.0/src/lib.rs": "pub fn text() -> &'static str { \"dep works\" }\n",
	})
	crateSum, npmSum := sha256.Sum256(crate), sha512.Sum512(npm)

	const goDir = "/go/registry.example/dep/@v/"
	mux := http.NewServeMux()
	file := func(path string, data []byte) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
	}
	mux.HandleFunc("/pypi/simple/dep/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<a href="/files/dep-1.0.0-py3-none-any.whl">dep-1.0.0-py3-none-any.whl</a>`)
	})
	mux.HandleFunc("/npm/dep", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"name": "dep", "dist-tags": map[string]string{"latest": "1.0.0"},
			"versions": map[string]any{"1.0.0": map[string]any{
				"name": "dep", "version": "1.0.0", "main": "dep.js",
				"dist": map[string]string{
					"tarball":   "http://" + r.Host + "/files/dep-1.0.0.tgz",
					"integrity": "sha512-" + base64.StdEncoding.EncodeToString(npmSum[:]),
				},
			}},
		})
	})
	mux.HandleFunc("/cargo/config.json", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"dl": "http://%s/cargo/dl/{crate}-{version}"}`, r.Host)
	})
	file("/cargo/3/d/dep", fmt.Appendf(nil, `{"name":"dep","vers":"1.0.0","deps":[],"cksum":"%s","features":{},"yanked":false}`+"\n", hex.EncodeToString(crateSum[:])))
	file("/cargo/dl/dep-1.0.0", crate)
	file("/files/dep-1.0.0.tgz", npm)
	file("/files/dep-1.0.0-py3-none-any.whl", wheel)
	file(goDir+"list", []byte("v1.0.0\n"))
	file(goDir+"v1.0.0.info", []byte(`{"Version":"v1.0.0"}`))
	file(goDir+"v1.0.0.mod", []byte(goMod))
	file(goDir+"v1.0.0.zip", module)
	return mux
}

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func zipped(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range files {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
