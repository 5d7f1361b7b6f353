package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// sweep is what the host would follow and the sandbox can make or change: it is looked at again when that has ended.
type sweep struct {
	top     string     // the workspace; "" if nothing can be written there
	absent  []string   // guarded paths that are not there yet
	indexes []gitIndex // that may name repositories anew
	kept    []kept     // what is there and can be changed all the same, or could be without its cover
	gits    []string   // git directories that are guarded
	shut    []cover    // over what is guarded, or not to be seen
	allowed []string   // what the policy allowed to be written
	dirs    []birthAt  // the directories of what is kept or covered, as they were before others were there
	// When the sandbox began, and ended if that is known, as the workspace's file system has it.
	since, until int64

	// The following is not noted.
	keep       []string // the paths of what is to be kept
	newIndexes bool     // some were read that are worth keeping
	began      time.Time
	guarded    map[string]bool // all these
}

// finishSweep notes what the tree's mounts do in the workspace.
func (t *tree) finishSweep() {
	s := &t.sweep
	for path, op := range t.ops {
		switch {
		case s.top == "" || op.Kind == shim.ReadWrite:
		case !t.noMounts || op.Kind != shim.ReadOnly:
			if within(path, s.top) || t.guarded[path] {
				c := cover{Path: path, Hides: op.Kind != shim.ReadOnly}
				if !t.noMounts && !slices.Contains(s.keep, path) {
					c.note()
				}
				s.shut = append(s.shut, c)
			}
		case t.guarded[path] && t.ours(path) && filepath.Base(path) != "modules": // what is in those is looked at one by one
			s.keep = append(s.keep, path)
		}
	}
}

// birthAt tells which file is at a path.
type birthAt struct {
	Path string
	Is   birth
}

// noteDirs notes the directories of what is kept or covered. What somebody else may have put in the place of another is as it was noted before.
func (l *look) noteDirs() {
	s := l.plan
	s.dirs = nil
	noted := map[string]bool{}
	note := func(path string) {
		dir := filepath.Dir(path)
		if noted[dir] {
			return
		}
		noted[dir] = true
		at := birthAt{dir, birthOf(dir)}
		if l.others.share(dir) {
			at.Is = l.dirsBefore[dir]
		}
		s.dirs = append(s.dirs, at)
	}
	for _, path := range s.keep {
		note(path)
	}
	for _, c := range s.shut {
		if !c.Hides {
			note(c.Path)
		}
	}
}

// guards tells whether a path need not be looked at.
func (s *sweep) guards(path string) bool {
	if s.guarded == nil {
		s.guarded = make(map[string]bool, len(s.absent)+len(s.shut))
		for _, path := range slices.Concat(s.absent, s.keep) {
			s.guarded[path] = true
		}
		for _, c := range s.shut {
			s.guarded[c.Path] = true
		}
		for _, k := range s.kept {
			s.guarded[k.Path] = true
		}
	}
	return s.guarded[path]
}

// passOver leaves alone what had a cover and has been dealt with.
func (s *sweep) passOver(dealt map[string]bool) {
	for _, c := range s.shut {
		if dealt[c.Path] {
			s.keep = append(s.keep, c.Path)
		}
	}
	s.shut = slices.DeleteFunc(s.shut, func(c cover) bool { return dealt[c.Path] })
	s.kept = slices.DeleteFunc(s.kept, func(k kept) bool { return slices.Contains(s.keep, k.Path) })
}

// guard has a path not looked at.
func (s *sweep) guard(path string) {
	if !s.guards(path) {
		s.guarded[path] = true
	}
}

// unguard has a path looked at after all.
func (s *sweep) unguard(path string) {
	if s.guards(path) {
		delete(s.guarded, path)
	}
}

// found are the paths that are there now and that programs of the host would follow.
func (l *look) found() (paths []string) {
	s := l.plan
	for _, path := range s.absent {
		// A new repository may stay: what is in it is looked at.
		if info := l.lookFor(path); info != nil && (filepath.Base(path) != ".git" || !info.IsDir()) {
			paths = append(paths, path)
		}
	}
	indexes := newIndexReader()
	for _, x := range s.indexes {
		if l.lookFor(x.File) == nil {
			continue
		}
		for _, path := range indexes.strangers(x, s.top) {
			if l.lookFor(path) != nil && !slices.Contains(paths, path) && !l.policy.unguarded(path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// ofWorktree tells whether a directory is the part of a guarded repository that belongs to a linked worktree.
func (l *look) ofWorktree(dir string) bool {
	return filepath.Base(filepath.Dir(dir)) == "worktrees" && slices.Contains(l.plan.gits, filepath.Dir(filepath.Dir(dir)))
}

// newWorktrees looks at the parts of git directories that belong to linked worktrees which the user has made while the sandbox ran: nothing held
// them.
func (l *look) newWorktrees() {
	for _, git := range l.plan.gits {
		for _, own := range l.worktreesOf(git) {
			for _, name := range guardedInWorktree {
				path := filepath.Join(own, name)
				if l.passes(path) {
					continue
				}
				now, err := l.keep(path)
				if err != nil {
					l.errs = append(l.errs, err)
					continue
				}
				l.plan.guard(path) // the look has nothing to do with it
				if now.there() {
					l.deal(kept{Path: path}, now, true, false)
				}
			}
		}
	}
}

// lookFor says what is at a path now, nil if there is nothing. What cannot be known is left to be done.
func (l *look) lookFor(path string) fs.FileInfo {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrPermission) && l.letIn(filepath.Dir(path)) {
		info, err = os.Lstat(path)
	}
	if err == nil {
		return info
	}
	if !missing(err) && l.mayWrite(filepath.Dir(path)) {
		l.errs = append(l.errs, err)
	}
	return nil
}

// Files in the guard's directory of a workspace.
const (
	// guardFile keeps what to sweep while a sandbox runs: if it is killed, the next one does it.
	guardFile   = "to-sweep"
	memoryFile  = "looked"  // what a look remembers
	coveredFile = "covered" // what it passed over
	keepsFile   = "guarded" // what it keeps of what programs of the host execute
	copiesDir   = "copies"  // and what was in that
	madeFile    = "made"    // repositories that a sandbox has made
)

// noteSweep begins the guard: from here on what changes is the sandbox's doing. Something of an earlier one may be owed since a time.
func (b *box) noteSweep(s sweep, owed int64) error {
	b.sweep, b.owed, b.others, b.met = s, owed, nil, nil
	b.sweep.allowed = realPaths(b.policy.AllowWrite)
	b.sweep.since = owed // until it is known better
	if s.top != "" {
		if err := b.noteWorkspace(); err != nil {
			return err
		}
	} else if b.notes {
		if err := b.writeSweep(); err != nil { // for others, that there is somebody
			return fault.New(fault.SandboxUnavailable, "note what is to be swept: %w", err)
		}
	}
	b.share()
	return nil
}

// noteTries is how often what is there is noted anew when others have begun meanwhile.
const noteTries = 20

func (b *box) noteWorkspace() error {
	b.meet()
	s := &b.sweep
	for tries := noteTries; ; tries-- {
		if err := b.noteFiles(); err != nil {
			return err
		}
		var err error
		if s.since, err = b.clock(); err != nil {
			return fault.New(fault.SandboxUnavailable, "find the time of the workspace's disk: %w", err)
		}
		if !b.meet() {
			break // or what was noted may be what they made
		}
		if tries == 0 {
			return fault.New(fault.SandboxUnavailable, "note what is to be swept: %w: other sandboxes begin all the time", errChanged)
		}
	}
	s.began = time.Now()
	l := b.look
	if b.notes {
		if err := l.keepBefore(); err != nil {
			return fault.New(fault.SandboxUnavailable, "keep what is guarded: %w", err)
		}
	}
	if b.owed != 0 {
		s.since = b.owed
	}
	l.since = s.since
	if b.joined != nil {
		b.noteTrusted()
	}
	if err := b.noteUnmounted(); err != nil {
		return fault.New(fault.SandboxUnavailable, "keep what is guarded: %w", err)
	}
	if !b.notes {
		return nil // nothing to keep it in; or another sandbox has noted what matters
	}
	if err := l.copies.save(s.kept); err != nil {
		return fault.New(fault.SandboxUnavailable, "keep what is guarded: %w", err)
	}
	if err := b.writeSweep(); err != nil {
		return fault.New(fault.SandboxUnavailable, "note what is to be swept: %w", err)
	}
	if s.newIndexes {
		keepIndexes(b.policy.guardDir(), s.indexes)
	}
	return nil
}

// noteFiles notes what is there.
func (b *box) noteFiles() error {
	s, l := &b.sweep, newLook(b.policy, &b.sweep, b.notes)
	b.look, s.kept = l, nil
	if l.others = b.others; len(l.others) > 0 {
		l.copies.learn(l.others)
		l.dirsBefore = l.others.dirsBefore(b.policy.guardDir())
	}
	l.noteDirs()
	if !b.policy.own {
		l.first()
	}
	if b.owed == 0 { // or a sandbox has changed it
		if err := l.catchUp(); err != nil {
			return fault.New(fault.SandboxUnavailable, "keep what is guarded: %w", err)
		}
		if !b.policy.own {
			l.uncover()
		}
	}
	for _, path := range s.keep {
		k, noted := l.others.noted(path)
		if !noted {
			var err error
			if k, err = l.copies.keep(path); err != nil {
				return fault.New(fault.SandboxUnavailable, "keep what is guarded: %w", err)
			}
		}
		k.Foreign = !noted && l.mayBeOthers(k)
		s.kept = append(s.kept, k)
	}
	return nil
}

// writeSweep notes what is to be swept.
func (b *box) writeSweep() error {
	data, err := b.sweep.encode()
	if err != nil {
		return err
	}
	return b.overwriteGuardFile(data)
}

// overwriteGuardFile writes it over the one that is there, where nothing is noted: to make a file for each sandbox takes longer. Others may read
// it at any time, so the first byte, by which they know that something is noted, is written last.
func (b *box) overwriteGuardFile(data []byte) error {
	file := filepath.Join(b.policy.guardDir(), guardFile)
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if bytes.Equal(data, swept) { // what is behind that matters to nobody
		_, err = f.WriteAt(data, 0)
		return err
	}
	now := make([]byte, len(swept))
	if n, _ := f.ReadAt(now, 0); n > 0 && !bytes.Equal(now, swept) {
		return replaceFile(file, data)
	}
	info, err := f.Stat()
	if err == nil && info.Size() > int64(len(data)) {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		_, err = f.WriteAt(data[1:], 1)
	}
	if err == nil {
		_, err = f.WriteAt(data[:1], 0)
	}
	return err
}

// sweepLeft does what a sandbox that was killed could not do any more, and tells since when what is still left may be the
// sandbox's doing.
func (b *box) sweepLeft() (owed int64) {
	if !b.notes {
		return 0
	}
	left, err := os.ReadFile(filepath.Join(b.policy.guardDir(), guardFile))
	if err != nil || bytes.HasPrefix(left, swept) {
		return 0 // the usual case
	}
	s := decodeSweep(left)
	if s.top != b.policy.Workspace {
		return 0
	}
	s.passOver(b.trusted)
	b.sweep, b.others, b.met = s, nil, nil
	b.meet()
	b.look = newLook(b.policy, &b.sweep, true)
	b.look.others = b.others
	if !b.takeAway() {
		owed = s.since
	}
	return owed
}

// swept is what is in guardFile when nothing is to do.
var swept = []byte{0}

// maxTold is how many changes are told one by one.
const maxTold = 10

// takeAway sweeps and tells. It says whether nothing is left to do.
func (b *box) takeAway() (whole bool) {
	if b.look == nil || b.sweep.top == "" {
		return true
	}
	l := b.look
	defer func() { b.sweep, b.look = sweep{}, nil }()
	l.stop()
	until, err := b.clock() // what the guard does now is no sandbox's doing
	if err != nil {
		l.errs = append(l.errs, err)
	}
	l.treat, l.since, l.until = true, b.sweep.since, b.sweep.until
	l.askOthers()
	l.others = l.others.unswept()
	l.turns, l.beside = nil, nil // there may be more by now
	most := lookTime
	if began := b.sweep.began; !began.IsZero() {
		now := time.Now()
		most = max(most, now.Sub(began)/10)
		// A clock that was set back while the sandbox ran makes what it did look older.
		l.since += min(0, int64(now.Round(0).Sub(began.Round(0))-now.Sub(began)))
	}
	for _, path := range l.found() {
		if now, err := l.keep(path); err == nil && l.judgedElsewhere(now) {
			continue // it had only been away
		}
		if to, ok := l.takeAway(path); ok {
			l.changes = append(l.changes, change{what: appeared, path: path, to: to})
		}
	}
	l.newWorktrees()
	l.restoreKept()
	whole = true
	if !b.policy.own && isDir(b.sweep.top) {
		if whole, err = l.finish(most); err != nil {
			l.errs = append(l.errs, err)
		}
	}
	l.aside.close()
	if until != 0 {
		end := until
		if l.until != 0 { // it ended before
			end = l.until
		}
		if err := l.noteTurn(end); err != nil {
			l.errs = append(l.errs, err)
		}
	}
	b.tellChanges(l, whole)
	if whole = whole && len(l.errs) == 0; !b.notes || !b.isLast() {
		return whole // others need what is noted, and the last of them does all of it again
	}
	if whole {
		_ = b.overwriteGuardFile(swept) // if not, the next one finds nothing to sweep
		l.endAllUnmounted()
	} else if until != 0 {
		b.sweep.until, b.owedUntil = until, until
		_ = b.writeSweep() // the one that is there says the same, but for the end
	}
	return whole
}

// forgetSweep ends the guard of a command that never ran: what has changed meanwhile was not its doing.
func (b *box) forgetSweep() {
	switch {
	case b.look == nil || !b.notes || !b.isLast():
	case b.owed != 0:
		b.sweep.until = b.owedUntil
		_ = b.writeSweep() // what is there says that it has not ended yet
	default:
		_ = b.overwriteGuardFile(swept) // if not, the next one sweeps
	}
}

func (b *box) tellChanges(l *look, whole bool) {
	for _, c := range l.changes[:min(len(l.changes), maxTold)] {
		b.notice(c.text(b.sweep.top))
	}
	for _, path := range l.exposed[:min(len(l.exposed), maxTold)] {
		b.notice(tellExposed(path))
	}
	if more := len(l.changes) - maxTold; more > 0 {
		where := l.aside.dir
		if where == "" {
			where = "directories sesame-swept-... beside them"
		}
		b.notice(fmt.Sprintf("%d more such files appeared or were changed while the sandbox ran: they are in %s now", more, where))
	}
	if err := errors.Join(l.errs...); err != nil {
		b.notice(fmt.Sprintf("what programs of this machine would execute cannot all be looked at or removed: %s", strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	for _, path := range l.unseen[:min(len(l.unseen), maxTold)] {
		b.notice(fmt.Sprintf("%s cannot be looked through for what programs of this machine would execute: look at it before you use it", path))
	}
	if !whole {
		b.notice(fmt.Sprintf("the workspace was not looked through to its end for what programs of this machine would execute (%d directories and files were): the next run here begins with the rest; look at what is new before you run git, an editor or a shell there", len(l.memory)))
	}
}

// restore puts back what was to be kept.
func (l *look) restore(k kept) {
	if k.untouched() {
		return
	}
	now, err := l.keep(k.Path)
	if err != nil {
		l.errs = append(l.errs, err)
	} else if !k.same(now) {
		if k.Foreign {
			k = kept{Path: k.Path}
		}
		dir := filepath.Dir(k.Path)
		l.deal(k, now, slices.Contains(l.plan.gits, dir) || l.ofWorktree(dir), true)
	}
}
