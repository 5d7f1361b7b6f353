package sandbox

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// turn is the time of a sandbox, as the workspace's file system has it. Nobody looks into everything that a sandbox can write: the inside of
// git directories, its home. What it makes there a later one may move to where it matters, and only times tell then whose it is.
type turn struct {
	since, until int64
	places       []string // where it could write
	merged       bool     // it stands for several, and there were times between them
}

// turnsFile, in Policy.GuardState, has the turns of all workspaces, one after the other: what one turn has made in a repository another one
// may find there from a linked worktree, or from a workspace around its own.
const turnsFile = "turns"

// mostTurns in bytes is how long that may be. Then the older half of the turns in the same places counts as one long turn, and those are
// forgotten whose places are gone, and as many of the oldest as must be.
const mostTurns = 256 << 10

// waitForTurns is how long a sandbox waits for others to write there.
const waitForTurns = time.Second

// noteTurn keeps when this turn was.
func (l *look) noteTurn(until int64) error {
	if l.policy.GuardState == "" {
		return nil
	}
	f, err := openTurns(l.policy.GuardState)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(turn{since: l.since, until: until, places: l.plan.places()}.encode())
	if info, again := f.Stat(); err == nil && again == nil && info.Size() > mostTurns {
		err = shortenTurns(l.policy.GuardState, f)
	}
	return err
}

// openTurns opens the file of turns for writing at its end, which nobody else does until it is closed.
func openTurns(state string) (*os.File, error) {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		f, err := os.OpenFile(filepath.Join(state, turnsFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return f, nil //nolint:nilerr // files cannot be locked here: a turn may be lost that another one writes at the same time
		}
		opened, why := f.Stat()
		now, again := os.Stat(f.Name())
		shortened := errors.Join(why, again) != nil || !os.SameFile(opened, now)
		if err == nil && !shortened || time.Since(begun) > waitForTurns {
			return f, nil
		}
		f.Close()
	}
}

// encode is an item of notes for the times and one for each place, all with a NUL before them.
func (t turn) encode() []byte {
	n := notes{""}
	n.addNumbers('S', t.since, t.until, number(t.merged))
	for _, place := range t.places {
		n.add('P', place)
	}
	return n.encode()
}

// top is the workspace of it.
func (t turn) top() string {
	if len(t.places) == 0 {
		return ""
	}
	return t.places[0]
}

func (t turn) couldWrite(path string) bool {
	return slices.ContainsFunc(t.places, func(place string) bool { return within(path, place) })
}

func readTurns(state string) (turns []turn, err error) {
	data, err := os.ReadFile(filepath.Join(state, turnsFile))
	for item := range bytes.SplitSeq(data, []byte{0}) {
		switch {
		case len(item) == 0:
		case item[0] == 'S':
			var t turn
			var merged int64
			numbersIn(string(item[1:]), &t.since, &t.until, &merged)
			t.merged = merged != 0
			turns = append(turns, t)
		case item[0] == 'P' && len(turns) > 0:
			last := &turns[len(turns)-1]
			last.places = append(last.places, string(item[1:]))
		}
	}
	return turns, err
}

// shortenTurns makes a shorter file of turns in the place of one that is locked.
func shortenTurns(state string, locked *os.File) error {
	turns, err := readTurns(state)
	if err != nil {
		return err
	}
	half := len(turns) / 2
	long := map[string]*turn{}
	var data []byte
	for i, t := range turns {
		if i >= half {
			data = append(data, t.encode()...)
			continue
		}
		where := strings.Join(t.places, "\x00")
		if one := long[where]; one == nil {
			long[where] = &turns[i]
		} else {
			one.since, one.until, one.merged = min(one.since, t.since), max(one.until, t.until), true
		}
	}
	for _, t := range slices.Backward(turns[:half]) {
		where := strings.Join(t.places, "\x00")
		one := long[where]
		delete(long, where)
		if one == nil || !slices.ContainsFunc(one.places, isDir) {
			continue
		}
		if text := one.encode(); len(text)+len(data) < mostTurns*3/4 {
			data = append(text, data...)
		}
	}
	return replaceFile(locked.Name(), data)
}

// readTurns reads once the turns of sandboxes that could write in the same places.
func (l *look) readTurns() []turn {
	if l.turns == nil && l.policy.GuardState != "" {
		turns, err := readTurns(l.policy.GuardState)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.errs = append(l.errs, err)
		}
		mine := l.plan.places()
		l.turns = slices.DeleteFunc(turns, func(t turn) bool { return len(inCommon(mine, t.places)) == 0 })
		l.turns = append(l.turns, turn{since: 1}) // no time at all: it was asked
	}
	return l.turns
}

// inOtherTurn tells whether something of what is kept is of the time of a turn that could write there.
func (l *look) inOtherTurn(k kept) bool {
	return slices.ContainsFunc(l.readTurns(), func(t turn) bool {
		return !t.merged && t.couldWrite(k.Path) && slices.ContainsFunc(k.Files, func(f keptFile) bool { return f.ID.Changed >= t.since && f.ID.Changed <= t.until })
	})
}

// byEarlierTurn tells whether a change at a path that nobody has seen is of the time of a turn before this one. That may have hidden it where nobody
// looks if this turn has brought it; what was here before this turn an earlier one can have left only where it could write, and there somebody
// looked at its end, whose memory of it may be gone with the workspace's.
func (l *look) byEarlierTurn(path string, when int64, came arrival) bool {
	if came == brought && slices.ContainsFunc(l.others, func(o other) bool { return when >= o.since }) {
		return true // the turn of who runs is not over
	}
	return slices.ContainsFunc(l.readTurns(), func(t turn) bool {
		return when >= t.since && when <= t.until && (came == brought || !t.merged && t.couldWrite(path) && l.elsewhere().tops[t.top()])
	})
}
