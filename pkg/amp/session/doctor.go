package session

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const sessionsGroup = "sessions"

// CheckLastID is the check of the last turn, with which doctor begins where it failed.
const CheckLastID = "sessions.last"

// LikelyCause begins the line of what to do about the last turn that names a cause.
const LikelyCause = "the likely cause: "

const (
	stderrTail  = 4 << 10 // bytes from the end of Amp's stderr
	stderrLines = 5
)

// Checks look at the sessions of the store.
func (s *Store) Checks(needs ...string) []check.Check {
	return []check.Check{
		{ID: "sessions.store", Group: sessionsGroup, Title: "kept", Needs: needs, Run: func(context.Context) check.Result { return s.storeResult() }},
		{
			ID: "sessions.locks", Group: sessionsGroup, Title: "in use", Needs: []string{"sessions.store"},
			Run: func(context.Context) check.Result { return s.locksResult() },
		},
	}
}

func (s *Store) storeResult() check.Result {
	entries, broken, err := s.List()
	switch {
	case err != nil:
		return check.Failed(err).Hint(fmt.Sprintf("let %s be a directory that you may read and write", s.dir))
	case len(broken) > 0:
		r := check.Warned("%d of %d sessions cannot be read", len(broken), len(broken)+len(entries)).
			Hint(fmt.Sprintf("look at it, and remove it with `sesame sessions rm %s`", broken[0].ID))
		for _, b := range broken {
			r.Details = append(r.Details, fmt.Sprintf("%s: %v", b.ID, b.Err))
		}
		return r
	}
	return check.Passed("%d", len(entries))
}

func (s *Store) locksResult() check.Result {
	entries, _, err := s.List()
	if err != nil {
		return check.Failed(err)
	}
	var used, cut []string
	for _, e := range entries {
		switch {
		case e.InUse:
			used = append(used, e.ID)
		case e.Status() == Running || e.Status() == Interrupted:
			cut = append(cut, e.ID)
		}
	}
	r := check.Passed("none")
	if len(used) > 0 {
		r = check.Passed("%s", strings.Join(used, ", "))
	}
	if len(cut) > 0 {
		r.Details = append(r.Details, "cut off in their last turn, and can be continued: "+strings.Join(cut, ", "))
	}
	return r
}

// CheckLast tells how the last turn failed, if it did.
func CheckLast(state string, now time.Time) check.Check {
	return check.Check{
		ID: CheckLastID, Group: "the last turn", Title: "last turn",
		Run: func(context.Context) check.Result { return lastResult(state, now) },
	}
}

func lastResult(state string, now time.Time) check.Result {
	f, err := LastFailure(state)
	switch {
	case err != nil:
		return check.Warned("how the last turn ended cannot be read: %v", err)
	case f == nil:
		return check.Passed("none failed since one ended well")
	}
	r := check.Warned("failed %s ago in %s: %s", now.Sub(f.When).Round(time.Second), f.Workspace, f.Message)
	if f.Check != "" && f.Check != CheckLastID {
		r = r.Hint(LikelyCause + "see " + f.Check + " below, or `sesame doctor --only " + f.Check + "`")
	}
	if f.Code == string(fault.Timeout) {
		r = r.Hint(LikelyCause + "the turn wanted more time: allow it with `--timeout`")
	}
	if lines := tailOf(f.Stderr); len(lines) > 0 {
		for _, line := range lines {
			r.Details = append(r.Details, "stderr: "+line)
		}
		r = r.Hint("Amp's last words: "+lines[len(lines)-1], "all of them: `sesame logs "+f.SessionID+"`")
	}
	return r
}

// tailOf are the last lines of a log.
func tailOf(path string) []string {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > stderrTail {
		if _, err := f.Seek(-stderrTail, io.SeekEnd); err != nil {
			return nil
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, stderrTail))
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-stderrLines):]
}
