package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	fetchVersion = "0.0.1790000000-gbench"
	fetchSize    = 100_000_000 // bytes, about what Amp has
	slowLink     = 20_000_000  // bytes a second, of each connection
)

// mirror is a loopback server that has a version of 100 MB in files, and has the kernel send them, as web servers do.
type mirror struct {
	*httptest.Server
	file, packed string // paths
	digest       string // of file, and its line in the tree
	served       atomic.Int64
	slow         atomic.Bool
	copies       atomic.Bool // reads and writes instead
	gzipped      atomic.Bool
}

// newMirror makes a file in dir that compresses about as well as Amp does.
func newMirror(dir string) (*mirror, error) {
	file := make([]byte, fetchSize)
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // filler
	for i := range file {
		if file[i] = byte(rng.Uint32() & 0x0f); i%4 == 0 {
			file[i] = byte(rng.Uint32())
		}
	}
	copy(file, "#!/bin/sh\nexit 0\n#")
	sum := sha256.Sum256(file)
	m := &mirror{file: filepath.Join(dir, "file"), packed: filepath.Join(dir, "file.gz"), digest: hex.EncodeToString(sum[:])}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(file); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(m.file, file, 0o600), os.WriteFile(m.packed, packed.Bytes(), 0o600)); err != nil {
		return nil, err
	}
	m.Server = httptest.NewServer(m)
	return m, nil
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := m.file
	switch name := filepath.Base(r.URL.Path); {
	case strings.HasSuffix(name, ".sha256"):
		fmt.Fprintln(w, m.digest)
		return
	case name == "cli-version.txt":
		fmt.Fprintln(w, fetchVersion)
		return
	case strings.HasSuffix(name, ".gz") && !m.gzipped.Load():
		http.NotFound(w, r)
		return
	case strings.HasSuffix(name, ".gz"):
		path = m.packed
	}
	f, err := os.Open(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("ETag", `"bench"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(&counted{w, m}, r, "", time.Time{}, f)
}

// counted counts what is sent, and holds a connection to the speed of the slow link.
type counted struct {
	http.ResponseWriter
	mirror *mirror
}

// ReadFrom has the kernel send a file.
func (c *counted) ReadFrom(r io.Reader) (int64, error) {
	if c.mirror.slow.Load() || c.mirror.copies.Load() {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	n, err := io.Copy(c.ResponseWriter, r)
	c.mirror.served.Add(n)
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n := len(p)
		if c.mirror.slow.Load() {
			n = min(n, slowLink/200)
			time.Sleep(time.Duration(n) * time.Second / slowLink)
		}
		done, err := c.ResponseWriter.Write(p[:n])
		c.mirror.served.Add(int64(done))
		if total += done; err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// fetch measures how Amp comes into the cache, against curl and gunzip.
func (b *place) fetch(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "sesame-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := newMirror(dir)
	if err != nil {
		return err
	}
	defer m.Close()
	runs := max(b.runs/6, 3)
	url := m.URL + "/" + fetchVersion + "/amp-linux-x64"
	env := b.env("SESAME_AMP_SOURCES=" + m.URL)
	install := []string{b.sesame, "amp", "install", "-q", fetchVersion}
	// All begin with nothing there: to remove 100 MB takes its time, too.
	clear := func() error {
		return errors.Join(os.RemoveAll(filepath.Join(b.home, ".cache", "sesame", "amp")), os.RemoveAll(filepath.Join(b.project, "file")))
	}
	shell := func(name, line string) side {
		return side{name: name, args: []string{"sh", "-c", line}, env: env, prepare: clear}
	}
	sesame := side{name: "sesame amp install", args: install, env: env, prepare: clear}

	fmt.Println("fetch: 100 MB from the loopback, verified, in the cache and on the disk")
	for _, peer := range []side{
		shell("curl | tee | sha256sum", "curl -s "+url+" | tee file | sha256sum"),
		shell("curl | tee | openssl sha256", "curl -s "+url+" | tee file | openssl dgst -sha256"),
		shell("curl | sha256, no file", "curl -s "+url+" | openssl dgst -sha256"),
		shell("curl -o, sync", "curl -s -o file "+url+" && sync file"),
		shell("curl -o", "curl -s -o file "+url),
	} {
		if err := b.compare(ctx, runs, sesame, peer); err != nil {
			return err
		}
	}
	m.copies.Store(true)
	err = b.compare(ctx, runs, sesame, shell("curl -o, a server that copies", "curl -s -o file "+url))
	m.copies.Store(false)
	if err := errors.Join(err, clear()); err != nil {
		return err
	}
	fmt.Printf("  peak memory %.1f MB\n", float64(b.peak(ctx, install, env))/1e6)

	fmt.Println("fetch: the same, 20 MB/s for each connection")
	m.slow.Store(true)
	err = b.compare(ctx, 3, sesame, shell("curl -o", "curl -s -o file "+url))
	m.slow.Store(false)
	if err != nil {
		return err
	}

	size, err := os.Stat(m.packed)
	if err != nil {
		return err
	}
	fmt.Printf("fetch: compressed, %.0f MB\n", float64(size.Size())/1e6)
	m.gzipped.Store(true)
	for _, peer := range []side{
		shell("gunzip", "gunzip -c "+m.packed+" > file"),
		shell("curl -o (the network alone)", "curl -s -o file "+url+".gz"),
	} {
		if err := b.compare(ctx, runs, sesame, peer); err != nil {
			return err
		}
	}
	if err := clear(); err != nil {
		return err
	}
	fmt.Printf("  peak memory %.1f MB\n", float64(b.peak(ctx, install, env))/1e6)
	m.gzipped.Store(false)

	fmt.Println("fetch: what is cached, with the authorities of SSL_CERT_FILE")
	bundle, err := certificates()
	if err != nil {
		return err
	}
	env = append(env, "SSL_CERT_FILE="+bundle)
	if err := b.compare(ctx, runs*5, side{name: "sesame amp path", args: []string{b.sesame, "amp", "path"}, env: env},
		side{name: "sesame version", args: []string{b.sesame, "version"}, env: env}); err != nil {
		return err
	}
	return b.crowd(ctx, m, env)
}

// certificates is a system's bundle of authorities.
func certificates() (string, error) {
	for _, file := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"} {
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", errors.New("this system has no bundle of authorities (Debian: apt-get install ca-certificates)")
}

// peak is the largest resident set of a command, in bytes. The kernel's own account of it
// would begin with that of this process.
func (b *place) peak(ctx context.Context, args, env []string) int64 {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = b.project, env
	if err := cmd.Start(); err != nil {
		return -1
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var most int64
	for {
		select {
		case err := <-ended:
			if err != nil {
				return -1
			}
			return most
		case <-time.After(2 * time.Millisecond):
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if _, rest, ok := strings.Cut(string(status), "VmHWM:"); err == nil && ok {
			var kilobytes int64
			if _, err := fmt.Sscan(rest, &kilobytes); err == nil && strings.Contains(string(status), "Name:\tsesame\n") {
				most = max(most, kilobytes<<10)
			}
		}
	}
}

// crowd has fifty processes want the same version at the same time.
func (b *place) crowd(ctx context.Context, m *mirror, env []string) error {
	const many = 50
	if err := os.RemoveAll(filepath.Join(b.home, ".cache", "sesame", "amp")); err != nil {
		return err
	}
	before, begun := m.served.Load(), time.Now()
	var wg sync.WaitGroup
	failures := make([]error, many)
	for i := range many {
		wg.Go(func() {
			cmd := exec.CommandContext(ctx, b.sesame, "amp", "install", "-q", fetchVersion)
			cmd.Dir, cmd.Env, cmd.Stdout = b.project, env, io.Discard
			failures[i] = cmd.Run()
		})
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	fmt.Printf("fetch: %d processes on an empty cache: %.2f files served, %.1f s\n", many,
		float64(m.served.Load()-before)/fetchSize, time.Since(begun).Seconds())
	return nil
}
