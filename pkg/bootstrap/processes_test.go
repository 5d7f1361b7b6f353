//go:build unix

package bootstrap_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

func TestGoroutinesShareOneDownload(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	cache := filepath.Join(t.TempDir(), "amp")
	const n = 8
	waiting := make(chan struct{}, n)
	in := installer(t, bootstrap.Options{
		Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL),
		Events: bootstrap.Events{Waiting: func(string) { waiting <- struct{}{} }},
	})
	// The download ends only when all the others wait for it.
	file := "/" + newVersion + "/amp-linux-x64.gz"
	packed := gz(t, data)
	s.handle(file, func(w http.ResponseWriter, r *http.Request) {
		for range n - 1 {
			select {
			case <-waiting:
			case <-r.Context().Done():
				return
			}
		}
		_, _ = w.Write(packed)
	})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			b, err := in.Ensure(t.Context(), newVersion)
			if err != nil || b.Digest.Hex != sha256Hex(data) {
				t.Errorf("%+v, %v", b, err)
			}
		})
	}
	wg.Wait()
	if s.hits(file) != 1 {
		t.Errorf("fetched %d times", s.hits(file))
	}
}

func TestProcessesShareOneDownload(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	cache := filepath.Join(t.TempDir(), "amp")
	var wg sync.WaitGroup
	for range 8 {
		cmd := child(t, cache, "BOOTSTRAP_SOURCES="+s.URL)
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	wantFile(t, filepath.Join(cache, newVersion, "amp"), data)
	if n := s.hits("/" + newVersion + "/amp-linux-x64.gz"); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

// TestKilled kills the one process that fetches, at 50 instants: nothing of it counts,
// nobody waits for its lock, and the next one goes on where it was and clears up after it.
func TestKilled(t *testing.T) {
	const kills = 50
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	file := "/" + newVersion + "/amp-linux-x64"
	s.handle(file+".gz", nil)
	cache := filepath.Join(t.TempDir(), "amp")
	resumed := 0
	for i := range kills {
		// The server stops somewhere, so that the kill comes in the middle.
		stop := len(data) * i / kills
		reached := make(chan struct{})
		var once sync.Once
		s.ranged(file, data, func(sent int, r *http.Request) {
			if sent >= stop {
				once.Do(func() { close(reached) })
				<-r.Context().Done()
			}
		})
		cmd := child(t, cache, "BOOTSTRAP_SOURCES="+s.URL)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-reached
		time.Sleep(time.Duration(i%5) * 4 * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
		if list, err := in.List(); err != nil || len(list) != 0 {
			t.Fatalf("half a file counts: %v, %v", list, err)
		}
		if s.header(file, "Range") != "" {
			resumed++
		}
	}
	if resumed < kills/2 {
		t.Errorf("%d of %d processes resumed", resumed, kills)
	}
	s.ranged(file, data, nil)
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
	b, err := in.Ensure(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, data)
	for _, pattern := range []string{".work-*", ".part-*"} {
		if left, _ := filepath.Glob(filepath.Join(cache, pattern)); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

// TestManyProcesses has fifty of them want one version, and the one that fetches it die.
func TestManyProcesses(t *testing.T) {
	const many = 50
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	file := "/" + newVersion + "/amp-linux-x64"
	s.handle(file+".gz", nil)
	cache := filepath.Join(t.TempDir(), "amp")
	half := make(chan struct{})
	var served atomic.Int64
	var once sync.Once
	s.ranged(file, data, func(sent int, r *http.Request) {
		served.Add(spoonful)
		if sent >= len(data)/2 && r.Header.Get("Range") == "" {
			once.Do(func() { close(half) })
			<-r.Context().Done()
		}
	})
	first := child(t, cache, "BOOTSTRAP_SOURCES="+s.URL)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	<-half
	var waiting, wg sync.WaitGroup
	for range many {
		cmd := child(t, cache, "BOOTSTRAP_SOURCES="+s.URL)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waiting.Add(1)
		wg.Go(func() {
			lines := bufio.NewReader(out)
			if line, err := lines.ReadString('\n'); line != "waiting\n" {
				t.Errorf("it did not wait: %q, %v", line, err)
			}
			waiting.Done()
			rest, _ := io.ReadAll(lines)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, rest)
			}
		})
	}
	waiting.Wait()
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	wg.Wait()
	wantFile(t, filepath.Join(cache, newVersion, "amp"), data)
	if n := s.hits(file); n != 2 {
		t.Errorf("asked for %d times", n)
	}
	// What was on its way to the dead one is lost.
	if n := served.Load(); n > int64(len(data))*3/2 {
		t.Errorf("served %d bytes of %d", n, len(data))
	}
}

// TestDiskFull stops at the first source: none of the others can mend a disk.
func TestDiskFull(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	cache := filepath.Join(t.TempDir(), "amp")
	out, err := child(t, cache, "BOOTSTRAP_SOURCES="+s.URL+" "+s.URL, "BOOTSTRAP_FSIZE=65536").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "bootstrap_failed bootstrap failed: the cache of amp: ") ||
		!strings.Contains(string(out), "file too large") {
		t.Errorf("%v: %s", err, out)
	}
	if n := s.hits("/" + newVersion + "/amp-linux-x64.gz"); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	wantEmpty(t, cache)
}
