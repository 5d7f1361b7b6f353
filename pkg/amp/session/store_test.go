package session

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// clock is a clock that moves a second at each look.
func clock() func() time.Time {
	now := time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

// workspace is an absolute path on every system.
func workspace(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// made is a session that is not in use any more.
func made(t *testing.T, s *Store, dir, thread string) string {
	t.Helper()
	session, err := s.Create(Record{Workspace: dir, ThreadID: thread})
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	return session.Record().ID
}

func TestLife(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	s := NewStore(state, clock())
	want := Record{
		Workspace: workspace(t, "w"), Mode: "deep", AmpMode: "high", AmpVersion: "0.0.1-gx", AmpPath: "/amp",
		ServiceURL: "https://ampcode.com/", Labels: []string{"a"}, Policy: json.RawMessage(`{"tier":"namespaces"}`),
	}
	session, err := s.Create(want)
	if err != nil {
		t.Fatal(err)
	}
	id := session.Record().ID
	if !idPattern().MatchString(id) || !strings.HasPrefix(id, "20261123-1900") {
		t.Errorf("id %q", id)
	}
	turn, files, err := session.BeginTurn("deep")
	if err != nil || turn.N != 1 {
		t.Fatalf("%+v %v", turn, err)
	}
	if files != s.Files(id, 1) || filepath.Dir(files.Events) != filepath.Join(state, "sessions", id, "turns", "1") {
		t.Errorf("%+v", files)
	}
	for _, path := range []string{state, s.dir, s.Dir(id), filepath.Dir(files.Dir), files.Dir} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if info, err := os.Stat(filepath.Join(s.Dir(id), "session.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if e, err := s.Show(id); err != nil || !e.InUse || e.Status() != Running {
		t.Errorf("while it runs: %+v %v", e, err)
	}
	if err := session.SetThread("T-1"); err != nil {
		t.Fatal(err)
	}
	turn.Status, turn.NumTurns = Success, 3
	if err := session.EndTurn(turn); err != nil {
		t.Fatal(err)
	}
	if err := session.EndTurn(Turn{N: 9}); err == nil {
		t.Error("ended a turn that never began")
	}
	if err := session.Update(func(r *Record) { r.AmpVersion, r.ID, r.Turns = "0.0.2-gy", "../x", nil }); err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}

	e, err := s.Show(id)
	if err != nil || e.InUse || e.Status() != Success {
		t.Fatalf("%+v %v", e, err)
	}
	want.SchemaVersion, want.ID, want.ThreadID, want.AmpVersion = 1, id, "T-1", "0.0.2-gy"
	want.Created, want.Updated, want.Turns = e.Created, e.Updated, e.Turns
	got := e.Record
	got.Policy = json.RawMessage(strings.Join(strings.Fields(string(got.Policy)), ""))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !e.Created.Before(e.Updated) || e.Turns[0].NumTurns != 3 || e.Turns[0].Ended.IsZero() {
		t.Errorf("%+v", e)
	}
}

func TestBusy(t *testing.T) {
	s := NewStore(t.TempDir(), nil)
	session, err := s.Create(Record{Workspace: workspace(t, "w")})
	if err != nil {
		t.Fatal(err)
	}
	id := session.Record().ID
	if _, err := s.Open(id); fault.CodeOf(err) != fault.SessionBusy {
		t.Errorf("open: %v", err)
	}
	if err := s.Remove(id); fault.CodeOf(err) != fault.SessionBusy {
		t.Errorf("remove: %v", err)
	}
	if gone, err := s.Prune(Prune{}); err != nil || len(gone) != 0 {
		t.Errorf("prune: %v %v", gone, err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := s.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(id); fault.CodeOf(err) != fault.SessionNotFound {
		t.Errorf("removed: %v", err)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestInterrupted(t *testing.T) {
	s := NewStore(t.TempDir(), nil)
	session, err := s.Create(Record{Workspace: workspace(t, "w"), ThreadID: "T-1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := session.BeginTurn("smart"); err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil { // as the end of the process would
		t.Fatal(err)
	}
	id := session.Record().ID
	if e, err := s.Show(id); err != nil || e.Status() != Interrupted {
		t.Errorf("%+v %v", e, err)
	}
	if entries, _, err := s.List(); err != nil || entries[0].Status() != Interrupted {
		t.Errorf("%+v %v", entries, err)
	}
	again, err := s.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	turn, _, err := again.BeginTurn("smart")
	if err != nil || turn.N != 2 {
		t.Fatalf("%+v %v", turn, err)
	}
	if turns := again.Record().Turns; turns[0].Status != Interrupted || turns[1].Status != Running {
		t.Errorf("%+v", turns)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	s := NewStore(t.TempDir(), clock())
	if _, err := s.Find("x"); fault.CodeOf(err) != fault.SessionNotFound {
		t.Errorf("in an empty store: %v", err)
	}
	a, b := made(t, s, workspace(t, "w"), "T-a"), made(t, s, workspace(t, "w"), "T-b")
	for what, want := range map[string]string{a: a, b: b, a[:len(a)-1]: a, a[len(a)-4:]: a, "T-b": b} {
		if got, err := s.Find(what); err != nil || got != want {
			t.Errorf("%s: %q %v", what, got, err)
		}
	}
	_, err := s.Find(a[:10])
	hints := strings.Join(fault.HintsOf(err), " ")
	if fault.CodeOf(err) != fault.SessionNotFound || !strings.Contains(hints, a) || !strings.Contains(hints, b) {
		t.Errorf("ambiguous: %v %s", err, hints)
	}
	for _, what := range []string{"", "..", "../" + a, "/", "T-c", strings.ToUpper(a) + "x"} {
		if id, err := s.Find(what); fault.CodeOf(err) != fault.SessionNotFound {
			t.Errorf("%q: %q %v", what, id, err)
		}
	}
	for _, id := range []string{"..", "../sessions/" + a, a + "/.", ""} {
		if _, err := s.Open(id); fault.CodeOf(err) != fault.SessionNotFound {
			t.Errorf("opened %q: %v", id, err)
		}
		if err := s.Remove(id); fault.CodeOf(err) != fault.SessionNotFound {
			t.Errorf("removed %q: %v", id, err)
		}
	}
	if _, err := os.Stat(s.Dir(a)); err != nil {
		t.Error(err)
	}
}

func TestNewest(t *testing.T) {
	s := NewStore(t.TempDir(), clock())
	here, there := workspace(t, "here"), workspace(t, "there")
	if _, err := s.Newest(here); fault.CodeOf(err) != fault.SessionNotFound {
		t.Errorf("in an empty store: %v", err)
	}
	first := made(t, s, here, "T-1")
	second := made(t, s, here, "T-2")
	made(t, s, there, "T-3")
	made(t, s, here, "") // never came to a thread
	if e, err := s.Newest(here); err != nil || e.ID != second {
		t.Errorf("%+v %v", e, err)
	}
	session, err := s.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Update(func(*Record) {}); err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Newest(here); err != nil || e.ID != first {
		t.Errorf("the last used is %+v %v", e, err)
	}
	lonely := workspace(t, "lonely")
	made(t, s, lonely, "")
	if _, err := s.Newest(lonely); fault.CodeOf(err) != fault.SessionNotFound || !strings.Contains(err.Error(), "thread") {
		t.Errorf("without a thread: %v", err)
	}
}

func TestBroken(t *testing.T) {
	s := NewStore(t.TempDir(), clock())
	dir := workspace(t, "w")
	good := made(t, s, dir, "T-1")
	for name, text := range map[string]string{
		"empty": "", "cut": `{"schema_version":1,"id`, "no object": "[]", "no version": `{}`, "binary": "\x00\xff",
		"of another": `{"schema_version":1,"id":"` + good + `","workspace":"` + strings.ReplaceAll(dir, `\`, `\\`) + `"}`,
		"newer":      `{"schema_version":2,"id":7}`,
	} {
		t.Run(name, func(t *testing.T) {
			id := made(t, s, dir, "T-2")
			path := filepath.Join(s.Dir(id), recordName)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for what, err := range map[string]error{
				"open": second(s.Open(id)), "show": second(s.Show(id)),
			} {
				if fault.CodeOf(err) != fault.SessionNotFound || !strings.Contains(err.Error(), path) {
					t.Errorf("%s: %v", what, err)
				}
			}
			entries, broken, err := s.List()
			if err != nil || len(broken) != 1 || broken[0].ID != id || len(entries) != 1 || entries[0].ID != good {
				t.Errorf("list: %v %v %v", entries, broken, err)
			}
			if e, err := s.Newest(dir); err != nil || e.ID != good {
				t.Errorf("newest: %+v %v", e, err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != text {
				t.Errorf("was changed: %q %v", after, err)
			}
			if err := s.Remove(id); err != nil {
				t.Errorf("remove: %v", err)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

func TestPrune(t *testing.T) {
	now := time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC)
	s := NewStore(t.TempDir(), func() time.Time { return now })
	here, there := workspace(t, "here"), workspace(t, "there")
	var ids []string
	for range 4 {
		ids = append(ids, made(t, s, here, "T-1"))
		now = now.Add(24 * time.Hour)
	}
	other := made(t, s, there, "T-1")
	// What kills leave behind.
	for _, name := range []string{trashPrefix + ids[0], "20200101-000000-aaaa"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(s.dir, name), now.Add(-time.Hour), now.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "notes"), 0o700); err != nil {
		t.Fatal(err)
	}
	prune := func(p Prune) []string {
		t.Helper()
		gone, err := s.Prune(p)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(gone)
		return gone
	}
	if gone := prune(Prune{OlderThan: 60 * time.Hour, Keep: 1}); !slices.Equal(gone, ids[:2]) {
		t.Errorf("by age: %v of %v", gone, ids)
	}
	if gone := prune(Prune{Keep: 1}); !slices.Equal(gone, ids[2:3]) {
		t.Errorf("by number: %v of %v", gone, ids)
	}
	left, err := os.ReadDir(s.dir)
	var names []string
	for _, d := range left {
		names = append(names, d.Name())
	}
	if want := []string{ids[3], other, "notes"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("left %v, want %v: %v", names, want, err)
	}
	if gone := prune(Prune{}); len(gone) != 2 {
		t.Errorf("all: %v", gone)
	}
}

// TestCreateAtOnce makes many sessions in the same second.
func TestCreateAtOnce(t *testing.T) {
	now := time.Now()
	s := NewStore(t.TempDir(), func() time.Time { return now })
	const many = 30
	errs := make(chan error)
	for range many {
		go func() {
			session, err := s.Create(Record{Workspace: s.dir})
			if err == nil {
				err = session.Close()
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if entries, broken, err := s.List(); err != nil || len(broken) != 0 || len(entries) != many {
		t.Errorf("%d sessions, %v %v", len(entries), broken, err)
	}
}

func TestNoPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewStore(file, nil).Create(Record{Workspace: workspace(t, "w")}); fault.CodeOf(err) != fault.Internal {
		t.Errorf("create: %v", err)
	}
	if _, err := NewStore(t.TempDir(), nil).Create(Record{Workspace: "relative"}); fault.CodeOf(err) != fault.Internal {
		t.Errorf("relative workspace: %v", err)
	}
}

// TestFailedSave keeps what was there when a write fails.
func TestFailedSave(t *testing.T) {
	s := NewStore(t.TempDir(), nil)
	session, err := s.Create(Record{Workspace: workspace(t, "w")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	// A directory in the place of the record fails for root, too.
	record := filepath.Join(session.Dir(), recordName)
	aside := record + ".aside"
	if err := errors.Join(os.Rename(record, aside), os.Mkdir(record, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := session.SetThread("T-1"); fault.CodeOf(err) != fault.Internal {
		t.Fatalf("got %v", err)
	}
	if err := errors.Join(os.Remove(record), os.Rename(aside, record)); err != nil {
		t.Fatal(err)
	}
	if session.Record().ThreadID != "" {
		t.Error("the record says what the file does not")
	}
	if e, err := s.Show(session.Record().ID); err != nil || e.ThreadID != "" {
		t.Errorf("%+v %v", e, err)
	}
}
