package cmd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

const megabyte = 1_000_000

func TestFetchProgressLines(t *testing.T) {
	w := newWorld(t)
	p := &fetchProgress{app: w.app}
	e := p.hooks()
	e.Started(bootstrap.Started{Version: newAmp, Source: "npm", URL: "https://x.example/amp.tgz", Size: 40 * megabyte})
	for n := int64(0); n <= 40*megabyte; n += megabyte / 2 {
		e.Progress(n)
	}
	e.Done(bootstrap.Binary{Version: newAmp, Path: "/c/amp"})
	want := "sesame: fetching amp " + newAmp + " from npm (40.0 MB)\n"
	for i := 10; i < 100; i += 10 {
		want += fmt.Sprintf("sesame: fetching amp: %d %% of 40.0 MB\n", i)
	}
	want += "sesame: amp " + newAmp + " is in /c/amp\n"
	if got := w.errOut.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	// Where the size is not known, the bytes are told; another source begins anew.
	w.errOut.Reset()
	for range 2 {
		e.Started(bootstrap.Started{Version: newAmp, Source: "static", Size: -1})
		for n := int64(0); n <= 25<<20; n += 1 << 20 {
			e.Progress(n)
		}
		e.Failed("static", errors.New("cut off"))
	}
	once := "sesame: fetching amp " + newAmp + " from static\nsesame: fetching amp: 10.5 MB\nsesame: fetching amp: 21.0 MB\n"
	if got := w.errOut.String(); got != once+once {
		t.Errorf("got\n%s", got)
	}

	w.errOut.Reset()
	e.Waiting(newAmp)
	if got := w.errOut.String(); got != "sesame: another process is fetching amp "+newAmp+": waiting for it\n" {
		t.Errorf("got %q", got)
	}

	w.errOut.Reset()
	w.quiet = true
	e.Started(bootstrap.Started{Version: newAmp, Source: "static", Size: megabyte})
	e.Progress(megabyte / 2)
	e.Waiting(newAmp)
	e.Done(bootstrap.Binary{})
	e.Warning("look out")
	if got := w.errOut.String(); got != "sesame: warning: look out\n" {
		t.Errorf("with --quiet: %q", got)
	}
}

func TestFetchProgressBar(t *testing.T) {
	w := newWorld(t)
	w.io.ErrTerminal = true
	p := &fetchProgress{app: w.app}
	e := p.hooks()
	// take is what was shown since the last time.
	take := func() string {
		defer w.errOut.Reset()
		return w.errOut.String()
	}
	e.Started(bootstrap.Started{Version: newAmp, Source: "static", Size: 40 * megabyte})
	e.Progress(20 * megabyte)
	bar := take()
	wantIn(t, bar, "\rfetching amp  50% |", "20/40 MB")
	if strings.Contains(bar, "\n") {
		t.Errorf("more than one line: %q", bar)
	}
	if line := strings.NewReplacer("\r", "", "\x1b[0K", "").Replace(bar); utf8.RuneCountInString(line) > plainWidth {
		t.Errorf("more than %d columns: %q", plainWidth, line)
	}

	// A warning gets a line of its own.
	e.Warning("look out")
	if got := take(); got != "\x1b[2K\rsesame: warning: look out\n" {
		t.Errorf("got %q", got)
	}

	// Another source takes over: the bar begins again.
	e.Failed("static", errors.New("cut off"))
	if got := take(); got != "\x1b[2K\r" {
		t.Errorf("got %q", got)
	}
	e.Started(bootstrap.Started{Version: newAmp, Source: "npm", Size: 10 * megabyte})
	e.Progress(1 * megabyte)
	wantIn(t, take(), "  10% |", "1.0/10 MB")
	e.Done(bootstrap.Binary{Version: newAmp, Path: "/c/amp"})
	if got := take(); got != "\x1b[2K\rsesame: amp "+newAmp+" is in /c/amp\n" {
		t.Errorf("got %q", got)
	}

	// Of unknown size, and given up in the middle.
	e.Started(bootstrap.Started{Version: newAmp, Source: "npm", Size: -1})
	e.Progress(3 * megabyte)
	wantIn(t, take(), "fetching amp", "3.0 MB")
	p.end()
	if got := take(); got != "\x1b[2K\r" {
		t.Errorf("got %q", got)
	}
	p.end()
	if got := take(); got != "" {
		t.Errorf("ended twice: %q", got)
	}

	for name, prepare := range map[string]func(){
		"quiet": func() { w.quiet = true },
		"dumb":  func() { w.quiet, w.env["TERM"] = false, "dumb" },
	} {
		prepare()
		e.Started(bootstrap.Started{Version: newAmp, Source: "npm", Size: 10 * megabyte})
		e.Progress(5 * megabyte)
		if got := take(); strings.ContainsAny(got, "\r\x1b") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 42_190_000: "42.2 MB", 3e12: "3.0 TB", 4e15: "4000.0 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
