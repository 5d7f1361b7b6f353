//go:build unix

package session

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const (
	childVariable = "SESAME_TEST_SESSION_STATE"
	childThread   = "T-00000000-0000-0000-0000-000000000001"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if state := os.Getenv(childVariable); state != "" {
		if err := writeForever(state); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeForever does what run and continue do, without end. Each line on stdout
// tells what is promised to be on disk from then on.
func writeForever(state string) error {
	s := NewStore(state, nil)
	for {
		session, err := s.Create(Record{Workspace: state, Labels: []string{strings.Repeat("x", 5000)}})
		if err != nil {
			return err
		}
		id := session.Record().ID
		fmt.Println("created", id)
		for range 3 {
			turn, files, err := session.BeginTurn("smart")
			if err != nil {
				return err
			}
			if err := os.WriteFile(files.Events, []byte("{}\n"), 0o600); err != nil {
				return err
			}
			if err := session.SetThread(childThread); err != nil {
				return err
			}
			fmt.Println("thread", id)
			turn.Status = Success
			if err := session.EndTurn(turn); err != nil {
				return err
			}
			fmt.Printf("turn %s\n", id)
		}
		if err := session.Close(); err != nil {
			return err
		}
	}
}

// TestKill kills a writing process at many random instants, and each time goes on
// with the sessions that it left.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	s := NewStore(state, nil)
	interrupted := 0
	for range 40 {
		created, threads, turns := killOne(t, self, state)
		entries, broken, err := s.List()
		if err != nil || len(broken) != 0 {
			t.Fatalf("after a kill: %v %v", broken, err)
		}
		there := map[string]Entry{}
		for _, e := range entries {
			there[e.ID] = e
			if e.InUse || e.Status() == Running {
				t.Errorf("still in use: %+v", e)
			}
			if e.Status() == Interrupted {
				interrupted++
			}
		}
		for id := range created {
			if _, ok := there[id]; !ok {
				t.Errorf("session %s is gone", id)
			}
		}
		for id := range threads {
			if there[id].ThreadID != childThread {
				t.Errorf("session %s lost its thread", id)
			}
		}
		for id, n := range turns {
			ended := 0
			for _, turn := range there[id].Turns {
				if turn.Status == Success {
					ended++
				}
			}
			if ended < n {
				t.Errorf("session %s knows of %d turns, not %d", id, ended, n)
			}
		}
		goOn(t, s, entries)
	}
	if interrupted == 0 {
		t.Error("no kill hit a turn: the test shows nothing")
	}
}

// killOne lets the child write for a moment and returns what it promised.
func killOne(t *testing.T, self, state string) (created, threads map[string]bool, turns map[string]int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childVariable+"="+state)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	created, threads, turns = map[string]bool{}, map[string]bool{}, map[string]int{}
	for n := 0; lines.Scan(); n++ {
		if n == 0 { // from the first line on it writes all the time
			time.AfterFunc(rand.N(30*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
		switch what, id, _ := strings.Cut(lines.Text(), " "); what {
		case "created":
			created[id] = true
		case "thread":
			threads[id] = true
		case "turn":
			turns[id]++
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return created, threads, turns
}

// goOn begins another turn of the first session and clears the rest away.
func goOn(t *testing.T, s *Store, entries []Entry) {
	t.Helper()
	for i, e := range entries {
		if i == 0 {
			session, err := s.Open(e.ID)
			if err != nil {
				t.Fatal(err)
			}
			turn, _, err := session.BeginTurn("smart")
			if err != nil || turn.N <= len(e.Turns) {
				t.Fatalf("the next turn is %+v: %v", turn, err)
			}
			turn.Status = Success
			if err := session.EndTurn(turn); err != nil {
				t.Fatal(err)
			}
			if err := session.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Remove(e.ID); err != nil {
			t.Fatal(err)
		}
	}
}
