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

// explainedBy gives an error a hint that names the check of doctor that looks into it.
func explainedBy(err error, id string) error {
	if err == nil || id == "" || strings.Contains(strings.Join(fault.HintsOf(err), "\n"), "doctor --only") {
		return err
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		f = &fault.Error{Code: fault.Internal, Message: err.Error(), Err: err}
		err = f
	}
	_ = f.Hint("`sesame doctor --only %s` looks into it", id)
	return err
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
