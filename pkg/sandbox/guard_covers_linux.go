package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// copyCovered copies what the covers protect, while they do: to have it if one is taken away.
func (l *look) copyCovered(note func() error) error {
	if len(l.others) > 0 {
		l.others = l.others.ask()
		l.copies.learn(l.others)
	}
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
		if k.changedSince(l.plan.since) || l.others.mayHaveChanged(k) {
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
	unmounted := l.besideUnmounted()
	for _, c := range l.plan.shut {
		if c.Is == (birth{}) {
			continue
		}
		covers[c.Path] = true
		switch {
		case l.until != 0: // that was done already, and what is there now is the user's
		case !c.holds():
			l.uncovered(c)
		case unmounted && !c.Hides:
			l.compare(c)
		}
	}
	for _, k := range l.plan.kept {
		if !covers[k.Path] {
			l.restore(k)
		}
	}
}

// unmountedFile is in a guard's directory while a sandbox of a tier without mounts runs, and until all that ran beside it have ended.
const unmountedFile = "unmounted"

// noteUnmounted notes that of this one, before its command begins: if it is killed nobody knows any more that a mount which holds held
// nothing off.
func (b *box) noteUnmounted() error {
	if b.part == nil || b.tier != Landlock {
		return nil
	}
	return os.WriteFile(filepath.Join(b.policy.guardDir(), unmountedFile), nil, 0o600)
}

// besideUnmounted tells whether there was one.
func (l *look) besideUnmounted() bool {
	_, err := os.Lstat(l.file(unmountedFile))
	return err == nil && l.policy.GuardState != ""
}

// compare deals with what a sandbox without mounts could reach though a cover held.
func (l *look) compare(c cover) {
	if c.isModules() {
		l.uncovered(c)
		return
	}
	now, err := l.keep(c.Path)
	if err != nil {
		l.errs = append(l.errs, err)
	} else if now.changedSince(l.since) {
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
