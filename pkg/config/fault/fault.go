// Package fault has the one error type that people and programs act on: it
// carries the machine word of the failure (the "code" of `-o json`, from which
// the exit code follows) and the hints that belong to it.
package fault

import (
	"errors"
	"fmt"
)

// Code is the machine word of a failure, printed as error.code by `-o json`.
type Code string

// The codes of the command-line contract.
const (
	KeyMissing         Code = "key_missing"
	KeyRejected        Code = "key_rejected"
	ModeUnavailable    Code = "mode_unavailable"
	ServiceUnreachable Code = "service_unreachable"
	BootstrapFailed    Code = "bootstrap_failed"
	SandboxUnavailable Code = "sandbox_unavailable"
	AmpCrashed         Code = "amp_crashed"
	TurnFailed         Code = "turn_failed"
	Timeout            Code = "timeout"
	Canceled           Code = "canceled"
	SessionNotFound    Code = "session_not_found"
	SessionBusy        Code = "session_busy"
	Usage              Code = "usage"
	// Internal is what no other code fits: a full disk, an unreadable state directory.
	Internal Code = "internal"
)

// Error is a failure with its code and what to do about it. Message and Hints
// are for people: lower case, no full stop, no secrets.
type Error struct {
	Code    Code
	Message string
	Hints   []string
	Err     error // the cause, already named in Message; or nil
}

// Error returns the message, which names the cause where there is one.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an Error; an argument of the verb %w becomes the cause.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Hint adds a line of advice and returns e.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Hints = append(e.Hints, fmt.Sprintf(format, args...))
	return e
}

// CodeOf returns the code of the outermost Error in err's chain, Internal where there is none, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// HintsOf returns the hints of every Error in err's chain, outermost first.
func HintsOf(err error) []string {
	var hints []string
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			break
		}
		hints = append(hints, e.Hints...)
		err = e.Err
	}
	return hints
}
