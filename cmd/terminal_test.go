//go:build linux || darwin

package cmd

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/sesame-cli/sesame/pkg/config"
)

// terminal is a sesame process at a pseudo terminal.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	home string

	mu   sync.Mutex
	seen bytes.Buffer
	more chan struct{}
}

func startAtTerminal(t *testing.T, service string, args ...string) *terminal {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command("sesame", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "AMP_URL=" + service, "TERM=xterm", "DBUS_SESSION_BUS_ADDRESS=disabled:"}
	cmd.Dir = home
	master, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	p := &terminal{t: t, cmd: cmd, pty: master, home: home, more: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
			if err != nil {
				return // EIO when the other side is closed
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		master.Close()
	})
	return p
}

func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

func (p *terminal) expect(text string) {
	p.t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(p.text(), text) {
		select {
		case <-p.more:
		case <-deadline:
			p.t.Fatalf("no %q in %q", text, p.text())
		}
	}
}

func (p *terminal) exit() int {
	p.t.Helper()
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// interrupt presses Ctrl-C, which ends the process and gives the terminal its echo back.
func (p *terminal) interrupt() {
	p.t.Helper()
	if _, err := io.WriteString(p.pty, "\x03"); err != nil {
		p.t.Fatal(err)
	}
	if code := p.exit(); code != 130 {
		p.t.Errorf("exit %d: %q", code, p.text())
	}
	if !echoes(p.t, p.pty) {
		p.t.Error("the terminal is left without echo")
	}
}

func TestLoginAtTerminal(t *testing.T) {
	service := startService(t)
	p := startAtTerminal(t, service, "login")
	p.expect("(not shown): ")
	if _, err := io.WriteString(p.pty, goodKey+"\n"); err != nil {
		t.Fatal(err)
	}
	p.expect("logged in to " + service + " as a@b.c")
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if strings.Contains(p.text(), goodKey[:12]) {
		t.Errorf("the key was shown: %q", p.text())
	}
	store := config.KeyStore{Path: filepath.Join(p.home, ".config/sesame/credentials.json")}
	if got, _, err := store.Load(service); err != nil || got.Key.Reveal() != goodKey {
		t.Errorf("not stored: %v", err)
	}
}

// Ctrl-C at the question ends it and gives the terminal its echo back.
func TestLoginInterrupted(t *testing.T) {
	p := startAtTerminal(t, startService(t), "login")
	p.expect("(not shown): ")
	p.interrupt()
}

// A prompt that never comes must not outlive the signal.
func TestSignalWhileReadingPrompt(t *testing.T) {
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 143} {
		t.Run(sig.String(), func(t *testing.T) {
			home := t.TempDir()
			work := filepath.Join(home, "work")
			if err := os.Mkdir(work, 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sesame", "run", "-o", "json", "first", "-")
			cmd.Env, cmd.Dir = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "AMP_API_KEY=" + goodKey}, work
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// More than a pipe holds: when this returns, sesame is reading its prompt,
			// and so it has its signal handlers.
			if _, err := stdin.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the code is looked at below
			stdin.Close()
			if got := cmd.ProcessState.ExitCode(); got != want {
				t.Errorf("exit %d, want %d: %s", got, want, &stderr)
			}
			if !strings.Contains(stdout.String(), `"status":"canceled"`) || !strings.Contains(stdout.String(), `"code":"canceled"`) {
				t.Errorf("stdout: %s", &stdout)
			}
		})
	}
}
