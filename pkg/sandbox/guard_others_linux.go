package sandbox

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// other is a sandbox that was running when this one began, and that may write in some of the same places: one of the same workspace, of one
// that lies in it or around it, or of another worktree of the same repository.
type other struct {
	dir    string   // of its guard
	since  int64    // when it began
	shared []string // the places
	kept   []kept   // what it has noted
}

type others []other

// share tells whether others may write at a path.
func (o others) share(path string) bool {
	return slices.ContainsFunc(o, func(o other) bool { return o.has(path) })
}

func (o other) has(path string) bool {
	return slices.ContainsFunc(o.shared, func(place string) bool { return within(path, place) })
}

// mayHave tells whether a change at a path may be their doing. They deal with it themselves, and whoever takes it for the user's meanwhile
// would put it back.
func (o others) mayHave(path string, when int64) bool {
	return slices.ContainsFunc(o, func(o other) bool { return when >= o.since && o.has(path) })
}

// mayHaveChanged tells it of something kept.
func (o others) mayHaveChanged(k kept) bool {
	return len(o) > 0 && slices.ContainsFunc(k.Files, func(f keptFile) bool { return o.mayHave(k.Path, f.ID.Changed) })
}

// noted is what they have noted of a path.
func (o others) noted(path string) (kept, bool) {
	for _, o := range o {
		if i := slices.IndexFunc(o.kept, func(k kept) bool { return k.Path == path && !k.Foreign }); i >= 0 {
			return o.kept[i], true
		}
	}
	return kept{}, false
}

// places are what a sandbox may write of what is guarded, without those that are in others.
func (s *sweep) places() (places []string) {
	if s.top == "" {
		return nil
	}
	places = append(places, s.top)
	for _, git := range s.gits {
		if !within(git, s.top) {
			places = append(places, git)
		}
	}
	return places
}

// readPlaces are the places of the sandbox whose guard's directory it is, as noted. It reads no more than the beginning of the notes: of many
// sandboxes that run most have nothing in common.
func readPlaces(dir string) (places []string, ok bool) {
	f, err := os.Open(filepath.Join(dir, guardFile))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	data := make([]byte, 4096)
	n, _ := f.Read(data)
	if n == 0 || bytes.HasPrefix(data, swept) {
		return nil, false
	}
	data = data[:n]
	end := bytes.Index(data, []byte("\x00A"))
	if end < 0 {
		noted, ok := readNoted(dir) // there are very many, or none
		return noted.places(), ok
	}
	noted := decodeSweep(data[:end])
	return noted.places(), true
}

// inCommon are the places that are in one of both lists, or below one.
func inCommon(mine, theirs []string) (places []string) {
	for _, a := range mine {
		for _, b := range theirs {
			switch {
			case within(a, b):
				places = append(places, a)
			case within(b, a):
				places = append(places, b)
			}
		}
	}
	return places
}

// meet finds the sandboxes that are running and may write where this one does, and what they have noted. It tells whether there are any that
// have begun since it was called before. Each has its lock when it looks for others, and its command begins later than that: of two that begin at the same time
// one at least finds the other, and it finds notes if that one's command may have begun.
func (b *box) meet() (more bool) {
	if b.part == nil || b.sweep.top == "" {
		return false
	}
	mine := b.sweep.places()
	again := b.met != nil
	if !again {
		b.met = map[int64]bool{}
		if b.joined != nil {
			b.others = others{{dir: b.policy.guardDir(), since: b.joined.since, shared: mine, kept: b.joined.kept}}
		}
	}
	running, _ := b.part.running()
	for _, number := range running {
		if b.met[number] {
			continue
		}
		o := other{dir: guardDirOf(b.policy.GuardState, number)}
		places, ok := readPlaces(o.dir)
		if o.shared = inCommon(mine, places); len(o.shared) == 0 && ok {
			b.met[number] = true
			continue
		}
		noted, ok := readNoted(o.dir)
		switch {
		case ok:
			o.since, o.kept, o.shared = noted.since, noted.kept, inCommon(mine, noted.places())
		case again: // its command has not begun, and it has found this one
			continue
		default: // likewise, or it has swept; nobody knows where it may write
			o.since, _ = b.clock()
			o.shared = mine
		}
		b.met[number] = true
		if len(o.shared) > 0 {
			b.others = append(b.others, o)
			more = true
		}
	}
	return more
}

// sweepKilled does what sandboxes of other workspaces could not do any more that were killed, where this one may write: what is left there it
// would take for the user's.
func (b *box) sweepKilled() {
	if b.part == nil {
		return
	}
	_, killed := b.part.running()
	for _, number := range killed {
		noted, left := readNoted(guardDirOf(b.policy.GuardState, number))
		switch {
		case !left:
			b.part.forget(number)
		case noted.top != "" && guardNumber(noted.top) == number && len(inCommon(b.willWrite(), noted.places())) > 0:
			b.sweepFor(number, noted)
		}
	}
}

// willWrite are the places where this sandbox may write, as far as that is known before it is planned.
func (b *box) willWrite() []string {
	places := []string{b.policy.Workspace}
	if common, _, ok := linkedWorktree(filepath.Join(b.policy.Workspace, ".git")); ok {
		places = append(places, common)
	}
	return places
}

// sweepFor sweeps for a sandbox that was killed, unless another one does.
func (b *box) sweepFor(number int64, noted *sweep) {
	lock, err := openGuardLock(b.policy.GuardState, number)
	if err != nil {
		return // the next one tries
	}
	policy := *b.policy
	policy.Workspace, policy.AllowWrite = noted.top, noted.allowed
	policy.Notice = func(text string) {
		b.notice("in " + noted.top + ", where a sandbox was killed: " + text)
	}
	other := &box{policy: &policy, part: lock, notes: true}
	defer other.leaveGuard()
	if lock.take(unix.F_WRLCK) == nil && other.sweepLeft() == 0 {
		lock.forget(number)
	}
}

// ask reads again what the others have noted: a while after they began that is more. Who has ended keeps what was read before.
func (o others) ask() others {
	o = slices.Clone(o)
	for i := range o {
		if noted, ok := readNoted(o[i].dir); ok && noted.since == o[i].since {
			o[i].kept = noted.kept
		}
	}
	return o
}

// learn copies what others have kept, which may be gone when it is needed.
func (c *copies) learn(o others) {
	for _, o := range o {
		dir := filepath.Join(o.dir, copiesDir)
		if dir == c.dir {
			continue
		}
		for _, k := range o.kept {
			if o.has(k.Path) {
				c.putFrom(dir, k)
			}
		}
	}
}
