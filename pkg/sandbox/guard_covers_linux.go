package sandbox

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// cover is a mount that keeps something of the workspace from the sandbox. The kernel takes it away, and tells nobody, when a program
// of the host removes what is under it or puts something else in its place, as git does with its configuration.
type cover struct {
	Path    string
	Hides   bool  // or it is read-only
	Is      birth // of what is under it; zero where it is kept anyway, or there are no mounts
	Changed int64 // when, where nothing says when it was born
}

// note notes what is under it.
func (c *cover) note() {
	c.Is = birthOf(c.Path)
	if c.Is.Born == 0 {
		c.Changed = identify(c.Path).Changed
	}
}

// holds tells whether that is still there, and so the mount.
func (c cover) holds() bool {
	now := cover{Path: c.Path, Hides: c.Hides}
	now.note()
	return c.Is == (birth{}) || now == c
}

// isModules tells git directories of submodules, which are looked at one by one.
func (c cover) isModules() bool { return filepath.Base(c.Path) == "modules" }

// askOthers learns what others have noted by now.
func (l *look) askOthers() {
	if len(l.others) > 0 {
		l.others = l.others.ask()
		l.copies.learn(l.others)
	}
}

// copyCovered copies what the covers protect, while they do: to have it if one is taken away.
func (l *look) copyCovered(note func() error) error {
	l.askOthers()
	var list []kept
	for _, c := range l.plan.shut {
		select {
		case <-l.halt:
			return nil
		default:
		}
		if c.Hides || c.isModules() || c.Is == (birth{}) {
			continue
		}
		k, err := l.copies.keep(c.Path)
		if err != nil || !c.holds() {
			continue
		}
		// Another sandbox may have left it so, one that is there already or one without mounts.
		if k.changedSince(l.plan.since) || l.mayBeOthers(k) {
			var noted bool
			if k, noted = l.others.noted(c.Path); !noted {
				continue
			}
		}
		list = append(list, k)
	}
	l.plan.kept = slices.Concat(l.plan.kept, list)
	if !l.mayKeep {
		return nil
	}
	if err := l.copies.save(list); err != nil {
		return err
	}
	return note()
}

// restoreKept puts back what can be changed, and what has lost its cover.
func (l *look) restoreKept() {
	covers := map[string]bool{}
	unmounted := l.unmountedSince()
	for _, c := range l.plan.shut {
		if c.Is == (birth{}) {
			continue
		}
		covers[c.Path] = true
		switch {
		case l.until != 0: // that was done already, and what is there now is the user's
		case !c.holds():
			l.uncovered(c)
		case unmounted != math.MaxInt64 && !c.Hides:
			l.compare(c, unmounted)
		}
	}
	for _, k := range l.plan.kept {
		if !covers[k.Path] {
			l.restore(k)
		}
	}
}

// unmountedDir is in a guard's directory, and in it the notes of each sandbox of a tier without mounts that runs, or was killed. They begin as those
// in guardFile do: with 0 for one that has ended.
const unmountedDir = "unmounted"

// noteUnmounted notes that this one has no mounts, before its command begins: if it is killed nobody knows any more that a mount which holds
// held nothing off.
func (b *box) noteUnmounted() error {
	if b.part == nil || b.tier != Landlock {
		return nil
	}
	data, err := b.sweep.encode()
	if err != nil {
		return err
	}
	dir := b.look.file(unmountedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	b.unmounted = f.Name()
	return errors.Join(err, f.Close())
}

// endUnmounted says that it has put right itself what it has done, or has done nothing. What it noted is of use to those that ran beside it.
func (b *box) endUnmounted() {
	if b.unmounted != "" {
		endNotes(b.unmounted) // if not, others compare what nobody has changed
	}
	b.unmounted = ""
}

// unmountedFiles are the notes of all in a guard's directory, the newest first.
func unmountedFiles(guard string) (files []string) {
	dir := filepath.Join(guard, unmountedDir)
	entries, _ := os.ReadDir(dir) // usually it is not there
	age := map[string]time.Duration{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			file := filepath.Join(dir, e.Name())
			age[file] = time.Since(info.ModTime())
			files = append(files, file)
		}
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(age[a], age[b]) })
	return files
}

func endNotes(file string) {
	if f, err := os.OpenFile(file, os.O_WRONLY, 0); err == nil {
		_, _ = f.Write(swept)
		f.Close()
	}
}

// mostEnded is how many notes of sandboxes that have ended are kept.
const mostEnded = 8

// endAllUnmounted says that nothing is left of any, and forgets all but the last ones.
func (l *look) endAllUnmounted() {
	for i, file := range unmountedFiles(l.policy.guardDir()) {
		if endNotes(file); i >= mostEnded {
			_ = os.Remove(file)
		}
	}
}

// unmountedSince says since when there were such ones that have not done that, the largest number if there were none.
func (l *look) unmountedSince() int64 {
	since := int64(math.MaxInt64)
	if l.policy.GuardState == "" {
		return since
	}
	for _, file := range unmountedFiles(l.policy.guardDir()) {
		data, err := os.ReadFile(file)
		if err == nil && !bytes.HasPrefix(data, swept) {
			since = min(since, decodeSweep(data).since)
		}
	}
	return since
}

// compare deals with what a sandbox without mounts could reach since a time though a cover held.
func (l *look) compare(c cover, since int64) {
	if c.isModules() {
		l.uncovered(c)
		return
	}
	now, err := l.keep(c.Path)
	if err != nil {
		l.errs = append(l.errs, err)
	} else if now.changedSince(max(l.since, since)) {
		l.restore(l.plan.keptAs(c.Path))
	}
}

// keptAs is what is kept of a path.
func (s *sweep) keptAs(path string) kept {
	if i := slices.IndexFunc(s.kept, func(k kept) bool { return k.Path == path }); i >= 0 {
		return s.kept[i]
	}
	return kept{Path: path}
}

// uncovered deals with what the sandbox could reach when a cover was gone.
func (l *look) uncovered(c cover) {
	if _, err := os.Lstat(c.Path); c.Hides && err == nil {
		l.exposed = append(l.exposed, c.Path)
	}
	if c.Hides || c.isModules() {
		l.plan.unguard(c.Path) // it is looked at like all else
		l.load()
		l.whole = false // or nobody would go there
		return
	}
	n := len(l.changes)
	l.restore(l.plan.keptAs(c.Path))
	for i := range l.changes[n:] {
		l.changes[n+i].uncovered = true
	}
}

// tellExposed says of a path what a user may want to know who has hidden it.
func tellExposed(path string) string {
	return fmt.Sprintf("%s is to be kept from the sandbox, and another program replaced it while the sandbox ran: it could be read inside from then on", path)
}
