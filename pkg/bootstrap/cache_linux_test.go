package bootstrap_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

// stranger is a user who owns nothing here.
const stranger = 31339

// wantOutput runs a child, wants its exit code and returns what it printed.
func wantOutput(t *testing.T, cmd *exec.Cmd, code int, words ...string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit %d, want %d: %s", got, code, out)
	}
	for _, word := range words {
		if !strings.Contains(string(out), word) {
			t.Errorf("no %q in:\n%s", word, out)
		}
	}
}

// inNamespaces gives a child mounts of its own.
func inNamespaces(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	return cmd
}

// TestWritesFail has the kernel refuse to write, in the middle of the file.
func TestWritesFail(t *testing.T) {
	for errno, hint := range map[syscall.Errno]string{
		unix.ENOSPC: "hint: the disk or your quota is full",
		unix.EDQUOT: "hint: the disk or your quota is full",
		unix.EIO:    "hint: XDG_CACHE_HOME puts it elsewhere",
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			s := newSite(t, httptest.NewServer)
			data := s.publish(t, newVersion, bootstrap.LinuxX64)
			s.handle(rawFile+".gz", nil)
			s.ranged(rawFile, data, nil)
			cache := filepath.Join(t.TempDir(), "amp")
			wantOutput(t, child(t, cache, "BOOTSTRAP_SOURCES="+s.URL+" "+s.URL, "BOOTSTRAP_ERRNO="+strconv.Itoa(int(errno))), 5,
				"bootstrap_failed bootstrap failed: the cache of amp: ", errno.Error(), hint, cache)
			if n := s.hits(rawFile); n != 1 {
				t.Errorf("asked for %d times: no source can mend a disk", n)
			}
			wantEmpty(t, cache)
			wantOutput(t, child(t, cache, "BOOTSTRAP_SOURCES="+s.URL), 0)
			wantFile(t, filepath.Join(cache, newVersion, "amp"), data)
		})
	}
}

// TestFullFileSystem is one that is really too small.
func TestFullFileSystem(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	disk := t.TempDir()
	env := []string{"BOOTSTRAP_SOURCES=" + s.URL, "BOOTSTRAP_MOUNT=" + disk}
	wantOutput(t, inNamespaces(child(t, filepath.Join(disk, "amp"), append(env, "BOOTSTRAP_TMPFS=size=200k")...)), 5,
		"bootstrap failed: the cache of amp: ", "no space left on device", "hint: the disk or your quota is full")
	wantOutput(t, inNamespaces(child(t, filepath.Join(disk, "amp"), append(env, "BOOTSTRAP_TMPFS=size=4m")...)), 0)
}

// TestReadOnlyCache uses what is in it, and says why nothing can be put there.
func TestReadOnlyCache(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	dir := publicDir(t)
	exe := publicCopy(t, dir)
	home := filepath.Join(dir, "home")
	full, empty := filepath.Join(home, "full"), filepath.Join(home, "empty")
	for _, d := range []string{home, full, empty} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	owner := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Path = exe
		if os.Getuid() == 0 { // who may write anywhere
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
		}
		return cmd
	}
	if os.Getuid() == 0 {
		for _, d := range []string{home, full, empty} {
			if err := os.Chown(d, stranger, stranger); err != nil {
				t.Fatal(err)
			}
		}
	}
	mounted := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Env = append(cmd.Env, "BOOTSTRAP_MOUNT="+home)
		cmd.Path = exe
		attr := inNamespaces(cmd).SysProcAttr
		if os.Getuid() == 0 {
			attr.UidMappings[0].HostID, attr.GidMappings[0].HostID = stranger, stranger
			attr.Credential = &syscall.Credential{NoSetGroups: true} // what is 0 inside
		}
		return cmd
	}
	source := "BOOTSTRAP_SOURCES=" + s.URL
	wantOutput(t, owner(child(t, full, source)), 0)
	s.publish(t, "0.0.1790142912-g000000", bootstrap.LinuxX64) // Refresh would want it
	try := func(how func(*exec.Cmd) *exec.Cmd, word, hint string) {
		t.Helper()
		asked := s.total()
		wantOutput(t, how(child(t, full, source, "BOOTSTRAP_THEN=refresh")), 0, filepath.Join(full, newVersion, "amp"), `found "", <nil>`)
		wantOutput(t, how(child(t, full, source, "BOOTSTRAP_THEN=use")), 0, "in use")
		wantOutput(t, how(child(t, empty, source)), 5, "bootstrap_failed bootstrap failed: the cache of amp: ", word, hint, empty)
		if s.total() != asked {
			t.Error("something was fetched, with no place to put it")
		}
	}
	try(mounted, "read-only file system", "hint: the file system is read-only")
	for _, d := range []string{empty, filepath.Join(full, newVersion), filepath.Join(full, "locks"), full} {
		if err := os.Chmod(d, 0o500); err != nil {
			t.Fatal(err)
		}
	}
	try(owner, "permission denied", "must be yours alone")
}

// TestSharedCache is of a cache that root fills and opens for everybody to look at.
func TestSharedCache(t *testing.T) {
	if os.Getuid() != 0 {
		return // only root can be two users
	}
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	dir := publicDir(t)
	exe := publicCopy(t, dir)
	cache := filepath.Join(dir, "amp")
	if err := os.Mkdir(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	as := func(env ...string) *exec.Cmd {
		cmd := child(t, cache, append(env, "BOOTSTRAP_SOURCES="+s.URL)...)
		cmd.Path = exe
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
		return cmd
	}
	wantOutput(t, as(), 5, "the cache of amp: ", "permission denied", "hint: only root can put anything into "+cache)

	// While root fetches, the others wait, and use what has come.
	file := rawFile + ".gz"
	begun, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release) // also when the test fails: the server waits for its answers
	packed := gz(t, data)
	s.handle(file, func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-goOn
		_, _ = w.Write(packed)
	})
	root := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
	fetched := make(chan error, 1)
	go func() {
		_, err := root.Ensure(t.Context(), newVersion)
		fetched <- err
	}()
	<-begun
	waiting := as("BOOTSTRAP_THEN=use")
	stdin, err := waiting.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := waiting.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	expect := func(want string) {
		t.Helper()
		if line, err := lines.ReadString('\n'); line != want+"\n" {
			t.Fatalf("%q, %v, want %q", line, err, want)
		}
	}
	expect("waiting")
	release()
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	expect(filepath.Join(cache, newVersion, "amp"))
	expect("in use")
	if n := s.hits(file); n != 1 {
		t.Errorf("fetched %d times", n)
	}

	// What somebody runs stays, and nobody but root can change it.
	if removed, err := root.Prune(t.Context(), 0); err != nil || len(removed) != 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	err = filepath.WalkDir(cache, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o022 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	stdin.Close()
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Error(err)
	}
	if err := waiting.Wait(); err != nil {
		t.Error(err)
	}
	if removed, err := root.Prune(t.Context(), 0); err != nil || len(removed) != 1 {
		t.Errorf("removed %q, %v", removed, err)
	}

	// One that a group may write to is nobody's.
	if err := os.Chmod(cache, 0o775); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, as(), 5, "may be written to by others")
}

// publicDir is one that every user can get into.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Dir(t.TempDir())), "bootstrap-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error { return os.Chmod(path, 0o700) })
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// publicCopy is this program: go test keeps it where only the one who built it can go.
func publicCopy(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "child")
	if err := os.WriteFile(exe, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return exe
}

// TestKilledAnywhere kills at 50 random instants of a run, of which some are those where it is
// unpacked, put in its place and noted. Whatever is there then is whole, and the next run succeeds.
func TestKilledAnywhere(t *testing.T) {
	const kills = 50
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	cache := filepath.Join(t.TempDir(), "amp")
	run := func() *exec.Cmd { return child(t, cache, "BOOTSTRAP_SOURCES="+s.URL) }
	begun := time.Now()
	wantOutput(t, run(), 0)
	whole := time.Since(begun)
	before, after := 0, 0
	for i := range kills {
		if err := os.RemoveAll(cache); err != nil {
			t.Fatal(err)
		}
		cmd := run()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(i+1) / kills)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
		if found := list(t, in); len(found) == 0 {
			before++
		} else {
			after++
			wantFile(t, found[0].Path, data)
		}
		b, err := in.Ensure(t.Context(), newVersion)
		if err != nil {
			t.Fatal(err)
		}
		wantFile(t, b.Path, data)
	}
	t.Logf("%d before it was published, %d after", before, after)
	if before == 0 {
		t.Error("no kill came in time")
	}
}
