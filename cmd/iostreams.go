package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"golang.org/x/term"

	"github.com/sesame-cli/sesame/pkg/config"
)

// IOStreams are the three streams and what is known of them.
type IOStreams struct {
	In     io.Reader
	Out    io.Writer // the answer, redacted
	ErrOut io.Writer // everything else, redacted

	// The streams as they are, for a program that gets them handed on: it may need
	// a terminal, and what it writes is not sesame's.
	RawIn          io.Reader
	RawOut, RawErr io.Writer

	InTerminal, OutTerminal, ErrTerminal bool

	color      bool
	width      func() int
	readSecret func(ctx context.Context, ask func()) (string, error)
	flush      func()
}

const plainWidth = 80

func systemStreams(redactor *config.Redactor, env config.Env) *IOStreams {
	out, errOut := redactor.Writer(os.Stdout), redactor.Writer(os.Stderr)
	s := &IOStreams{
		In: os.Stdin, Out: out, ErrOut: errOut,
		RawIn: os.Stdin, RawOut: os.Stdout, RawErr: os.Stderr,
		InTerminal:  isTerminal(os.Stdin),
		OutTerminal: isTerminal(os.Stdout),
		ErrTerminal: isTerminal(os.Stderr),
		readSecret:  func(ctx context.Context, ask func()) (string, error) { return readNoEcho(ctx, os.Stdin, ask) },
		width: func() int {
			if w, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && w > 0 {
				return w
			}
			return plainWidth
		},
		// A stream that is closed by now is nobody's to hear of.
		flush: func() { _, _ = out.Flush(), errOut.Flush() },
	}
	s.color = s.ErrTerminal && env.Get("NO_COLOR") == "" && env.Get("TERM") != "dumb"
	return s
}

// Test makes streams of buffers, none of them a terminal.
func Test() (s *IOStreams, in, out, errOut *bytes.Buffer) {
	in, out, errOut = &bytes.Buffer{}, &bytes.Buffer{}, &bytes.Buffer{}
	return &IOStreams{
		In: in, Out: out, ErrOut: errOut,
		RawIn: in, RawOut: out, RawErr: errOut,
		width: func() int { return plainWidth },
		readSecret: func(context.Context, func()) (string, error) {
			return "", errors.New("no terminal")
		},
		flush: func() {},
	}, in, out, errOut
}

// CanPrompt tells whether a question would reach somebody who can answer it.
func (s *IOStreams) CanPrompt() bool { return s.InTerminal && s.ErrTerminal }

// Color tells whether stderr takes colour.
func (s *IOStreams) Color() bool { return s.color }

// Width is that of stderr's terminal in columns, 80 where it is none.
func (s *IOStreams) Width() int { return s.width() }

// Flush writes what the redactor held back.
func (s *IOStreams) Flush() { s.flush() }

// AskSecret asks for a line that is not shown while it is typed.
func (s *IOStreams) AskSecret(ctx context.Context, question string) (string, error) {
	answer, err := s.readSecret(ctx, func() {
		fmt.Fprint(s.ErrOut, question)
		s.Flush()
	})
	fmt.Fprintln(s.ErrOut)
	return answer, err
}

// keepTerminal notes how the terminal is set and returns what sets it so again: a program that
// is killed cannot leave it raw.
func (s *IOStreams) keepTerminal() (restore func()) {
	f, ok := s.RawIn.(*os.File)
	if !ok || !s.InTerminal {
		return func() {}
	}
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return func() {}
	}
	return func() { _ = term.Restore(int(f.Fd()), before) } // there is no better place to say that it failed than this terminal
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// readNoEcho reads a line without echo and leaves the terminal as it found it, also
// when the context ends first: term.ReadPassword alone would wait for the line.
// It asks once echo is off, or a fast answer would be shown.
func readNoEcho(ctx context.Context, f *os.File, ask func()) (string, error) {
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	type answer struct {
		line []byte
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		read <- answer{line, err}
	}()
	awaitChange(fd, before)
	ask()
	select {
	case <-ctx.Done():
		if err := term.Restore(fd, before); err != nil {
			return "", fmt.Errorf("restore the terminal: %w", err)
		}
		return "", ctx.Err()
	case a := <-read:
		// No line at all (ctrl-d) is an empty answer, which is the caller's to refuse.
		if errors.Is(a.err, io.EOF) {
			return "", nil
		}
		return string(a.line), a.err
	}
}

// awaitChange waits for the reader to have switched echo off; not for long, since
// it may have been off before.
func awaitChange(fd int, before *term.State) {
	for range 200 {
		if now, err := term.GetState(fd); err != nil || !reflect.DeepEqual(now, before) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
