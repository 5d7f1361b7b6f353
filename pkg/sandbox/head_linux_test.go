package sandbox

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// What was begun for a sandbox that is not wanted after all goes without a trace, and its input is left to who comes next.
func TestBeginForNothing(t *testing.T) {
	in := fileWith(t, "for somebody else")
	for _, end := range []struct {
		name string
		do   func(b *Beginning) error
	}{
		{"close", func(b *Beginning) error { b.Close(); return nil }},
		{"bad policy", func(b *Beginning) error {
			_, err := b.Start(t.Context(), &Policy{Tier: Namespaces, Workspace: "/"})
			return err
		}},
		{"unknown tier", func(b *Beginning) error {
			h := newHost(t)
			h.policy.Tier = "seatbelt"
			_, err := b.Start(t.Context(), &h.policy)
			return err
		}},
		{"no such command", func(b *Beginning) error {
			h := newHost(t)
			b.Command.Args, b.Command.Env = []string{"/no/such/command"}, h.env
			_, err := b.Start(t.Context(), &h.policy)
			return err
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			// Earlier sandboxes may still be taken apart.
			for deadline := time.Now().Add(5 * time.Second); children(t) > 0 && time.Now().Before(deadline); time.Sleep(leavingDelay) {
			}
			before := children(t)
			b := Begin(&Command{Stdin: in, Stdout: &bytes.Buffer{}})
			if testTier() == Namespaces {
				if err := b.head.up(); err != nil {
					t.Fatal(err)
				}
				if children(t) <= before {
					t.Error("nothing was begun")
				}
			}
			err := end.do(b)
			if failed := err != nil; failed == (end.name == "close") {
				t.Errorf("got %v", err)
			}
			b.Close()
			if after := children(t); after != before {
				t.Errorf("%d processes more than before", after-before)
			}
			if at, err := in.Seek(0, io.SeekCurrent); err != nil || at != 0 {
				t.Errorf("the input was read to %d, %v", at, err)
			}
		})
	}
}

// A sandbox that was begun is like any other.
func TestBegin(t *testing.T) {
	h := newHost(t)
	var out lockedBuffer
	b := Begin(&Command{Stdin: fileWith(t, "input"), Stdout: &out})
	b.Command.Args, b.Command.Env = []string{"sh", "-c", "cat; exit 3"}, h.env
	p, err := b.Start(t.Context(), &h.policy)
	if err != nil {
		t.Fatal(err)
	}
	b.Close() // it is the process's by now
	if st, err := p.Wait(); err != nil || st.Code != 3 || out.String() != "input" {
		t.Errorf("%+v, %v, %q", st, err, out.String())
	}
}

func fileWith(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// children counts the first processes, and those on the way to them, that this process has started.
func children(t *testing.T) int {
	t.Helper()
	n := 0
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that ended
		}
		for _, pid := range strings.Fields(string(data)) {
			// What was started has no arguments any more, and what was not yet has no other name.
			if name, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil && (string(name) == first.Name+"\n" || string(name) == "exe\n") {
				n++
			}
		}
	}
	return n
}
