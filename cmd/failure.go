package cmd

import (
	"errors"
	"os"
	"strings"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// explains is the check of doctor, or the group of them, that looks into failures of a kind;
// "" where there is nothing to look into: the command line was wrong, or somebody stopped it.
func explains(code fault.Code) string {
	switch code {
	case fault.KeyMissing:
		return config.CheckKeyID
	case fault.KeyRejected:
		return "key.accepted"
	case fault.ModeUnavailable:
		return "modes"
	case fault.ServiceUnreachable:
		return "service"
	case fault.BootstrapFailed:
		return "amp"
	case fault.SandboxUnavailable:
		return "sandbox"
	case fault.AmpCrashed, fault.TurnFailed, fault.Timeout:
		return session.CheckLastID
	case fault.SessionNotFound:
		return "sessions.store"
	case fault.SessionBusy:
		return "sessions.locks"
	case fault.Internal:
		return "config"
	}
	return ""
}

const looksInto = "` looks into it"

// explainedBy gives an error a hint that names the check of doctor that looks into it. To a slip on
// the command line doctor, which is not given it, could say nothing.
func (a *app) explainedBy(err error, id string) error {
	if err == nil || id == "" || isSlip(err) || strings.Contains(strings.Join(fault.HintsOf(err), "\n"), looksInto) {
		return err
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		f = &fault.Error{Code: fault.Internal, Message: err.Error(), Err: err}
		err = f
	}
	_ = f.Hint("`sesame doctor%s --only %s%s", a.places(id), id, looksInto)
	return err
}

// isSlip tells an error about the value of a flag: these begin with its name.
func isSlip(err error) bool {
	return fault.CodeOf(err) == fault.Usage && strings.HasPrefix(err.Error(), "--")
}

// places are the flags that have a check of doctor look at the same workspace and configuration.
func (a *app) places(id string) string {
	var flags string
	if a.cd != "" && strings.HasPrefix(id, "config") {
		flags += " -C " + shellWord(a.cd)
	}
	if a.configFile != "" {
		flags += " --config " + shellWord(a.configFile)
	}
	return flags
}

// shellWord is a text as one word of a shell's command line.
func shellWord(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@%,=:", r)
	}
	if text != "" && strings.TrimFunc(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// noteFailure keeps how a turn ended for doctor. What the user typed wrong or stopped is no news to it.
func (a *app) noteFailure(err error) {
	dirs, dirsErr := a.dirs()
	if dirsErr != nil {
		return
	}
	code := fault.CodeOf(err)
	var f *session.Failure
	switch code {
	case "":
	case fault.Usage, fault.Canceled, fault.SessionNotFound, fault.SessionBusy:
		return
	default:
		r := a.report
		f = &session.Failure{
			When: a.now().UTC(), Workspace: r.Workspace, SessionID: r.SessionID, Code: string(code),
			Message: a.redactor.String(err.Error()), Check: explains(code), Stderr: r.Logs.Stderr,
		}
	}
	// Who used sesame never before gets no directories for a slip.
	if _, err := os.Stat(dirs.State); err != nil && (f == nil || code == fault.KeyMissing) {
		return
	}
	// A disk that takes nothing is no reason to fail for another one.
	_ = session.NoteFailure(dirs.State, f)
}
