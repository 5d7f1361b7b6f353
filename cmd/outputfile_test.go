package cmd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config"
)

func TestOutputFile(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "bashrc")
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(filepath.Join(work, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside, []byte("original"), 0o644); err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	path := filepath.Join(work, "sub", "answer")
	f, err := openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	// What a hostile turn would do now.
	if err := os.Symlink(outside, path); err != nil {
		t.Fatal(err)
	}
	if err := f.write("answer\n"); err != nil {
		t.Fatal(err)
	}
	if got := read(outside); got != "original" {
		t.Errorf("a link that the turn made was followed: %q", got)
	}
	if got := read(path); got != "answer\n" {
		t.Errorf("the answer is %q", got)
	}

	// A link that was there before is the user's own.
	link := filepath.Join(work, "link")
	if err := os.Symlink(filepath.Join(dir, "real"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "real"), []byte("long text of before"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := openOutput(link)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.write("x"); err != nil {
		t.Fatal(err)
	}
	if got := read(filepath.Join(dir, "real")); got != "x" {
		t.Errorf("through the user's link: %q", got)
	}

	if _, err := openOutput(work); err == nil {
		t.Error("a directory is taken for a file")
	}
	if _, err := openOutput(filepath.Join(work, "none", "x")); err == nil {
		t.Error("a missing directory is taken")
	}
	null, err := openOutput(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.close()
	if err := null.write("x"); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("%s became a file", os.DevNull)
	}
}

// brokenWriter is a standard output that nobody reads any more.
type brokenWriter func()

func (b brokenWriter) Write([]byte) (int, error) { b(); return 0, os.ErrClosed }

// The file has the answer before standard output is written to: a write there may be the last that sesame does.
func TestOutputFileComesFirst(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.cwd, "answer")
	file, err := openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.close()
	var had []byte
	w.io.Out = brokenWriter(func() { had, _ = os.ReadFile(path) })
	w.output = config.Text
	if err := (&turn{app: w.app}).answer("the answer", file); err == nil {
		t.Error("no error")
	}
	if string(had) != "the answer\n" {
		t.Errorf("had %q", had)
	}
}
