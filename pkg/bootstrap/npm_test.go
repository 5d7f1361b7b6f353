package bootstrap_test

import (
	"archive/tar"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const packagePath = "/@ampcode%2fcli-linux-x64"

// npmrc makes a home with an .npmrc and returns a Network without any other configuration.
func npmrc(t *testing.T, lines ...string) bootstrap.Network {
	t.Helper()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".npmrc"), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return bootstrap.Network{Home: home, UserAgent: "sesame/1.2.3", Timeouts: quick()}
}

func TestNPM(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.npmRelease(t, newVersion)
	in := installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")})
	b, err := in.Install(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, data)
	if b.Version != newVersion || b.Source != "npm" || b.URL != s.URL+"/files/amp.tgz" || b.Digest.Hex != sha256Hex(data) {
		t.Errorf("%+v", b)
	}
	if s.hits(packagePath) != 1 || s.hits("/files/amp.tgz") != 1 {
		t.Errorf("asked %d times, fetched %d times", s.hits(packagePath), s.hits("/files/amp.tgz"))
	}
	if got := s.header(packagePath, "Accept"); !strings.Contains(got, "application/vnd.npm.install-v1+json") {
		t.Errorf("accept %q", got)
	}
}

func TestNPMPackagesOfPlatforms(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	in := func(p bootstrap.Platform) *bootstrap.Installer {
		return installer(t, bootstrap.Options{Platform: p, Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")})
	}
	for platform, path := range map[bootstrap.Platform]string{
		bootstrap.WindowsX64:       "/@ampcode%2fcli-win32-x64",
		bootstrap.DarwinARM64:      "/@ampcode%2fcli-darwin-arm64",
		bootstrap.LinuxX64Baseline: "/@ampcode%2fcli-linux-x64-baseline",
	} {
		_, err := in(platform).Latest(t.Context())
		wantFault(t, err, fault.BootstrapFailed, path, "not found")
		if s.hits(path) != 1 {
			t.Errorf("%s: %s was not asked for", platform, path)
		}
	}
	pack := tarball(t, entry{name: "package/amp.exe", data: []byte("MZ and so on")})
	s.serve("/files/win.tgz", pack)
	s.packument(t, "@ampcode/cli-win32-x64", newVersion, map[string]npmVersion{newVersion: {s.URL + "/files/win.tgz", sri(pack)}})
	b, err := in(bootstrap.WindowsX64).Install(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(b.Path) != "amp.exe" {
		t.Errorf("path %s", b.Path)
	}
}

func TestNPMLatest(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	two := map[string]npmVersion{newVersion: {"x", ""}, oldVersion: {"x", ""}, "not-a-version": {"x", ""}}
	for name, test := range map[string]struct {
		tag      string
		versions map[string]npmVersion
		want     string
		words    string
	}{
		"the tag, also when it went back": {tag: oldVersion, versions: two, want: oldVersion},
		"a tag that the mirror lacks":     {tag: "0.0.1999999999-gabcdef", versions: two, want: newVersion},
		"a tag that is no version":        {tag: "../../x", versions: two, want: newVersion},
		"no versions":                     {versions: map[string]npmVersion{"x": {"x", ""}}, words: "no versions"},
	} {
		t.Run(name, func(t *testing.T) {
			s.packument(t, "@ampcode/cli-linux-x64", test.tag, test.versions)
			v, err := installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")}).Latest(t.Context())
			if test.words != "" {
				wantFault(t, err, fault.BootstrapFailed, test.words)
			} else if err != nil || v != test.want {
				t.Errorf("%q, %v", v, err)
			}
		})
	}
}

func TestNPMVersionThatIsGone(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.npmRelease(t, newVersion)
	in := installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")})
	_, err := in.Install(t.Context(), oldVersion)
	wantFault(t, err, fault.BootstrapFailed, "no source has amp "+oldVersion, "npm: "+s.URL+packagePath)
}

func TestNPMTarballs(t *testing.T) {
	amp := entry{name: "package/amp", data: program(newVersion)}
	tests := map[string]struct {
		entries []entry
		words   string // "" is a good one
	}{
		"others beside it": {entries: []entry{{name: "package/README.md", data: []byte("x")}, amp, {name: "package/docs/", kind: tar.TypeDir}}},
		"dotted":           {entries: []entry{{name: "./package/amp", data: amp.data}}},
		"absolute":         {entries: []entry{amp, {name: "/etc/passwd", data: []byte("x")}}, words: `"/etc/passwd"`},
		"parent":           {entries: []entry{{name: "package/../../x", data: []byte("x")}, amp}, words: `"package/../../x"`},
		"parent that stays inside": {
			entries: []entry{{name: "package/x/../amp", data: amp.data}}, words: `"package/x/../amp"`,
		},
		"backslash": {entries: []entry{amp, {name: `package\..\..\x`, data: []byte("x")}}, words: "entry named"},
		"symbolic link": {
			entries: []entry{{name: "package/amp", kind: tar.TypeSymlink, link: "/bin/sh"}}, words: "neither a file nor a directory",
		},
		"hard link":  {entries: []entry{amp, {name: "package/x", kind: tar.TypeLink, link: "package/amp"}}, words: "neither a file nor a directory"},
		"device":     {entries: []entry{amp, {name: "package/x", kind: tar.TypeChar}}, words: "neither a file nor a directory"},
		"fifo":       {entries: []entry{amp, {name: "package/x", kind: tar.TypeFifo}}, words: "neither a file nor a directory"},
		"twice":      {entries: []entry{amp, amp}, words: "twice"},
		"absent":     {entries: []entry{{name: "package/ampere", data: []byte("x")}}, words: "no package/amp"},
		"directory":  {entries: []entry{{name: "package/amp", kind: tar.TypeDir}}, words: "no package/amp"},
		"empty":      {words: "no package/amp"},
		"other root": {entries: []entry{{name: "amp", data: amp.data}}, words: "no package/amp"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, httptest.NewServer)
			pack := tarball(t, test.entries...)
			s.serve("/amp.tgz", pack)
			s.packument(t, "@ampcode/cli-linux-x64", newVersion, map[string]npmVersion{newVersion: {s.URL + "/amp.tgz", sri(pack)}})
			cache := filepath.Join(t.TempDir(), "amp")
			in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")})
			b, err := in.Install(t.Context(), newVersion)
			if test.words == "" {
				if err != nil {
					t.Fatal(err)
				}
				wantFile(t, b.Path, amp.data)
				return
			}
			wantFault(t, err, fault.BootstrapFailed, test.words, "/amp.tgz")
			wantEmpty(t, cache)
		})
	}
}

func TestNPMIntegrity(t *testing.T) {
	good := tarball(t, entry{name: "package/amp", data: program(newVersion)})
	weak := "sha1-" + base64.StdEncoding.EncodeToString(make([]byte, 20))
	tests := map[string]struct {
		body      []byte
		integrity string
		words     []string
	}{
		"wrong":                         {body: good, integrity: sri([]byte("x")), words: []string{"wrong sha512 of the package", "expected ", "got "}},
		"missing":                       {body: good, words: []string{"no checksum"}},
		"sha1 only":                     {body: good, integrity: weak, words: []string{"no checksum"}},
		"no base64":                     {body: good, integrity: "sha512-????", words: []string{"no checksum"}},
		"too short":                     {body: good, integrity: "sha512-AAAA", words: []string{"no checksum"}},
		"strong one among weak":         {body: good, integrity: weak + " " + sri(good) + "?x"},
		"bytes after the archive's end": {body: append(good[:len(good):len(good)], "more"...), integrity: sri(good), words: []string{"wrong sha512"}},
		"web page":                      {body: []byte("<!doctype html>log in"), integrity: sri(good), words: []string{"wrong sha512", "web page"}},
		"cut":                           {body: good[:len(good)/2], integrity: sri(good), words: []string{"wrong sha512"}},
		"cut, and signed so":            {body: good[:len(good)/2], integrity: sri(good[:len(good)/2]), words: []string{"EOF"}},
		"no gzip, and signed so":        {body: []byte("hello"), integrity: sri([]byte("hello")), words: []string{"not gzip"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, httptest.NewServer)
			s.serve("/amp.tgz", test.body)
			s.packument(t, "@ampcode/cli-linux-x64", newVersion, map[string]npmVersion{newVersion: {s.URL + "/amp.tgz", test.integrity}})
			cache := filepath.Join(t.TempDir(), "amp")
			in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")})
			_, err := in.Install(t.Context(), newVersion)
			if test.words == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantFault(t, err, fault.BootstrapFailed, test.words...)
			wantEmpty(t, cache)
		})
	}
}

func TestNPMPinIsOfTheFile(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.npmRelease(t, newVersion)
	list := sources(t, npmrc(t, "registry="+s.URL), "npm")
	if _, err := installer(t, bootstrap.Options{Sources: list, SHA256: sha256Hex(data)}).Ensure(t.Context(), "latest"); err != nil {
		t.Error(err)
	}
	_, err := installer(t, bootstrap.Options{Sources: list, SHA256: strings.Repeat("0", 64)}).Ensure(t.Context(), "latest")
	wantFault(t, err, fault.BootstrapFailed, "pinned file")
}

func TestNPMTokensGoToTheRegistryOnly(t *testing.T) {
	registry, other := newSite(t, httptest.NewServer), newSite(t, httptest.NewServer)
	pack := tarball(t, entry{name: "package/amp", data: program(newVersion)})
	registry.handle("/npm/files/amp.tgz", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/blob", http.StatusFound)
	})
	other.serve("/blob", pack)
	doc := newSite(t, httptest.NewServer) // only to make the document, which is served below /npm/
	doc.packument(t, "@ampcode/cli-linux-x64", newVersion, map[string]npmVersion{newVersion: {registry.URL + "/npm/files/amp.tgz", sri(pack)}})
	registry.handle("/npm"+packagePath, doc.paths[packagePath])

	host := strings.TrimPrefix(registry.URL, "http:")
	n := npmrc(t, "@ampcode:registry="+registry.URL+"/npm/", "registry=http://unused.invalid/", host+"/npm/:_authToken=${NPM_TOKEN}")
	n.Environ = []string{"NPM_TOKEN=secret"}
	if _, err := installer(t, bootstrap.Options{Sources: sources(t, n, "npm")}).Install(t.Context(), newVersion); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/npm" + packagePath: "Bearer secret", "/npm/files/amp.tgz": "Bearer secret"} {
		if got := registry.header(path, "Authorization"); got != want {
			t.Errorf("%s got %q", path, got)
		}
	}
	if got := other.header("/blob", "Authorization"); got != "" {
		t.Errorf("the other host got %q", got)
	}
}

func TestNPMMirrorThatCopiesAddresses(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	pack := tarball(t, entry{name: "package/amp", data: program(newVersion)})
	gone := newSite(t, httptest.NewServer)
	s.packument(t, "@ampcode/cli-linux-x64", newVersion, map[string]npmVersion{newVersion: {gone.URL + "/x.tgz", sri(pack)}})
	s.serve("/@ampcode/cli-linux-x64/-/cli-linux-x64-"+newVersion+".tgz", pack)
	if _, err := installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")}).Install(t.Context(), newVersion); err != nil {
		t.Error(err)
	}
}

func TestNPMOverTLS(t *testing.T) {
	s := newSite(t, newTLSServer)
	s.npmRelease(t, newVersion)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	registry := "registry=" + s.URL
	for name, test := range map[string]struct {
		lines   []string
		words   string
		warning string
	}{
		"unknown authority": {lines: []string{registry}, words: "certificate"},
		"cafile":            {lines: []string{registry, "cafile=" + file}},
		"ca":                {lines: []string{registry, `ca[]="` + strings.ReplaceAll(string(cert), "\n", `\n`) + `"`}},
		"strict-ssl off":    {lines: []string{registry, "strict-ssl=false"}, warning: "strict-ssl is off"},
		"no such cafile":    {lines: []string{registry, "cafile=" + file + ".gone"}, words: "cafile"},
		"relative cafile":   {lines: []string{registry, "cafile=ca.pem"}, words: "absolute"},
		"empty cafile":      {lines: []string{registry, "cafile=" + os.DevNull}, words: "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			var warned string
			in := installer(t, bootstrap.Options{
				Sources: sources(t, npmrc(t, test.lines...), "npm"),
				Events:  bootstrap.Events{Warning: func(m string) { warned += m }},
			})
			_, err := in.Install(t.Context(), newVersion)
			if test.words != "" {
				wantFault(t, err, fault.BootstrapFailed, test.words)
			} else if err != nil {
				t.Error(err)
			}
			if !strings.Contains(warned, test.warning) || (test.warning == "" && warned != "") {
				t.Errorf("warned %q", warned)
			}
		})
	}

	// An https registry that names an http address is not followed there, unless it is its own.
	plain := newSite(t, httptest.NewServer)
	pack := tarball(t, entry{name: "package/amp", data: program(newVersion)})
	plain.serve("/amp.tgz", pack)
	list := sources(t, npmrc(t, registry, "cafile="+file), "npm")
	s.packument(t, "@ampcode/cli-linux-x64", newVersion, map[string]npmVersion{
		newVersion: {strings.Replace(plain.URL, "127.0.0.1", "localhost", 1) + "/amp.tgz", sri(pack)},
	})
	_, err := installer(t, bootstrap.Options{Sources: list}).Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "registry is https")
	s.serve("/files/own.tgz", pack)
	s.packument(t, "@ampcode/cli-linux-x64", newVersion, map[string]npmVersion{
		newVersion: {"http://127.0.0.1/files/own.tgz", sri(pack)},
	})
	if _, err := installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, registry, "cafile="+file), "npm")}).Install(t.Context(), newVersion); err != nil {
		t.Error(err)
	}
}

func TestNPMProxy(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.packument(t, "@ampcode/cli-linux-x64", newVersion, map[string]npmVersion{newVersion: {"x", ""}})
	for name, test := range map[string]struct {
		lines   []string
		environ []string
		works   bool
	}{
		"npm's own":                        {lines: []string{"proxy=" + s.URL}, works: true},
		"npm's own over the environment's": {lines: []string{"proxy=" + s.URL}, environ: []string{"HTTP_PROXY=http://127.0.0.1:1"}, works: true},
		"of the environment":               {environ: []string{"http_proxy=" + s.URL}, works: true},
		"as npm's variable":                {environ: []string{"npm_config_proxy=" + s.URL}, works: true},
		"noproxy":                          {lines: []string{"proxy=" + s.URL, "noproxy=.invalid"}},
		"off":                              {lines: []string{"proxy=false"}, environ: []string{"HTTP_PROXY=" + s.URL}},
	} {
		t.Run(name, func(t *testing.T) {
			n := npmrc(t, append(test.lines, "registry=http://registry.invalid")...)
			n.Environ = test.environ
			_, err := installer(t, bootstrap.Options{Sources: sources(t, n, "npm")}).Latest(t.Context())
			if (err == nil) != test.works {
				t.Error(err)
			}
		})
	}
}

func TestNPMAnswersThatAreNone(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	for body, words := range map[string]string{"<html>log in</html>": "web page", "hello": "not the answer of a registry"} {
		s.serve(packagePath, []byte(body))
		_, err := installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")}).Latest(t.Context())
		wantFault(t, err, fault.BootstrapFailed, words)
	}
	s.handle(packagePath, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	_, err := installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, "registry="+s.URL), "npm")}).Latest(t.Context())
	wantFault(t, err, fault.BootstrapFailed, "http status 401", "token")
	_, err = installer(t, bootstrap.Options{Sources: sources(t, npmrc(t, "registry=ftp://x"), "npm")}).Latest(t.Context())
	wantFault(t, err, fault.BootstrapFailed, "no http(s) address")
}
