package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/session"
)

func (w *world) sessionStore(t *testing.T) *session.Store {
	t.Helper()
	dirs, err := w.dirs()
	if err != nil {
		t.Fatal(err)
	}
	return session.NewStore(dirs.State, func() time.Time { return w.now() })
}

// sessionOf makes a session with a turn of the status, and leaves it to itself.
func (w *world) sessionOf(t *testing.T, workspace string, age time.Duration, status session.Status, labels ...string) string {
	t.Helper()
	now := w.now
	defer func() { w.now = now }()
	begun := now().Add(-age)
	w.now = func() time.Time { return begun }
	s, err := w.sessionStore(t).Create(session.Record{Workspace: workspace, Mode: "deep", AmpMode: "high", ThreadID: "T-1", Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	turn, files, err := s.BeginTurn("deep")
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, files.Stderr, "stderr of "+s.Record().ID+"\n")
	w.write(t, files.Events, `{"type":"result"}`+"\n")
	if status != session.Running {
		turn.Status, turn.DurationMS = status, 1540
		if err := s.EndTurn(turn); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.Record().ID
}

func (w *world) breakSession(t *testing.T, id string) {
	t.Helper()
	w.write(t, filepath.Join(w.sessionStore(t).Dir(id), "session.json"), "{")
}

func TestSessionsList(t *testing.T) {
	w := newWorld(t)
	if out, errOut := w.want(t, 0, "sessions"); out != "" || errOut != "sesame: no sessions\n" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	if out, _ := w.want(t, 0, "sessions", "--json"); out != `{"schema_version":1,"sessions":[],"broken":[]}`+"\n" {
		t.Errorf("stdout %q", out)
	}
	old := w.sessionOf(t, "/elsewhere", 100*time.Hour, session.Failed, "nightly", "evil\x1b[2J\nlabel")
	killed := w.sessionOf(t, w.home+"/p", 2*time.Hour, session.Running)
	broken := w.sessionOf(t, w.cwd, time.Hour, session.Success)
	w.breakSession(t, broken)
	open, err := w.sessionStore(t).Create(session.Record{Workspace: w.cwd, Mode: "smart"})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	out, errOut := w.want(t, 0, "sessions")
	lines := strings.Split(out, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[1], open.Record().ID) || !strings.HasPrefix(lines[2], killed) || !strings.HasPrefix(lines[3], old) {
		t.Fatalf("list:\n%s", out)
	}
	wantIn(t, lines[0], "ID", "USED", "WORKSPACE", "MODE", "STATUS", "TURNS", "LABELS")
	wantIn(t, lines[1], w.cwd, "smart", "in use")
	wantIn(t, lines[2], w.home+"/p", "interrupted", "2026-09-21T12:13:20Z")
	wantIn(t, lines[3], "/elsewhere", "deep", "error", "1", "nightly, evil")
	if strings.Contains(out, "\x1b") {
		t.Errorf("an escape sequence gets through: %q", out)
	}
	wantIn(t, errOut, "sesame: warning: session "+broken+" cannot be read", "hint: ")

	w.io.OutTerminal = true
	out, _ = w.want(t, 0, "sessions", "list")
	wantIn(t, out, "just now", "2 h ago", "4 days ago", " ~/p ")
	w.io.OutTerminal = false

	out, _ = w.want(t, 0, "sessions", "list", "--json")
	var list struct {
		Sessions []session.Entry
		Broken   []brokenSession
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	if s := list.Sessions; len(s) != 3 || s[0].ID != open.Record().ID || !s[0].InUse || s[0].Turns == nil || s[1].Status() != session.Interrupted || s[2].Labels[0] != "nightly" {
		t.Errorf("got %+v", s)
	}
	if len(list.Broken) != 1 || list.Broken[0].ID != broken || list.Broken[0].Error == "" {
		t.Errorf("got %+v", list.Broken)
	}
}

func TestSessionsShow(t *testing.T) {
	w := newWorld(t)
	id := w.sessionOf(t, "/elsewhere", time.Minute, session.Crashed)
	for _, name := range []string{id, id[:17], id[len(id)-4:], "T-1"} {
		out, _ := w.want(t, 0, "sessions", "show", name)
		wantIn(t, out, "session:", id, "workspace:  /elsewhere (gone)\n", "mode:       deep (high on this Amp)\n", "thread:     T-1\n",
			"1     2026-09-21T14:12:20Z  deep  crashed  1.5s\n")
	}
	out, _ := w.want(t, 0, "sessions", "show", "--json", id)
	wantIn(t, out, `{"schema_version":1,"id":"`+id+`"`, `"in_use":false`, `"dir":"`+w.sessionStore(t).Dir(id)+`"`)
	_, errOut := w.want(t, 8, "sessions", "show", "nope")
	wantIn(t, errOut, `there is no session "nope"`)
	w.sessionOf(t, "/elsewhere", time.Minute, session.Success)
	_, errOut = w.want(t, 8, "sessions", "show", id[:8])
	wantIn(t, errOut, "stands for 2 sessions")
	w.breakSession(t, id)
	_, errOut = w.want(t, 8, "sessions", "show", id)
	wantIn(t, errOut, "cannot be read", "sesame sessions rm "+id)
}

func TestSessionsRemove(t *testing.T) {
	w := newWorld(t)
	store := w.sessionStore(t)
	one := w.sessionOf(t, w.cwd, time.Minute, session.Success)
	two := w.sessionOf(t, w.cwd, time.Minute, session.Success)
	w.breakSession(t, two)

	// A slip removes nothing.
	w.want(t, 8, "sessions", "rm", one, "nope")
	if _, err := os.Stat(store.Dir(one)); err != nil {
		t.Error(err)
	}
	s, err := store.Open(one)
	if err != nil {
		t.Fatal(err)
	}
	_, errOut := w.want(t, 8, "sessions", "rm", one)
	wantIn(t, errOut, "session "+one+" is in use")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, errOut := w.want(t, 0, "sessions", "rm", one, two); out != "" || errOut != "sesame: removed session "+one+"\nsesame: removed session "+two+"\n" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
	for _, id := range []string{one, two} {
		if _, err := os.Stat(store.Dir(id)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", id, err)
		}
	}
}

func TestSessionsPrune(t *testing.T) {
	day := 24 * time.Hour
	tests := []struct {
		args []string
		want string // of the sessions a (1 h), b (2 h), c (10 d), d (40 d), and e (50 d, elsewhere)
	}{
		{nil, "de"},
		{[]string{"--older-than", "7d"}, "cde"},
		{[]string{"--older-than", "90m"}, "bcde"},
		{[]string{"--older-than", "0"}, "abcde"},
		{[]string{"--keep", "1"}, "bcd"},
		{[]string{"--keep", "3"}, "d"},
		{[]string{"--keep", "1", "--older-than", "30d"}, "d"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			w := newWorld(t)
			ids := map[string]string{}
			for name, age := range map[string]time.Duration{"a": time.Hour, "b": 2 * time.Hour, "c": 10 * day, "d": 40 * day, "e": 50 * day} {
				workspace := w.cwd
				if name == "e" {
					workspace = "/elsewhere"
				}
				ids[w.sessionOf(t, workspace, age, session.Success)] = name
			}
			out, errOut := w.want(t, 0, append([]string{"sessions", "prune"}, test.args...)...)
			got := ""
			for id := range strings.FieldsSeq(out) {
				got += ids[id]
			}
			if got != test.want {
				t.Errorf("removed %s, want %s", got, test.want)
			}
			if !strings.HasPrefix(errOut, "sesame: removed ") || strings.Contains(errOut, "freed 0 B") {
				t.Errorf("stderr %q", errOut)
			}
		})
	}
	w := newWorld(t)
	for _, args := range [][]string{{"--older-than", "7"}, {"--older-than", "xd"}, {"--older-than", "-1d"}, {"--keep", "-1"}, {"--keep", "x"}, {"extra"}} {
		w.want(t, 2, append([]string{"sessions", "prune"}, args...)...)
	}
}
