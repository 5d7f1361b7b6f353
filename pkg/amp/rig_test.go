//go:build unix

package amp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// rig drives one build against a service of its own, without a sandbox.
type rig struct {
	t         *testing.T
	svc       *amptest.Service
	bin       string
	home      string
	workspace string
	prober    amp.Prober
	caps      *amp.Capabilities

	mu     sync.Mutex
	events []amp.Event
	first  chan struct{} // closed with the first event
	notes  []string
	thread string
	raw    bytes.Buffer
	logs   string
	turns  int
}

func newRig(t *testing.T, bin string) *rig {
	t.Helper()
	r := &rig{t: t, bin: bin, svc: amptest.StartT(t), home: t.TempDir(), workspace: t.TempDir(), logs: t.TempDir()}
	r.prober = amp.Prober{Launcher: r.launcher(), Env: r.env(), CacheDir: filepath.Join(t.TempDir(), "capabilities")}
	return r
}

// scriptRig is a rig whose Amp is a shell script, for what no real build does on demand.
func scriptRig(t *testing.T, body string) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "amp")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, path)
	r.caps = &amp.Capabilities{Version: "0.0.0-gscript", Flags: []string{"--execute", "--mode", "--stream-json"}, Modes: []string{"smart"}}
	return r
}

func (r *rig) launcher() amp.Launcher {
	return amp.InPolicy(&sandbox.Policy{Tier: sandbox.Off, Workspace: r.workspace})
}

func (r *rig) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.home, "LANG=C.UTF-8", "AMP_API_KEY=inherited", "AMP_URL=http://127.0.0.1:1/"}
}

// options are those of a turn, with logs of its own; the events of the turn before are forgotten.
func (r *rig) options(prompt string) amp.TurnOptions {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turns++
	r.events, r.first, r.notes = nil, make(chan struct{}), nil
	r.raw.Reset()
	dir := filepath.Join(r.logs, string(rune('0'+r.turns)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	redactor := &config.Redactor{}
	key, err := config.NewKey(r.svc.Key())
	if err != nil {
		r.t.Fatal(err)
	}
	redactor.Add(key)
	return amp.TurnOptions{
		Launcher: r.launcher(), Path: r.bin, Caps: r.caps, Prompt: prompt,
		Mode: amp.ModeChoice{Mode: "smart"},
		Dir:  r.workspace, Env: r.env(), ServiceURL: r.svc.URL(), Key: r.svc.Key(),
		SettingsFile: r.settings(dir, amp.ModeChoice{}),
		Timeout:      time.Minute,
		EventsFile:   filepath.Join(dir, "events.jsonl"), StderrFile: filepath.Join(dir, "stderr.log"),
		Raw:      &r.raw,
		Redact:   func(w io.Writer) amp.RedactingWriter { return redactor.Writer(w) },
		Observer: amp.ObserverFunc(r.observe),
		Thread:   func(id string) error { r.thread = id; return nil },
		Notice:   func(line string) { r.notes = append(r.notes, line) },
		ReadHome: func(rel string) ([]byte, error) { return os.ReadFile(filepath.Join(r.home, rel)) },
		CheckKey: func(ctx context.Context) error {
			_, err := amp.NewService(r.svc.URL(), r.svc.Key(), nil).UserInfo(ctx)
			return err
		},
	}
}

func (r *rig) settings(dir string, mode amp.ModeChoice) string {
	data, err := amp.SessionSettings("", mode)
	if err != nil {
		r.t.Fatal(err)
	}
	path := filepath.Join(dir, "settings.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) observe(e amp.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events = append(r.events, e); len(r.events) == 1 {
		close(r.first)
	}
}

// mode translates for the build.
func (r *rig) mode(name string) amp.ModeChoice {
	r.t.Helper()
	choice, err := amp.Translate(name, r.caps, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return choice
}

// run runs a turn, keeps what it taught, and checks what is true of every turn.
func (r *rig) run(o amp.TurnOptions) (amp.Outcome, error) {
	r.t.Helper()
	return r.runIn(r.t.Context(), o)
}

func (r *rig) runIn(ctx context.Context, o amp.TurnOptions) (amp.Outcome, error) {
	r.t.Helper()
	out, err := amp.RunTurn(ctx, o)
	if out.Learned != nil {
		r.caps = out.Learned
	}
	if out.OutputErr != nil {
		r.t.Errorf("output: %v", out.OutputErr)
	}
	for _, file := range []string{o.EventsFile, o.StderrFile} {
		info, statErr := os.Stat(file)
		if statErr != nil {
			r.t.Errorf("no log: %v", statErr)
			continue
		}
		if info.Mode().Perm() != 0o600 {
			r.t.Errorf("%s has mode %v", file, info.Mode())
		}
		if data, _ := os.ReadFile(file); bytes.Contains(data, []byte(o.Key)) {
			r.t.Errorf("the key is in %s", file)
		}
	}
	if bytes.Contains(r.raw.Bytes(), []byte(o.Key)) || strings.Contains(out.Result, o.Key) || err != nil && strings.Contains(err.Error(), o.Key) {
		r.t.Error("the key is in the output")
	}
	if data, readErr := os.ReadFile(o.EventsFile); readErr == nil && !bytes.Equal(data, r.raw.Bytes()) {
		r.t.Errorf("events.jsonl and stdout differ:\n%s\n%s", data, r.raw.Bytes())
	}
	return out, err
}

var errStopped = errors.New("stopped by the test")

// stopAfterFirst runs a turn and stops it a moment after its first event.
func (r *rig) stopAfterFirst(o amp.TurnOptions) (amp.Outcome, error) {
	r.t.Helper()
	ctx, cancel := context.WithCancelCause(r.t.Context())
	defer cancel(nil)
	first := r.first
	go func() {
		<-first
		cancel(errStopped)
	}()
	return r.runIn(ctx, o)
}
