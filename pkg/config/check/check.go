// Package check is what the checks of `sesame doctor` are made of and what runs them.
// A check lives in the package of what it looks at, changes nothing, and says what to do.
package check

import (
	"context"
	"fmt"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Status is how a check ended.
type Status string

// The statuses. Only Fail means that something does not work.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Result is what a check found. Its texts are for people and hold no secrets.
type Result struct {
	Status  Status
	Code    fault.Code // of a failure: what a command would fail with
	Summary string     // one line
	Details []string   // what it rests on, a line each
	Remedy  []string   // what to do, a line each; what is to be typed stands in backquotes
	Fix     *Fix       `json:"-"` // a remedy that is safe to carry out unasked; nil for none
}

// Fix is a remedy that loses nothing and can be done again.
type Fix struct {
	Does string // in a line, as something done: "made /x"
	Do   func(context.Context) error
}

// Check looks at one thing.
type Check struct {
	ID    string   // "group.thing", stable: programs and --only go by it
	Group string   // for the screen
	Title string   // likewise
	Needs []string // ids of checks without whose success this one would say nothing
	With  string   // id of one of Needs: it begins when that one does, and what it finds counts only if all are met
	Run   func(context.Context) Result
	Limit time.Duration // what it may take; 0 is what Limits say
}

// Outcome is a check and how it went.
type Outcome struct {
	Check
	Result
	Duration time.Duration
}

// Passed is the Result of a thing that is as it should be.
func Passed(format string, args ...any) Result {
	return Result{Status: OK, Summary: fmt.Sprintf(format, args...)}
}

// Warned is the Result of a thing that works and deserves a look.
func Warned(format string, args ...any) Result {
	return Result{Status: Warn, Summary: fmt.Sprintf(format, args...)}
}

// Skipped is the Result of a check that has nothing to look at.
func Skipped(format string, args ...any) Result {
	return Result{Status: Skip, Summary: fmt.Sprintf(format, args...)}
}

// Failed is the Result of a thing that does not work, with the error's own hints.
func Failed(err error) Result {
	return Result{Status: Fail, Code: fault.CodeOf(err), Summary: err.Error(), Remedy: fault.HintsOf(err)}
}

// Found is a Run that has its result already.
func Found(r Result) func(context.Context) Result {
	return func(context.Context) Result { return r }
}

// Hint adds lines to what to do.
func (r Result) Hint(lines ...string) Result {
	r.Remedy = append(r.Remedy, lines...)
	return r
}

// Mended says that there is a safe remedy.
func (r Result) Mended(does string, do func(context.Context) error) Result {
	r.Fix = &Fix{does, do}
	return r
}

// Worst is the worst status among outcomes, where a skipped check counts for nothing.
func Worst(outcomes []Outcome) Status {
	worst := OK
	for _, o := range outcomes {
		switch o.Status {
		case Fail:
			return Fail
		case Warn:
			worst = Warn
		}
	}
	return worst
}
