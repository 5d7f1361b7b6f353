// Demo shows what sesame does on a machine without a key: it fetches a real Amp build, starts the
// loopback Amp service that the tests use in place of ampcode.com, and runs a turn, a second one that
// carries the first, and an attack that the sandbox refuses.
//
//	go run ./scripts/demo
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// stage is the demo's own machine: a directory with a home, a project and sesame in it.
type stage struct {
	out     io.Writer
	dir     string
	service *amptest.Service
}

func demo(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp(cacheDir(), "sesame-demo-")
	if err != nil {
		return err
	}
	service := amptest.New()
	if err := service.Start(ctx); err != nil {
		return err
	}
	s := &stage{out: out, dir: dir, service: service}
	defer func() { err = errors.Join(err, service.Close(), removeAll(dir)) }()
	for _, d := range []string{s.home(), s.project(), filepath.Join(s.home(), ".ssh")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	secret := filepath.Join(s.home(), ".ssh", "id_ed25519")
	if err := os.WriteFile(secret, []byte("PRIVATE KEY\n"), 0o600); err != nil {
		return err
	}
	return s.play(ctx)
}

// play runs the steps and checks what each of them promises.
func (s *stage) play(ctx context.Context) error {
	s.say("Building sesame; starting a loopback Amp service at %s", s.service.URL())
	build := exec.CommandContext(ctx, "go", "build", "-o", s.sesame(), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}

	s.say("A turn: a real Amp build is fetched, put in the sandbox, and its shell tool makes a file")
	if _, err := s.run(ctx, "run", "RUN:echo made by amp > made-here; cat made-here"); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.project(), "made-here")); err != nil {
		return fmt.Errorf("the turn made no file: %w", err)
	}

	s.say("The next turn of the session carries the first: the model is sent all messages so far")
	text, err := s.run(ctx, "continue", "and what did I say before?")
	if err != nil {
		return err
	}
	if strings.Contains(text, "(1 messages)") {
		return errors.New("the second turn does not carry the first")
	}

	s.say("An attack: read a secret, write outside of the project, reach another host")
	attack := `RUN:cat ~/.ssh/id_ed25519; echo owned > ~/../owned; curl -sS -m 5 https://example.com`
	text, err = s.run(ctx, "run", attack)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.dir, "owned")); err == nil || strings.Contains(text, "PRIVATE KEY") {
		return errors.New("the attack was not refused")
	}

	s.say("What would be wrong if something were: sesame doctor")
	if _, err := s.run(ctx, "doctor"); err != nil {
		return err
	}
	s.say("All of it happened in %s, which is removed now. With a key of your own: sesame login; sesame run \"…\"", s.dir)
	return nil
}

func (s *stage) home() string    { return filepath.Join(s.dir, "home") }
func (s *stage) project() string { return filepath.Join(s.home(), "project") }

func (s *stage) sesame() string {
	name := "sesame"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(s.dir, name)
}

func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "\n── %s\n", fmt.Sprintf(format, args...))
}

// run shows and runs one command of sesame, and returns what it printed.
func (s *stage) run(ctx context.Context, args ...string) (string, error) {
	fmt.Fprintf(s.out, "$ sesame %s\n", quoted(args))
	cmd := exec.CommandContext(ctx, s.sesame(), args...)
	cmd.Dir = s.project()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	// An environment from nothing but what finds programs and package registries.
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if name != "HOME" && !strings.HasPrefix(name, "XDG_") && !strings.HasPrefix(name, "AMP_") && !strings.HasPrefix(name, "SESAME_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+s.home(), "XDG_CACHE_HOME="+cacheDir(), "AMP_URL="+s.service.URL(), "AMP_API_KEY="+s.service.Key())
	var text strings.Builder
	cmd.Stdout = io.MultiWriter(s.out, &text)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	if err != nil {
		return text.String(), fmt.Errorf("sesame %s: %w", args[0], err)
	}
	return text.String(), nil
}

func quoted(args []string) string {
	var words []string
	for _, a := range args {
		if strings.ContainsAny(a, " ;'~") {
			a = `"` + a + `"`
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// cacheDir keeps Amp from one demo to the next. It is not below /tmp, which the sandbox has of its own.
func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return os.TempDir()
	}
	if os.MkdirAll(dir, 0o700) != nil {
		return os.TempDir()
	}
	return dir
}

// removeAll also removes the directories that the kernel makes without permissions in an overlay's state.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // what cannot be removed is told below
		}
		return nil
	})
	return os.RemoveAll(dir)
}
