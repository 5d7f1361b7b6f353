package cmd

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whenever a signal comes, sesame ends by it or says so, and leaves no process and no file.
func TestSignalAtTheStart(t *testing.T) {
	for _, tier := range []string{"namespaces", "landlock", "off"} {
		t.Run(tier, func(t *testing.T) {
			home := homeOfSandboxes(t)
			temp, work := filepath.Join(home, "tmp"), filepath.Join(home, "work")
			for _, dir := range []string{temp, work, filepath.Join(home, ".config", "sesame")} {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			// Not a flag: that tells sesame what it begins before it has read its configuration.
			if err := os.WriteFile(filepath.Join(home, ".config", "sesame", "config.yaml"), []byte("sandbox:\n  tier: "+tier+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			mark := "8" + strconv.Itoa(os.Getpid()) + ".25"
			for i := range 60 {
				delay := time.Duration(i) * 500 * time.Microsecond
				cmd := exec.CommandContext(t.Context(), "sesame", "sandbox", "--", "/bin/sleep", mark)
				cmd.Env, cmd.Dir = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + temp}, work
				cmd.WaitDelay = 10 * time.Second
				var said bytes.Buffer
				cmd.Stdout, cmd.Stderr = &said, &said
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(delay)
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) {
					t.Fatalf("after %v: %v", delay, err)
				}
				if status := exit.Sys().(syscall.WaitStatus); status.ExitStatus() != 143 && status.Signal() != syscall.SIGTERM {
					t.Errorf("after %v: %v, %s", delay, exit, &said)
				}
				var left []string
				if !eventually(10*time.Second, func() bool {
					left, _ = filepath.Glob(filepath.Join(temp, "*"))
					for _, p := range allProcesses(t) {
						if line := p.cmdline(); strings.Contains(line, mark) {
							left = append(left, line)
						}
					}
					return len(left) == 0
				}) {
					t.Fatalf("after %v: left %q", delay, left)
				}
			}
		})
	}
}

// homeOfSandboxes is a directory in which overlayfs may leave directories that nobody may enter.
func homeOfSandboxes(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	t.Cleanup(func() {
		if err := openAll(home); err != nil {
			t.Error(err)
		}
	})
	return home
}

// The command may use the processors that its caller may use, whatever sesame itself does meanwhile.
func TestProcessorsOfTheCaller(t *testing.T) {
	home := homeOfSandboxes(t)
	show := []string{"grep", "Cpus_allowed_list", "/proc/self/status"}
	for _, tier := range []string{"namespaces", "landlock"} {
		for _, caller := range [][]string{{"env"}, {"taskset", "-c", "0"}} {
			run := func(args ...string) string {
				args = append(append([]string{}, caller...), args...)
				cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
				cmd.Env, cmd.Dir = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}, t.TempDir()
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%q: %v", args, err)
				}
				return string(out)
			}
			want := run(show...)
			if got := run(append([]string{"sesame", "sandbox", "--sandbox", tier, "--"}, show...)...); got != want {
				t.Errorf("%s, %q: %s, want %s", tier, caller, got, want)
			}
		}
	}
}
