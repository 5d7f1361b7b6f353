package bootstrap_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const (
	oldVersion = "0.0.1770734955-g93e689"
	newVersion = "0.0.1790142911-g7618fb"
)

// program is a script of some 400 kB that says which version it is.
func program(version string) []byte {
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // filler that does not compress
	filler := make([]byte, 300_000)
	for i := range filler {
		filler[i] = byte(rng.Uint32())
	}
	return []byte("#!/bin/sh\necho " + version + "\nexit 0\n#" + base64.StdEncoding.EncodeToString(filler) + "\n")
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func gz(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// site is a server whose paths can be changed while it runs, and that counts.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	paths map[string]http.HandlerFunc
	count map[string]int
	seen  map[string]http.Header
}

func newSite(t *testing.T, start func(http.Handler) *httptest.Server) *site {
	t.Helper()
	s := &site{paths: map[string]http.HandlerFunc{}, count: map[string]int{}, seen: map[string]http.Header{}}
	s.Server = start(s)
	t.Cleanup(s.Close)
	return s
}

func silent() *log.Logger { return log.New(io.Discard, "", 0) }

// newTLSServer keeps quiet about the clients that do not trust it.
func newTLSServer(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = silent()
	s.StartTLS()
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	path := r.URL.EscapedPath()
	s.count[path]++
	s.seen[path] = r.Header.Clone()
	h := s.paths[path]
	s.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

func (s *site) handle(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[path] = h
}

func (s *site) serve(path string, data []byte) {
	s.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data)
	})
}

func (s *site) hits(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[path]
}

func (s *site) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.count {
		n += c
	}
	return n
}

func (s *site) header(path, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[path].Get(name)
}

// publish puts a whole version into the tree, as the real one has it.
func (s *site) publish(t *testing.T, version string, platform bootstrap.Platform) []byte {
	t.Helper()
	data := program(version)
	s.serve("/cli-version.txt", []byte(version+"\n"))
	s.serve("/"+version+"/amp-"+string(platform), data)
	s.serve("/"+version+"/amp-"+string(platform)+".gz", gz(t, data))
	s.serve("/"+version+"/"+string(platform)+"-amp.sha256", []byte(sha256Hex(data)+"\n"))
	return data
}

// quick are timeouts for servers on the loopback.
func quick() bootstrap.Timeouts {
	return bootstrap.Timeouts{Connect: 5 * time.Second, Header: 5 * time.Second, Idle: 5 * time.Second, Latest: 5 * time.Second, Retry: time.Millisecond}
}

func sources(t *testing.T, n bootstrap.Network, values ...string) []bootstrap.Source {
	t.Helper()
	if n.Timeouts == (bootstrap.Timeouts{}) {
		n.Timeouts = quick()
	}
	list, err := bootstrap.ParseSources(values, n)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// installer makes one for linux-x64 on a new cache, unless o says otherwise.
func installer(t *testing.T, o bootstrap.Options) *bootstrap.Installer {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "amp")
	}
	if o.Platform == "" {
		o.Platform = bootstrap.LinuxX64
	}
	if o.Timeouts == (bootstrap.Timeouts{}) {
		o.Timeouts = quick()
	}
	in, err := bootstrap.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// wantFault fails the test unless err has the code and every one of the words in its message.
func wantFault(t *testing.T, err error, code fault.Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if got := fault.CodeOf(err); got != code {
		t.Errorf("code %q, want %q: %v", got, code, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in the message: %v", w, err)
		}
	}
}

// wantEmpty fails the test when anything of a version, or of a download, is in the cache.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "locks" && e.Name() != "checked.json" {
			t.Errorf("%s was left in the cache", e.Name())
		}
	}
}

func wantFile(t *testing.T, path string, data []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%s has other bytes than were served (%d, not %d)", path, len(got), len(data))
	}
}

// entry is one of a tarball; Typeflag 0 is a file.
type entry struct {
	name string
	data []byte
	kind byte
	link string
}

func tarball(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o755, Typeflag: e.kind, Linkname: e.link}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return gz(t, b.Bytes())
}

func sri(data []byte) string {
	sum := sha512.Sum512(data)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

type npmVersion struct {
	tarball   string // address
	integrity string
}

// packument serves a package's document at the registry.
func (s *site) packument(t *testing.T, name, latest string, versions map[string]npmVersion) {
	t.Helper()
	type dist struct {
		Tarball   string `json:"tarball"`
		Integrity string `json:"integrity,omitempty"`
		Shasum    string `json:"shasum"`
	}
	doc := map[string]any{"name": name, "dist-tags": map[string]string{"latest": latest}}
	all := map[string]any{}
	for v, n := range versions {
		all[v] = map[string]any{"name": name, "version": v, "dist": dist{n.tarball, n.integrity, strings.Repeat("0", 40)}}
	}
	doc["versions"] = all
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	s.handle("/"+strings.Replace(name, "/", "%2f", 1), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data)
	})
}

// npmRelease serves a package and its document, and returns the program in it.
func (s *site) npmRelease(t *testing.T, version string) []byte {
	t.Helper()
	data := program(version)
	pack := tarball(t, entry{name: "package/amp", data: data}, entry{name: "package/package.json", data: []byte("{}")})
	s.serve("/files/amp.tgz", pack)
	s.packument(t, "@ampcode/cli-linux-x64", version, map[string]npmVersion{
		version: {tarball: s.URL + "/files/amp.tgz", integrity: sri(pack)},
	})
	return data
}

// drop ends the connection of a request without a word.
func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// spoonful is how much ranged sends at a time.
const spoonful = 8 << 10

// ranged serves a file that has a strong validator, in parts where they are asked for;
// before each spoonful, sending is told how many bytes of the whole came before it.
func (s *site) ranged(path string, data []byte, sending func(sent int, r *http.Request)) {
	s.handle(path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", strconv.Quote(sha256Hex(data)[:16]))
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, &slowReader{Reader: bytes.NewReader(data), w: w, r: r, sending: sending})
	})
}

type slowReader struct {
	*bytes.Reader
	w       http.ResponseWriter
	r       *http.Request
	sending func(int, *http.Request)
}

func (s *slowReader) Read(p []byte) (int, error) {
	if s.sending != nil {
		flush(s.w)
		s.sending(int(s.Size())-s.Len(), s.r)
	}
	return s.Reader.Read(p[:min(len(p), spoonful)])
}

// WriteTo is hidden: it would send everything at once.
func (s *slowReader) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{s})
}
