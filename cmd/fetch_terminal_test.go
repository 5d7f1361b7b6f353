//go:build linux || darwin

package cmd

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

// slowMirror has a version of 4 MB, and stops in the middle until it is told to go on.
type slowMirror struct {
	*httptest.Server
	program []byte
	whole   atomic.Bool
	ranges  atomic.Int32 // how often it was asked for the rest
}

func newSlowMirror(t *testing.T) *slowMirror {
	t.Helper()
	m := &slowMirror{program: append([]byte("#!/bin/sh\n#"), bytes.Repeat([]byte("0123456789abcdef"), 1<<18)...)}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

func (m *slowMirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "-amp.sha256"):
		sum := sha256.Sum256(m.program)
		fmt.Fprintln(w, hex.EncodeToString(sum[:]))
	case strings.HasSuffix(r.URL.Path, ".gz"):
		http.NotFound(w, r)
	default:
		if r.Header.Get("Range") != "" {
			m.ranges.Add(1)
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(&pausing{ResponseWriter: w, mirror: m, request: r}, r, "", time.Time{}, bytes.NewReader(m.program))
	}
}

type pausing struct {
	http.ResponseWriter
	mirror  *slowMirror
	request *http.Request
	sent    int
}

func (p *pausing) Write(data []byte) (int, error) {
	n, err := p.ResponseWriter.Write(data)
	if p.sent += n; err != nil || p.mirror.whole.Load() || p.sent < len(p.mirror.program)/2 {
		return n, err
	}
	if err := http.NewResponseController(p.ResponseWriter).Flush(); err != nil {
		return n, err
	}
	<-p.request.Context().Done()
	return n, p.request.Context().Err()
}

// Ctrl-C at the bar ends the fetching at once, and the next command goes on where it was.
func TestCtrlCWhileFetching(t *testing.T) {
	m := newSlowMirror(t)
	p := startAtTerminal(t, startService(t), "amp", "install", newAmp, "--config", configFor(t, m.URL))
	p.expect("50% |")
	p.interrupt()
	cache := filepath.Join(p.home, ".cache/sesame/amp")
	if notes, err := filepath.Glob(filepath.Join(cache, ".part-"+newAmp, "*.json")); err != nil || len(notes) != 1 {
		t.Fatalf("nothing to go on from: %q, %v", notes, err)
	}
	m.whole.Store(true)
	cmd := exec.Command("sesame", "amp", "install", newAmp)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "SESAME_AMP_SOURCES=" + m.URL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantIn(t, string(out), "(the rest of 4.2 MB, from 5")
	if m.ranges.Load() != 1 {
		t.Errorf("asked %d times for the rest", m.ranges.Load())
	}
	if data, err := os.ReadFile(filepath.Join(cache, newAmp, "amp")); err != nil || !bytes.Equal(data, m.program) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// configFor is a configuration file that names the one source.
func configFor(t *testing.T, source string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("amp: {sources: ["+source+"]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A server that sends more than it was asked for is told of by nobody but sesame.
func TestUnsolicitedAnswer(t *testing.T) {
	platform, err := bootstrap.DetectPlatform(runtime.GOOS, runtime.GOARCH, "/")
	if err != nil {
		t.Fatal(err)
	}
	program := "#!/bin/sh\nexit 0\n"
	sum := sha256.Sum256([]byte(program))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := program
		if strings.HasSuffix(r.URL.Path, string(platform)+"-amp.sha256") {
			body = hex.EncodeToString(sum[:])
		} else if strings.HasSuffix(r.URL.Path, ".gz") {
			http.NotFound(w, r)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\n\r\n", len(body), body)
		_ = buf.Flush()
		time.Sleep(100 * time.Millisecond) // so that the client keeps the connection for the next request
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	for range 3 {
		home := t.TempDir()
		cmd := exec.Command("sesame", "amp", "install", "-q", newAmp)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "SESAME_AMP_SOURCES=http://" + listener.Addr().String()}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil || stderr.String() != "" {
			t.Errorf("%v, stderr %q", err, &stderr)
		}
	}
}
