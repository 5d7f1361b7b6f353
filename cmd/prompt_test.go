package cmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// untouchable fails the test when it is read.
type untouchable struct{ t *testing.T }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("standard input was touched")
	return 0, io.EOF
}

func TestPrompt(t *testing.T) {
	const noStdin = "\x00none"
	tests := []struct {
		name, file, stdin string
		args              []string
		terminal          bool
		want, wantErr     string
	}{
		{name: "arguments", args: []string{"fix", "it"}, stdin: noStdin, want: "fix it"},
		{name: "a dash in front", args: []string{"-fix"}, stdin: noStdin, want: "-fix"},
		{name: "stdin", stdin: "from stdin\n", want: "from stdin"},
		{name: "stdin with a byte order mark", stdin: "\ufeffhi", want: "hi"},
		{name: "appended", args: []string{"review", "this", "-"}, stdin: "diff --git\n", want: "review this\n\ndiff --git"},
		{name: "appended nothing", args: []string{"review", "-"}, stdin: "\n", want: "review"},
		{name: "only a dash", args: []string{"-"}, stdin: "x", want: "x"},
		{name: "only a dash at a terminal", args: []string{"-"}, stdin: "x", terminal: true, want: "x"},
		{name: "a dash in the middle is a word", args: []string{"a", "-", "b"}, stdin: noStdin, want: "a - b"},
		{name: "file", file: "line 1\nline 2\n", stdin: noStdin, want: "line 1\nline 2"},
		{name: "file and stdin", file: "review", args: []string{"-"}, stdin: "diff", want: "review\n\ndiff"},
		{name: "10 MB", stdin: strings.Repeat("x", 10<<20), want: strings.Repeat("x", 10<<20)},
		{name: "inner space stays", args: []string{"  indented\n\n  text"}, stdin: noStdin, want: "  indented\n\n  text"},

		{name: "file and arguments", file: "x", args: []string{"y"}, stdin: noStdin, wantErr: "give one of them"},
		{name: "nothing at a terminal", stdin: noStdin, terminal: true, wantErr: "no prompt"},
		{name: "empty stdin", stdin: "", wantErr: "the prompt is empty"},
		{name: "white space", args: []string{" ", "\t\n"}, stdin: noStdin, wantErr: "the prompt is empty"},
		{name: "empty argument does not fall back on stdin", args: []string{""}, stdin: noStdin, wantErr: "the prompt is empty"},
		{name: "NUL", stdin: "ab\x00c", wantErr: "a NUL byte in it (at byte 2)"},
		{name: "invalid UTF-8", stdin: "\u00e4\xff", wantErr: "not valid UTF-8 (at byte 2)"},
		{name: "Latin-1", args: []string{"gr\xfc\xdfe"}, stdin: noStdin, wantErr: "not valid UTF-8 (at byte 2)"},
		{name: "too long", stdin: strings.Repeat("x", maxPrompt+1), wantErr: "longer than 32 MiB"},
		{name: "too long together", args: []string{"y", "-"}, stdin: strings.Repeat("x", maxPrompt), wantErr: "longer than 32 MiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.io.InTerminal = test.terminal
			w.io.In = strings.NewReader(test.stdin)
			if test.stdin == noStdin {
				w.io.In = untouchable{t}
			}
			file := ""
			if test.file != "" {
				file = "prompt.txt"
				w.write(t, file, test.file)
			}
			got, err := w.prompt(t.Context(), test.args, file)
			if test.wantErr != "" {
				if fault.CodeOf(err) != fault.Usage || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("got %.80q, %v", got, err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %.80q, %v", got, err)
			}
		})
	}
}

func TestPromptFileUnreadable(t *testing.T) {
	w := newWorld(t)
	w.io.In = untouchable{t}
	for _, file := range []string{"missing.txt", ".", "/nonexistent/x"} {
		if _, err := w.prompt(t.Context(), nil, file); fault.CodeOf(err) != fault.Usage || !strings.Contains(err.Error(), "--prompt-file") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

func TestPromptStdinBroken(t *testing.T) {
	w := newWorld(t)
	w.io.In = io.MultiReader(bytes.NewReader([]byte("half a prompt")), brokenReader{})
	if got, err := w.prompt(t.Context(), nil, ""); fault.CodeOf(err) != fault.Usage {
		t.Errorf("got %q, %v", got, err)
	}
}

// Waiting for standard input ends with the context.
func TestPromptCanceled(t *testing.T) {
	w := newWorld(t)
	r, end := io.Pipe()
	defer end.Close()
	w.io.In = r
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(signalError{})
	if _, err := w.prompt(ctx, nil, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
