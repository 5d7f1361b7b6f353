//go:build unix

package bootstrap_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// TestMain becomes a process that installs one version, when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("BOOTSTRAP_CHILD") == "" {
		os.Exit(m.Run())
	}
	if limit, err := strconv.ParseUint(os.Getenv("BOOTSTRAP_FSIZE"), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ) // so that the write fails, as on a full disk
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			fmt.Println(err)
			os.Exit(9)
		}
	}
	list, err := bootstrap.ParseSources(strings.Fields(os.Getenv("BOOTSTRAP_SOURCES")), bootstrap.Network{Timeouts: quick()})
	if err == nil {
		var in *bootstrap.Installer
		in, err = bootstrap.New(bootstrap.Options{Dir: os.Getenv("BOOTSTRAP_DIR"), Sources: list, Platform: bootstrap.LinuxX64, Timeouts: quick()})
		if err == nil {
			var b bootstrap.Binary
			b, err = in.Ensure(context.Background(), newVersion)
			fmt.Println(b.Path)
		}
	}
	if err != nil {
		fmt.Println(fault.CodeOf(err), err)
		os.Exit(5)
	}
	os.Exit(0)
}

func child(t *testing.T, cache string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append([]string{"BOOTSTRAP_CHILD=1", "BOOTSTRAP_DIR=" + cache, "HOME=" + t.TempDir()}, env...)
	return cmd
}

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

// TestKilledInMidDownload kills the one process that fetches: nothing of it
// counts, nobody waits for its lock, and the next one clears up after it.
func TestKilledInMidDownload(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	cache := filepath.Join(t.TempDir(), "amp")
	file := "/" + newVersion + "/amp-linux-x64"
	s.handle(file+".gz", nil)
	half := make(chan struct{})
	s.handle(file, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(data[:len(data)/2])
		flush(w)
		close(half)
		<-r.Context().Done()
	})
	cmd := child(t, cache, "BOOTSTRAP_SOURCES="+s.URL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-half
	// Sent is not written: wait until a part of it is on the disk.
	for {
		files, _ := filepath.Glob(filepath.Join(cache, ".work-*", "amp"))
		if len(files) == 1 {
			if info, err := os.Stat(files[0]); err == nil && info.Size() > 0 {
				break
			}
		}
		if t.Context().Err() != nil {
			t.Fatal("nothing was written")
		}
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	left, err := filepath.Glob(filepath.Join(cache, ".work-*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("the kill came too late to test anything: %q, %v", left, err)
	}
	s.publish(t, newVersion, bootstrap.LinuxX64)
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
	if list, err := in.List(); err != nil || len(list) != 0 {
		t.Errorf("half a file counts: %v, %v", list, err)
	}
	b, err := in.Ensure(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, data)
	if left, _ := filepath.Glob(filepath.Join(cache, ".work-*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
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
