package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// change is something that was put right when a sandbox had ended.
type change struct {
	what  changeKind
	path  string
	to    string   // where that is now which the sandbox left; "" where it is nowhere
	taken []string // settings
	// A program of the host had opened it to the sandbox, and may be the one who did it.
	uncovered bool
}

type changeKind int

const (
	appeared changeKind = iota
	changed             // and could not be put back
	restored            // it was changed, and is as it was before
	remade              // it was removed, and is there again
	disarmed            // settings were taken out
)

// inTurn tells whether a change is of the time that is looked at.
func (l *look) inTurn(when int64) bool {
	return when >= l.since && (l.until == 0 || when <= l.until)
}

// bySandbox tells it of a change at a path; while the sandbox runs others of that place have their time, too. They put it right themselves.
func (l *look) bySandbox(path string, when int64) bool {
	return l.inTurn(when) || !l.treat && l.others.mayHave(path, when)
}

// settled is an id that shows whether a file of what is kept is changed again. A sandbox that runs, this one or another, may have what it
// has touched in its memory, and change it there without a new time.
func (l *look) settled(path string, id fileID) fileID {
	if l.inTurn(id.Changed) || l.others.mayHave(path, id.Changed) {
		id.Changed = 0
	}
	return settled(id)
}

// byTurn tells whether it is of this turn's time, or of an earlier one's if nobody knows where it was until now.
func (l *look) byTurn(path string, when int64, came arrival) bool {
	return l.bySandbox(path, when) || came.unseen() && l.byEarlierTurn(path, when, came)
}

// madeByTurn tells it of what is kept.
func (l *look) madeByTurn(k kept, came arrival) bool {
	for _, f := range k.Files {
		if l.byTurn(k.Path, f.ID.Changed, came) {
			return true
		}
	}
	var st unix.Stat_t
	return !k.there() && unix.Lstat(filepath.Dir(k.Path), &st) == nil && l.bySandbox(k.Path, st.Ctim.Nano())
}

// mayBeOthers tells whether something that is there when this sandbox begins is not known to be the user's: another one that runs has changed it, or
// has put there with the directory that it is in what a turn made before.
func (l *look) mayBeOthers(k kept) bool {
	if l.others.mayHaveChanged(k) {
		return true
	}
	dir := filepath.Dir(k.Path)
	return l.others.share(k.Path) && (l.dirsBefore[dir] == birth{} || l.dirsBefore[dir] != birthOf(dir)) && l.inOtherTurn(k)
}

// theirs tells whether those may have made or removed it that still run and deal with it themselves: it is not the user's word.
func (l *look) theirs(k kept) bool {
	var st unix.Stat_t
	return l.others.mayHaveChanged(k) ||
		len(l.others) > 0 && !k.there() && unix.Lstat(filepath.Dir(k.Path), &st) == nil && l.others.mayHave(k.Path, st.Ctim.Nano())
}

// passes tells whether a path is guarded otherwise, by a mount or because it was not there, or is to be written.
func (l *look) passes(path string) bool {
	return l.plan.guards(path) || slices.ContainsFunc(l.free, func(dir string) bool { return within(path, dir) })
}

// path looks at one that programs of the host execute. git says that it is a part of a repository. It tells whether it was left
// to a later pass.
func (l *look) path(path string, came arrival, git bool) (left bool) {
	if l.judged[path] || l.passes(path) {
		return false
	}
	l.judged[path] = true
	old, there := l.keeps[path]
	if there && old.untouched() {
		l.record(old)
		return false
	}
	now, err := l.keep(path)
	if err != nil {
		l.errs = append(l.errs, err)
		return false
	}
	switch {
	case !there && !now.there():
	case there && old.same(now):
		l.record(now)
	case came != moved && !l.madeByTurn(now, came):
		if left = l.theirs(now); left {
			l.again(l.below(filepath.Dir(path)))
		} else {
			l.record(now)
		}
	default:
		if left = !l.treat; !left {
			l.deal(old, now, git, git)
		}
		l.again(l.below(filepath.Dir(path)))
	}
	return left
}

// target looks at what a guarded path leads to, and at the links on the way. It matters also while nothing is there.
func (l *look) target(path string) {
	links, path := follow(path)
	for _, link := range links {
		if within(link, l.plan.top) {
			l.path(link, known, false)
		}
	}
	if !within(path, l.plan.top) || path == l.plan.top {
		return
	}
	l.path(path, known, false)
	if _, there := l.keeps[path]; !there && !l.passes(path) {
		l.record(kept{Path: path})
	}
}

// record remembers a path as it is.
func (l *look) record(k kept) {
	if l.passes(k.Path) {
		return
	}
	for i := range k.Files {
		k.Files[i].ID = l.settled(k.Path, k.Files[i].ID)
	}
	l.keeps[k.Path] = k
	l.judged[k.Path] = true
	if k.More && l.treat {
		l.unseen = append(l.unseen, k.Path)
	}
	if !k.there() {
		l.note(l.below(k.Path), fileID{}, guarded)
	}
	for _, f := range k.Files {
		path := filepath.Join(k.Path, f.Path)
		l.note(l.below(path), f.ID, guarded)
		// Other links in a directory may lead to what is worked on.
		if f.Mode&unix.S_IFMT != unix.S_IFLNK || f.Path != "" && filepath.Base(k.Path) != "hooks" {
			continue
		}
		if filepath.Base(path) == ".git" && isDir(path) {
			continue // a repository is no content; it is found where it is
		}
		target := f.Text
		if !filepath.IsAbs(target) {
			target = filepath.Dir(path) + "/" + target // not cleaned: what is before .. may be a link
		}
		if end := resolve(target); !within(end, k.Path) && !within(k.Path, end) {
			l.target(target)
		}
	}
}

// deal puts right what the sandbox left at a path. again says that it is to be there again if it was removed.
func (l *look) deal(old, now kept, git, again bool) {
	path := now.Path
	canPutBack := l.copies.canPutBack(old)
	switch {
	case !now.there() && again && canPutBack:
		l.putBack(old, change{what: remade, path: path})
	case !now.there():
		delete(l.keeps, path)
	case !old.there() && l.judgedElsewhere(now):
		l.record(now)
	case git && l.onlyFollows(old, now): // whoever wrote it
		l.record(now)
	case canPutBack:
		if to, ok := l.takeAway(path); ok {
			l.putBack(old, change{what: restored, path: path, to: to})
		}
	case git && (filepath.Base(path) == "config" || filepath.Base(path) == "config.worktree"):
		l.tame(now)
	case git && l.harmless(now):
		l.record(now)
	default:
		c := change{what: appeared, path: path}
		if old.there() {
			c.what = changed
		}
		var ok bool
		if c.to, ok = l.takeAway(path); ok {
			delete(l.keeps, path)
			l.changes = append(l.changes, c)
			if dir := filepath.Dir(path); filepath.Base(path) == "commondir" && l.ofWorktree(dir) { // without it the worktree is none
				if err := makeFile(path, "../..\n"); err != nil {
					l.errs = append(l.errs, err)
				}
			}
		}
	}
}

// makeFile makes a file where none is.
func makeFile(path, text string) error {
	dir, err := openReal(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return writeIn(dir, filepath.Base(path), []byte(text), 0o644)
}

// onlyFollows tells it of a configuration that is kept.
func (l *look) onlyFollows(old, now kept) bool {
	if base := filepath.Base(now.Path); base != "config" && base != "config.worktree" || len(old.Files) != 1 || len(now.Files) != 1 {
		return false
	}
	was, is := old.Files[0], now.Files[0]
	before, err := l.copies.get(was.Text)
	after, again := l.copies.get(is.Text)
	return errors.Join(err, again) == nil && was.Mode == is.Mode && is.Mode&unix.S_IFMT == unix.S_IFREG && was.UID == is.UID && was.GID == is.GID && onlyFollows(before, after)
}

func (l *look) takeAway(path string) (to string, ok bool) {
	to, err := l.aside.take(path)
	if err != nil && !missing(err) {
		l.errs = append(l.errs, err)
	}
	return to, err == nil
}

func (l *look) putBack(old kept, c change) {
	err := l.copies.putBack(old)
	if missing(err) && !isReal(filepath.Dir(old.Path)) {
		delete(l.keeps, old.Path) // the place is gone by now
		if c.to != "" {
			c.what = changed
			l.changes = append(l.changes, c)
		}
		return
	}
	now, again := l.copies.keep(old.Path)
	if err = errors.Join(err, again); err != nil {
		l.errs = append(l.errs, err)
	}
	l.record(now)
	l.changes = append(l.changes, c)
}

// tame takes out of a git configuration what git would execute.
func (l *look) tame(now kept) {
	path := now.Path
	dir, err := openReal(filepath.Dir(path))
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	defer unix.Close(dir)
	data, err := readIn(dir, filepath.Base(path), maxKeptFile)
	if err != nil {
		if to, ok := l.takeAway(path); ok { // no file, or one that nobody wrote by hand
			l.changes = append(l.changes, change{what: appeared, path: path, to: to})
		}
		return
	}
	harmless, taken := harmlessConfig(data, func(worktree string) bool {
		if filepath.Clean(worktree) != worktree {
			return false
		}
		if !filepath.IsAbs(worktree) {
			worktree = filepath.Join(filepath.Dir(path), worktree)
		}
		return pathIn(filepath.Join(worktree, ".git"), "gitdir: ") == filepath.Dir(path)
	})
	if len(taken) == 0 {
		l.record(now)
		return
	}
	to, ok := l.takeAway(path)
	if !ok {
		return
	}
	if err := writeIn(dir, filepath.Base(path), harmless, now.Files[0].Mode&0o666); err != nil {
		l.errs = append(l.errs, err)
	}
	if now, err = l.copies.keep(path); err == nil {
		l.record(now)
	}
	l.changes = append(l.changes, change{what: disarmed, path: path, to: to, taken: taken})
}

// harmless tells whether a new part of a repository makes git execute nothing.
func (l *look) harmless(now kept) bool {
	dir := filepath.Dir(now.Path)
	switch name := filepath.Base(now.Path); {
	case name == ".git":
		return l.leadsRight(now.Path)
	case name == "hooks": // as git makes them
		for _, f := range now.Files[1:] {
			if f.Mode&unix.S_IFMT != unix.S_IFREG || !strings.HasSuffix(f.Path, ".sample") {
				return false
			}
		}
		return now.Files[0].Mode&unix.S_IFMT == unix.S_IFDIR && !now.More
	case filepath.Base(filepath.Dir(dir)) != "worktrees":
		return false
	case name == "commondir":
		common := filepath.Dir(filepath.Dir(dir))
		return (l.gits[common] || slices.Contains(l.plan.gits, common)) && pointerIn(now.Path, "") == common
	case name == "gitdir": // it says where the worktree is
		return now.Files[0].Mode&unix.S_IFMT == unix.S_IFREG
	}
	return false
}

// pointerIn is pathIn for a file that git cannot read in another way: of one line, and with a path that means the same with and
// without what may be links in it.
func pointerIn(file, prefix string) string {
	data, err := readSmall(file)
	if err != nil {
		return ""
	}
	text, ok := strings.CutPrefix(strings.TrimRight(string(data), "\r\n"), prefix)
	if !ok || strings.ContainsAny(text, "\r\n\x00") || filepath.Clean(text) != text {
		return ""
	}
	return pathIn(file, prefix)
}

// leadsRight tells whether a .git file names a repository that is looked at or guarded, or the part of one that belongs to a
// linked worktree.
func (l *look) leadsRight(path string) bool {
	own := pointerIn(path, "gitdir: ")
	if own == "" || !isReal(own) {
		return false
	}
	if l.gits[own] {
		return true
	}
	common := filepath.Dir(filepath.Dir(own))
	if filepath.Base(filepath.Dir(own)) != "worktrees" || !l.gits[common] || pointerIn(filepath.Join(own, "commondir"), "") != common {
		return false
	}
	// Of one that is new in a repository that is guarded otherwise nobody has looked at this.
	l.path(filepath.Join(own, "config.worktree"), moved, true)
	return true
}

// text tells a change.
func (c change) text(workspace string) string {
	path := c.path
	if rel, err := filepath.Rel(workspace, path); err == nil && filepath.IsLocal(rel) {
		path = rel
	}
	changedHow, left := "was changed while the sandbox ran, and programs of this machine would execute it", "what the sandbox left"
	where := "it is in " + c.to + " now"
	if c.to == "" {
		where = "it was removed"
	}
	if c.uncovered {
		changedHow = "was replaced or removed by another program while the sandbox ran, which could write it from then on"
		left = "what was there, with what the other program wrote,"
	}
	switch c.what {
	case changed:
		return fmt.Sprintf("%s %s: %s", path, changedHow, where)
	case restored:
		text := fmt.Sprintf("%s %s: it is as it was before", path, changedHow)
		if c.to != "" {
			text += ", and " + left + " is in " + c.to
		}
		return text
	case remade:
		return fmt.Sprintf("%s was removed while the sandbox ran: it is there again", path)
	case disarmed:
		return fmt.Sprintf("%s was made while the sandbox ran, and git on this machine would execute what it says (%s): that was taken out, and all of it is in %s",
			path, strings.Join(c.taken, ", "), c.to)
	}
	if c.uncovered {
		return fmt.Sprintf("%s %s: %s", path, changedHow, where)
	}
	return fmt.Sprintf("%s appeared while the sandbox ran, and programs of this machine would execute it: %s", path, where)
}

// clock is the time that the workspace's file system gives to what changes now: it may be another machine's, and coarser. A file of
// one's own, if there is one, spares making one where it is on the same file system.
func clock(workspace string, own *os.File) (int64, error) {
	var top, st unix.Stat_t
	if own != nil && unix.Stat(workspace, &top) == nil && unix.Fstat(int(own.Fd()), &st) == nil && st.Dev == top.Dev {
		now := unix.Timespec{Nsec: unix.UTIME_NOW}
		if unix.UtimesNanoAt(unix.AT_FDCWD, own.Name(), []unix.Timespec{now, now}, 0) == nil && unix.Fstat(int(own.Fd()), &st) == nil {
			return st.Ctim.Nano(), nil
		}
	}
	fd, err := unix.Open(workspace, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil { // not every file system has files without names
		f, err := os.CreateTemp(workspace, ".sesame-")
		if err != nil {
			// Nobody else can make something there either.
			var now unix.Timespec
			err = unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now)
			return now.Nano(), err
		}
		defer f.Close()
		defer os.Remove(f.Name())
		fd, err = unix.Dup(int(f.Fd()))
		if err != nil {
			return 0, err
		}
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	return st.Ctim.Nano(), err
}
