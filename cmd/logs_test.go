package cmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/session"
)

func TestLogs(t *testing.T) {
	w := newWorld(t)
	other := w.sessionOf(t, "/elsewhere", time.Minute, session.Success)
	_, errOut := w.want(t, 8, "logs")
	wantIn(t, errOut, "there is no session of "+w.cwd)

	w.sessionOf(t, w.cwd, time.Hour, session.Success)
	id := w.sessionOf(t, w.cwd, time.Minute, session.Crashed)
	if out, errOut := w.want(t, 0, "logs"); out != "stderr of "+id+"\n" || errOut != "" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	if out, _ := w.want(t, 0, "logs", other[len(other)-4:]); out != "stderr of "+other+"\n" {
		t.Errorf("stdout %q", out)
	}
	if out, _ := w.want(t, 0, "logs", "--events", "--follow"); out != `{"type":"result"}`+"\n" {
		t.Errorf("stdout %q", out)
	}
	w.want(t, 8, "logs", "nope")
	w.want(t, 2, "logs", "one", "two")
	for _, n := range []string{"0", "2", "-1"} {
		_, errOut = w.want(t, 2, "logs", "--turn", n)
		wantIn(t, errOut, "has no turn "+n, "hint: its last one is 1")
	}

	s, err := w.sessionStore(t).Open(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.BeginTurn("deep"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, errOut := w.want(t, 0, "logs"); out != "" || !strings.Contains(errOut, "turn 2 of session "+id+" wrote nothing") {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	if out, _ := w.want(t, 0, "logs", "--turn", "1"); out != "stderr of "+id+"\n" {
		t.Errorf("stdout %q", out)
	}
	s, err = w.sessionStore(t).Create(session.Record{Workspace: w.cwd})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, errOut = w.want(t, 8, "logs", s.Record().ID)
	wantIn(t, errOut, "has no turn")
}

// A log must not talk to the terminal, and a file of it is what Amp wrote.
func TestLogsHarmless(t *testing.T) {
	w := newWorld(t)
	id := w.sessionOf(t, w.cwd, time.Minute, session.Success)
	hostile := "a\x1b]0;title\x07b\x9bc\rd\u202ee\xff ä漢👩\u200d💻\u00a0\ttab\n"
	w.write(t, w.sessionStore(t).Files(id, 1).Stderr, hostile)
	if out, _ := w.want(t, 0, "logs"); out != hostile {
		t.Errorf("to a file: %q", out)
	}
	w.io.OutTerminal = true
	want := `a\x1b]0;title\x07b\x9bc\x0dd\x202ee\xff ä漢` + "👩\u200d💻\u00a0\ttab\n"
	if out, _ := w.want(t, 0, "logs"); out != want {
		t.Errorf("to a terminal: %q", out)
	}
	// Characters may come in pieces.
	var out bytes.Buffer
	h := &harmless{to: &out}
	for i := range len(hostile) {
		if n, err := h.Write([]byte{hostile[i]}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if out.String() != want {
		t.Errorf("in pieces: %q", out.String())
	}
}

// stream is a buffer that another goroutine can wait for.
type stream struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *stream) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("no %q in %q", text, s.String())
		}
	}
}

func TestLogsFollow(t *testing.T) {
	for name, end := range map[string]func(*session.Session, session.Turn) error{
		"turn ends": func(s *session.Session, turn session.Turn) error {
			turn.Status = session.Success
			return s.EndTurn(turn)
		},
		"process dies": func(s *session.Session, _ session.Turn) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, err := w.sessionStore(t).Create(session.Record{Workspace: w.cwd})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			turn, files, err := s.BeginTurn("smart")
			if err != nil {
				t.Fatal(err)
			}
			out := &stream{more: make(chan struct{}, 1)}
			w.io.Out = out
			code := make(chan int, 1)
			go func() { code <- run(t.Context(), w.app, []string{"logs", "-f"}) }()
			log := &growingLog{t: t, path: files.Stderr}
			log.add("first\n")
			out.await(t, "first\n")
			log.add("second ")
			out.await(t, "second ")
			log.add("last\n")
			if err := end(s, turn); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-code:
				if got != 0 || out.String() != "first\nsecond last\n" {
					t.Errorf("exit %d, %q", got, out.String())
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it does not end")
			}
		})
	}
}

func TestLogsFollowInterrupted(t *testing.T) {
	w := newWorld(t)
	s, err := w.sessionStore(t).Create(session.Record{Workspace: w.cwd})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, files, err := s.BeginTurn("smart")
	if err != nil {
		t.Fatal(err)
	}
	out := &stream{more: make(chan struct{}, 1)}
	w.io.Out = out
	ctx, cancel := context.WithCancelCause(t.Context())
	code := make(chan int, 1)
	go func() { code <- run(ctx, w.app, []string{"logs", "--follow"}) }()
	(&growingLog{t: t, path: files.Stderr}).add("x\n")
	out.await(t, "x\n")
	cancel(signalError{os.Interrupt})
	if got := <-code; got != 130 {
		t.Errorf("exit %d", got)
	}
}

// growingLog is a file that is written to bit by bit.
type growingLog struct {
	t    *testing.T
	path string
}

func (l *growingLog) add(text string) {
	l.t.Helper()
	f, err := os.OpenFile(filepath.Clean(l.path), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		l.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		l.t.Fatal(err)
	}
}
