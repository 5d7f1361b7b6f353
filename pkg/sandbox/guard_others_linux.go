package sandbox

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// other is a sandbox that was running when this one began, and that may write in some of the same places: one of the same workspace, of one
// that lies in it or around it, or of another worktree of the same repository.
type other struct {
	dir    string   // of its guard
	top    string   // its workspace; "" if that is not known yet
	over   bool     // it has put right what it has done
	since  int64    // when it began
	shared []string // the places
	kept   []kept   // what it has noted
	dirs   []birthAt
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
	return slices.ContainsFunc(o, func(o other) bool { return !o.over && when >= o.since && o.has(path) })
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

// places are where a sandbox may write, the workspace first, without those that are in that.
func (s *sweep) places() (places []string) {
	if s.top == "" {
		return nil
	}
	places = append(places, s.top)
	for _, place := range slices.Concat(s.gits, s.allowed) {
		if !within(place, s.top) {
			places = append(places, place)
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
// have begun since it was called before. Each has announced itself when it looks for others, and notes before its command begins: of two that
// begin at the same time one at least finds the other, and it finds notes if that one's command may have begun.
func (b *box) meet() (more bool) {
	if b.part == nil || b.sweep.top == "" {
		return false
	}
	mine := b.sweep.places()
	again := b.met != nil
	if !again {
		b.met = map[int64]bool{}
		if b.joined != nil {
			b.others = others{{dir: b.policy.guardDir(), top: b.sweep.top, since: b.joined.since, shared: mine, kept: b.joined.kept, dirs: b.joined.dirs}}
		}
	}
	if b.newTurns(again) {
		more = true
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
		if !ok && again {
			continue // its command has not begun, and it has found this one
		}
		if !ok { // likewise, or it has swept; nobody knows where it may write
			o.since, _ = b.clock()
			o.shared = mine
			noted, ok = readNoted(o.dir) // or by now
		}
		if ok {
			o.top, o.since, o.kept, o.dirs, o.shared = noted.top, noted.since, noted.kept, noted.dirs, inCommon(mine, noted.places())
		}
		b.met[number] = true
		if len(o.shared) > 0 {
			b.others = append(b.others, o)
			more = true
		}
	}
	return more
}

// newTurns finds those that have begun and ended since others were looked for first. It tells whether there are any.
func (b *box) newTurns(again bool) (more bool) {
	var size int64
	if info, err := os.Stat(filepath.Join(b.policy.GuardState, turnsFile)); err == nil {
		size = info.Size()
	}
	if !again {
		b.metAt = time.Now().Add(-time.Second).UnixNano() // the clocks of file systems are coarse
	} else if size != b.metTurns {
		turns, _ := readTurns(b.policy.GuardState) // who cannot read it at the end tells
		for _, t := range turns {
			if shared := inCommon(b.sweep.places(), t.places); t.until >= b.metAt && len(shared) > 0 {
				b.others = append(b.others, other{dir: GuardDir(b.policy.GuardState, t.top()), top: t.top(), since: t.since, shared: shared})
				more = true
			}
		}
	}
	b.metTurns = size
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
		case !left, noted.top == "": // there is nothing to do
			b.part.forget(number)
		case guardNumber(noted.top) == number && len(inCommon(b.willWrite(), noted.places())) > 0:
			b.sweepFor(number, noted)
		}
	}
}

// willWrite are the places where this sandbox may write, as far as that is known before it is planned.
func (b *box) willWrite() []string {
	places := append(realPaths(b.policy.AllowWrite), b.policy.Workspace)
	if common, _, ok := linkedWorktree(filepath.Join(b.policy.Workspace, ".git")); ok {
		places = append(places, common)
	}
	return places
}

func realPaths(paths []string) (real []string) {
	for _, path := range paths {
		real = append(real, resolve(path))
	}
	return real
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

// dirsBefore are the directories as they were before any of them ran: by what those have noted, or by the last notes in a guard's directory, also
// when these are over.
func (o others) dirsBefore(dir string) map[string]birth {
	dirs := map[string]birth{}
	add := func(list []birthAt) {
		for _, d := range list {
			if d.Is != (birth{}) && dirs[d.Path] == (birth{}) {
				dirs[d.Path] = d.Is
			}
		}
	}
	for _, o := range o {
		add(o.dirs)
	}
	if data, err := os.ReadFile(filepath.Join(dir, guardFile)); err == nil && len(data) > 0 {
		add(decodeSweep(data[1:]).dirs)
	}
	return dirs
}

// unnoted tells whether one of them had not noted anything when it was found.
func (o others) unnoted() bool {
	return slices.ContainsFunc(o, func(o other) bool { return o.top == "" })
}

// ask reads again what the others have noted: a while after they began that is more. Who has ended keeps what was read before.
func (o others) ask() others {
	o = slices.Clone(o)
	for i := range o {
		if noted, ok := readNoted(o[i].dir); ok && noted.since >= o[i].since {
			o[i].kept, o[i].top = noted.kept, noted.top
		}
	}
	return o
}

// unswept tells of each whether it has put right by now what it has done, or runs, or was killed.
func (o others) unswept() others {
	o = slices.Clone(o)
	for i := range o {
		noted, ok := readNoted(o[i].dir)
		o[i].over = !ok || noted.since < o[i].since
	}
	return o
}

// memories are what guards remember of what is in this workspace: those of sandboxes that run, or ran, and can write in the same places. This
// workspace's own is among them: another sandbox may have been writing it when it was read.
type memories struct {
	tops  map[string]bool   // the workspaces that are remembered at all
	seen  map[string]uint64 // the number of what somebody has looked at, by its path
	keeps map[string][]kept // and what was the user's
}

// elsewhere reads them once.
func (l *look) elsewhere() *memories {
	if l.beside != nil {
		return l.beside
	}
	l.beside = &memories{map[string]bool{}, map[string]uint64{}, map[string][]kept{}}
	var tops []string
	for _, o := range l.others {
		tops = append(tops, o.top)
	}
	for _, t := range l.readTurns() {
		tops = append(tops, t.top())
	}
	slices.Sort(tops)
	for _, top := range slices.Compact(tops) {
		if top != "" {
			l.beside.read(GuardDir(l.policy.GuardState, top), top, l.plan.top)
		}
	}
	return l.beside
}

// read reads what the guard of one knows, as far as it is about the other.
func (m *memories) read(dir, top, mine string) {
	m.readNotes(dir)
	data, err := os.ReadFile(filepath.Join(dir, memoryFile))
	if err != nil {
		return
	}
	m.tops[top] = true
	text, _ := os.ReadFile(filepath.Join(dir, keepsFile))
	m.keep(readNotes(text, func(byte, string) {}))
	if top == mine || !within(top, mine) && !within(mine, top) {
		return
	}
	for _, head := range []string{memoryHead, partHead} {
		data = bytes.TrimPrefix(data, []byte(head))
	}
	eachSeen(data, func(path []byte, s seen) bool {
		if at := filepath.Join(top, string(path[:len(path)-1])); s.inode != 0 && within(at, mine) {
			m.seen[at] = s.inode
		}
		return true
	})
}

// readNotes reads what sandboxes of one have noted, also those that have ended: what was the user's then is the user's if it is the same again.
func (m *memories) readNotes(dir string) {
	for _, file := range append(unmountedFiles(dir), filepath.Join(dir, guardFile)) {
		if data, err := os.ReadFile(file); err == nil && len(data) > 0 {
			m.keep(decodeSweep(data[1:]).kept) // the first byte says no more than whether it is over
		}
	}
}

func (m *memories) keep(list []kept) {
	for _, k := range list {
		if !k.Foreign {
			m.keeps[k.Path] = append(m.keeps[k.Path], k)
		}
	}
}

// judgedElsewhere tells whether one of them has the same for the user's. What only leads to something else says nothing of that.
func (l *look) judgedElsewhere(k kept) bool {
	leads := slices.Contains([]string{".git", "commondir", "gitdir"}, filepath.Base(k.Path))
	return !leads && k.there() && slices.ContainsFunc(l.elsewhere().keeps[k.Path], func(was kept) bool { return was.same(k) })
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
