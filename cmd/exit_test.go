package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestExitCodes(t *testing.T) {
	want := map[fault.Code]int{
		"": 0, fault.TurnFailed: 1, fault.Internal: 1, fault.Usage: 2, fault.ModeUnavailable: 2, fault.AmpCrashed: 3,
		fault.KeyMissing: 4, fault.KeyRejected: 4, fault.BootstrapFailed: 5, fault.SandboxUnavailable: 6,
		fault.ServiceUnreachable: 7, fault.SessionNotFound: 8, fault.SessionBusy: 8, fault.Timeout: 124, fault.Canceled: 130,
	}
	for code, exit := range want {
		var err error
		if code != "" {
			err = fmt.Errorf("around: %w", fault.New(code, "x"))
		}
		if got := exitCode(t.Context(), err); got != exit {
			t.Errorf("%s: exit %d, want %d", code, got, exit)
		}
	}
	if got := exitCode(t.Context(), errors.New("plain")); got != 1 {
		t.Errorf("plain error: exit %d", got)
	}
	if got := exitCode(t.Context(), fmt.Errorf("around: %w", exitStatus(42))); got != 42 {
		t.Errorf("a command's 42: exit %d", got)
	}
}

func TestExitOnSignal(t *testing.T) {
	for sig, want := range map[os.Signal]int{os.Interrupt: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 143} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(signalError{sig})
		err := canceled(ctx, fmt.Errorf("while waiting: %w", ctx.Err()))
		if got := exitCode(ctx, err); got != want || fault.CodeOf(err) != fault.Canceled {
			t.Errorf("%v: exit %d, %v", sig, got, err)
		}
		// What went wrong for a reason of its own keeps its code.
		own := fault.New(fault.BootstrapFailed, "x: %w", ctx.Err())
		if got := exitCode(ctx, canceled(ctx, own)); got != 5 {
			t.Errorf("%v: exit %d", sig, got)
		}
	}
}

func TestErrorForPeople(t *testing.T) {
	w := newWorld(t)
	inner := fault.New(fault.KeyRejected, "the service said \x1b[31mno\x1b[0m to "+goodKey).Hint("hint 1").Hint("hint 2")
	w.printError(fmt.Errorf("nothing stored: %w", inner))
	want := "sesame: nothing stored: the service said \\x1b[31mno\\x1b[0m to " + goodKey + "\nhint: hint 1\nhint: hint 2\n"
	if got := w.errOut.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	w.errOut.Reset()
	w.printError(exitStatus(3))
	w.printError(nil)
	if w.errOut.Len() > 0 {
		t.Errorf("said %q", w.errOut)
	}
}

func TestManualKnowsEveryCommandAndCode(t *testing.T) {
	w := newWorld(t)
	if code := w.run(t, "man"); code != 0 {
		t.Fatalf("exit %d", code)
	}
	for _, want := range []string{".SS run ", ".SS amp install", ".SS sandbox", `\-\-allow\-host HOST[:PORT]`, ".B 130, 143\n", ".B 124\n"} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("no %q in it", want)
		}
	}
}
