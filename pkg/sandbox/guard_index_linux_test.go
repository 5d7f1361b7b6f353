package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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
			got, err := newIndexReader().read(x)
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
					_, _ = newIndexReader().read(x)
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
	if err := os.MkdirAll(h.policy.guardDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	keepIndexes(h.policy.guardDir(), []gitIndex{x})
	if known := knownIndexes(h.policy.guardDir()); len(known) != 0 {
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
		keepIndexes(h.policy.guardDir(), []gitIndex{x})
	}
}

// An index without end, which takes no room on the disk, keeps neither the end nor the next start from coming.
func TestEndlessIndex(t *testing.T) {
	for name, script := range map[string]string{
		"entries":         `printf 'DIRC\0\0\0\2\377\377\377\377' > .git/index; truncate -s 300G .git/index`,
		"entries, less":   `printf 'DIRC\0\0\0\2\377\377\377\377' > .git/index; truncate -s 3G .git/index`,
		"extensions":      `printf 'DIRC\0\0\0\2\0\0\0\0' > .git/index; for i in $(seq 1000); do printf 'AAAA\0\0\0\0'; done >> .git/index`,
		"an extension":    `printf 'DIRC\0\0\0\2\0\0\0\0AAAA\377\377\377\377' > .git/index; truncate -s 300G .git/index`,
		"name":            python(`open(".git/index", "wb").write(b"DIRC\0\0\0\2\0\0\0\1" + b"\0" * 24 + b"\0\0\x81\xa4" + b"\0" * 32 + b"\x0f\xff" + b"x" * 300000)`),
		"names":           python(`open(".git/index", "wb").write(b"DIRC\0\0\0\2\0\x10\0\0" + (b"\0" * 24 + b"\0\0\xe0\0" + b"\0" * 32 + b"\0\1x\0") * 300000)`),
		"shared, entries": `printf 'DIRC\0\0\0\2\0\0\0\0link\0\0\0\24' > .git/index; printf 'xxxxxxxxxxxxxxxxxxxxyyyyyyyyyyyyyyyyyyyy' >> .git/index; f=.git/sharedindex.$(printf '78%.0s' $(seq 20)); printf 'DIRC\0\0\0\2\377\377\377\377' > $f; truncate -s 300G $f`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.repository()
			var told []string
			h.policy.Notice = func(s string) { told = append(told, s) }
			begin := time.Now()
			h.sh(script)
			h.sh("true")
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			index := filepath.Join(h.policy.Workspace, ".git", "index")
			if _, err := os.Lstat(index); err == nil || !strings.Contains(strings.Join(told, "\n"), ".git/index") {
				t.Errorf("it is still there (%v), or nothing is told: %q", err, told)
			}
			h.git(h.policy.Workspace, "reset", "-q")
			h.policy.Tier = Off
			h.sh(script)
			h.policy.Tier = testTier()
			if _, err := h.start(t.Context(), io.Discard, "/bin/true"); !strings.Contains(fmt.Sprint(err), index) {
				t.Errorf("what came with the workspace: %v", err)
			}
		})
	}
}

// What an index names neither leads out of the workspace nor keeps later sandboxes from starting.
func TestIndexThatLeadsElsewhere(t *testing.T) {
	const entries = `
import struct
def index(mode, names):
    data = b"DIRC" + struct.pack(">II", 2, len(names))
    for n in names:
        e = struct.pack(">10I", 0, 0, 0, 0, 0, 0, mode, 0, 0, 0) + b"\1" * 20 + struct.pack(">H", min(len(n), 0xfff)) + n.encode() + b"\0"
        data += e + b"\0" * (-len(e) % 8)
    open(".git/index", "wb").write(data + b"\0" * 20)
`
	for name, c := range map[string]struct {
		script string
		moved  bool // the index is
	}{
		"directories over links": {"for i in $(seq 500); do ln -s / l$i; done; " + python(entries+`index(0o040000, ["l%d/usr" % i for i in range(1, 501)])`), true},
		"too many":               {python(entries + `index(0o160000, ["m%04d" % i for i in range(1001)])`), true},
		"a long name":            {python(entries + `index(0o160000, ["a" * 300])`), false},
		"a link to itself":       {"ln -s loop loop; " + python(entries+`index(0o160000, ["loop/x"])`), false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.repository()
			begin := time.Now()
			h.sh(c.script)
			if _, err := os.Lstat(filepath.Join(h.policy.Workspace, ".git", "index")); errors.Is(err, fs.ErrNotExist) != c.moved {
				t.Errorf("the index: %v", err)
			}
			h.sh("true")
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
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
		if _, err := newIndexReader().read(x); err != nil {
			b.Fatal(err)
		}
	}
}
