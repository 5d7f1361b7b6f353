package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// exitStatus is the status of a program that ran in the sandbox: it becomes ours,
// and nothing is said about it.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitOf is the one place where a code word becomes an exit code.
func exitOf(code fault.Code) int {
	switch code {
	case "":
		return 0
	case fault.TurnFailed, fault.Internal:
		return 1
	case fault.Usage, fault.ModeUnavailable:
		return 2
	case fault.AmpCrashed:
		return 3
	case fault.KeyMissing, fault.KeyRejected:
		return 4
	case fault.BootstrapFailed:
		return 5
	case fault.SandboxUnavailable:
		return 6
	case fault.ServiceUnreachable:
		return 7
	case fault.SessionNotFound, fault.SessionBusy:
		return 8
	case fault.Timeout:
		return 124
	case fault.Canceled:
		return 130
	}
	return 1
}

func exitCode(ctx context.Context, err error) int {
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	code := fault.CodeOf(err)
	var by signalError
	if code == fault.Canceled && errors.As(context.Cause(ctx), &by) && by.signal != os.Interrupt {
		return 143
	}
	return exitOf(code)
}

// printError shows an error and what to do about it.
func (a *app) printError(err error) {
	var status exitStatus
	if err == nil || errors.As(err, &status) {
		return
	}
	text := err.Error()
	switch fault.CodeOf(err) {
	case fault.Usage, fault.SessionNotFound: // they may be about the workspace or a name in it; others have several lines to say
		text = onOneLine(text)
	}
	a.line("sesame", text)
	for _, hint := range fault.HintsOf(err) {
		a.line("hint", hint)
	}
}

// warn says something that does not stop the command. --quiet does not silence it.
func (a *app) warn(format string, args ...any) {
	a.line("sesame: warning", fmt.Sprintf(format, args...))
}

// say tells how it goes; --quiet silences it.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		a.line("sesame", onOneLine(fmt.Sprintf(format, args...)))
	}
}

func (a *app) line(label, text string) {
	// stderr is the last resort: there is nowhere to report its failure to.
	_, _ = io.WriteString(a.io.ErrOut, label+": "+printable(text)+"\n")
}

// onOneLine keeps a name from making a line of its own, which would look like sesame's or be a command to what reads its
// output, as `::error::` is in CI.
func onOneLine(s string) string { return printable(strings.ReplaceAll(s, "\n", `\x0a`)) }

// printable keeps what strangers wrote (file names, a service's messages) from
// talking to the terminal.
func printable(s string) string {
	var b strings.Builder
	for _, r := range strings.TrimRight(s, "\n") {
		switch {
		case r == '\n' || r == '\t' || !unicode.IsControl(r) && r != '\u2028' && r != '\u202e':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "\\x%02x", r)
		}
	}
	return b.String()
}
