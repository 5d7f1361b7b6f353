package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is read from an index is what git reads from it.
func TestIndexNamesItsRepositories(t *testing.T) {
	const one = "1111111111111111111111111111111111111111"
	for name, c := range map[string]struct {
		format string
		more   [][]string
	}{
		"version 2": {},
		"version 3": {more: [][]string{{"add", "-N", "new"}}},
		"version 4": {more: [][]string{{"update-index", "--index-version", "4"}}},
		"split":     {more: [][]string{{"update-index", "--split-index"}, {"update-index", "--add", "--cacheinfo", "160000," + one + ",z/later"}}},
		"SHA-256":   {format: "sha256"},
		"no end":    {more: [][]string{{"config", "index.skipHash", "true"}, {"update-index", "--force-write-index"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			w := h.policy.Workspace
			id := one
			if c.format == "" {
				c.format = "sha1"
			} else {
				id += strings.Repeat("1", 24)
			}
			h.write("src/project/new", "x")
			h.git(w, "init", "-q", "--object-format="+c.format)
			var info strings.Builder
			for i := range 300 { // of every length, over more than one buffer
				fmt.Fprintf(&info, "100644 %s\ta/%s%d\n", id, strings.Repeat("x", i), i)
				if i%7 == 0 {
					fmt.Fprintf(&info, "160000 %s\ta/%sl%d\n", id, strings.Repeat("x", i), i)
				}
			}
			add := exec.Command("git", "update-index", "--index-info")
			add.Dir, add.Stdin = w, strings.NewReader(info.String())
			if out, err := add.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, args := range c.more {
				h.git(w, args...)
			}
			show := exec.Command("git", "ls-files", "--stage")
			show.Dir = w
			out, err := show.Output()
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(out)) {
				if link, ok := strings.CutPrefix(line, "160000 "); ok {
					_, path, _ := strings.Cut(strings.TrimSpace(link), "\t")
					want = append(want, path)
				}
			}
			x := gitIndex{File: filepath.Join(w, ".git", "index"), Dir: w, Hash: hashSize(filepath.Join(w, ".git", "config"))}
			got, err := x.read()
			slices.Sort(want)
			slices.Sort(got.links)
			if err != nil || len(want) < 40 || !slices.Equal(slices.Compact(got.links), want) {
				t.Errorf("%v: got %d, want %d: %.200q", err, len(got.links), len(want), got.links)
			}
			// Whatever is missing or wrong is an error or less, never a crash.
			data, err := os.ReadFile(x.File)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(data); i += 1 + len(data)/500 {
				bad := slices.Clone(data)
				bad[i] ^= 0xff
				for _, broken := range [][]byte{data[:i], bad} {
					if err := os.WriteFile(x.File, broken, 0o600); err != nil {
						t.Fatal(err)
					}
					_, _ = x.read()
				}
			}
		})
	}
}

// A large index is read when it has changed, not at every start.
func TestLargeIndexIsReadOnce(t *testing.T) {
	h := newHost(t)
	h.repository()
	w := h.policy.Workspace
	var info strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&info, "100644 1111111111111111111111111111111111111111\tdir/file%d\n", i)
	}
	info.WriteString("160000 1111111111111111111111111111111111111111\tlinked\n")
	add := exec.Command("git", "update-index", "--index-info")
	add.Dir, add.Stdin = w, strings.NewReader(info.String())
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tree, err := newTree(&h.policy)
	if err != nil {
		t.Fatal(err)
	}
	x := tree.readIndex(w, filepath.Join(w, ".git"), "")
	if !tree.sweep.newIndexes || !slices.Equal(x.Links, []string{"linked"}) {
		t.Fatalf("got %+v", x)
	}
	if err := os.MkdirAll(h.policy.HomeState, 0o700); err != nil {
		t.Fatal(err)
	}
	keepIndexes(h.policy.HomeState, []gitIndex{x})
	if known := knownIndexes(h.policy.HomeState); len(known) != 0 {
		t.Errorf("one so young is kept: %+v", known)
	}
	time.Sleep(indexSettles)
	for i, want := range []bool{true, false} {
		again, err := newTree(&h.policy)
		if err != nil {
			t.Fatal(err)
		}
		x = again.readIndex(w, filepath.Join(w, ".git"), "")
		if again.sweep.newIndexes != want || !slices.Equal(x.Links, []string{"linked"}) {
			t.Errorf("%d: got %+v, read: %t", i, x, again.sweep.newIndexes)
		}
		keepIndexes(h.policy.HomeState, []gitIndex{x})
	}
}

func BenchmarkIndexOf200000Files(b *testing.B) {
	dir := b.TempDir()
	var info strings.Builder
	for i := range 200000 {
		fmt.Fprintf(&info, "100644 1111111111111111111111111111111111111111\tsome/directory/%d/file%d.txt\n", i/100, i)
	}
	for _, args := range [][]string{{"init", "-q"}, {"update-index", "--index-info"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(info.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	x := gitIndex{File: filepath.Join(dir, ".git", "index"), Dir: dir, Hash: 20}
	for b.Loop() {
		if _, err := x.read(); err != nil {
			b.Fatal(err)
		}
	}
}
