package sandbox

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// newLook is a look at a workspace whose sandbox is planned. keeps says that what it remembers may be written.
func newLook(p *Policy, plan *sweep, keeps bool) *look {
	l := &look{policy: p, plan: plan, mayKeep: keeps, deadline: deadline, judged: map[string]bool{}, gits: map[string]bool{}, keeps: map[string]kept{}, made: map[string]birth{}, arrivals: map[string]arrival{}}
	l.aside = aside{top: plan.top, state: p.guardDir()}
	for _, path := range p.AllowWrite {
		if path = resolve(path); path != plan.top && within(path, plan.top) {
			l.free = append(l.free, path)
		}
	}
	if l.aside.state != "" {
		l.copies.dir = filepath.Join(l.aside.state, copiesDir)
	}
	return l
}

// How long a look may take that somebody waits for: the first one of a workspace before the sandbox begins, and any when it
// has ended, which may also take a tenth of the time that the sandbox took.
const (
	firstLookTime = 20 * time.Millisecond
	lookTime      = time.Second
	// askAgain is the time between questions to others that begin at the same time.
	askAgain = 5 * time.Millisecond
	// lookDelay keeps a look out of the way of commands that are over soon.
	lookDelay = 300 * time.Millisecond
)

// deadline tells when a time is over.
func deadline(most time.Duration) func() bool {
	end := time.Now().Add(most)
	return func() bool { return time.Now().After(end) }
}

// first looks at a workspace that nothing is remembered of, while all that is there is the user's.
func (l *look) first() {
	if !l.mayKeep {
		return
	}
	_, err := os.Lstat(l.file(memoryFile))
	if _, again := os.Lstat(l.file(coveredFile)); errors.Join(err, again) == nil {
		return
	}
	l.lookBefore()
}

// lookBefore looks while all that has changed is the user's doing, or others' who run already.
func (l *look) lookBefore() {
	l.since, l.dirty = math.MaxInt64, true
	_, _ = l.through(l.deadline(firstLookTime)) // what is not seen now is seen later
}

// uncover looks at what the last look passed over, because its plan held it or let it be written, and this plan does neither: all that is
// there is the user's now, but for what an earlier turn has changed.
func (l *look) uncover() {
	if !l.mayKeep || l.memory != nil || len(l.passedOver()) == 0 {
		return
	}
	l.load()
	l.lookBefore()
}

// keepBefore keeps what was looked at before the sandbox begins.
func (l *look) keepBefore() error {
	if l.memory != nil {
		_ = l.save() // if not, it is looked at again
		return nil
	}
	if l.caught == nil {
		return nil
	}
	if err := l.copies.save(l.caught); err != nil {
		return err
	}
	return l.writeKeeps(l.caught)
}

// covered are the paths of the workspace that a look passes over.
func (l *look) covered() (paths []string) {
	s := l.plan
	for _, list := range [][]string{s.absent, s.keep, s.gits, l.free} {
		paths = append(paths, list...)
	}
	for _, c := range s.shut {
		paths = append(paths, c.Path)
	}
	for _, k := range s.kept {
		paths = append(paths, k.Path)
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return !within(path, s.top) || path == s.top })
	slices.Sort(paths)
	return slices.Compact(paths)
}

// passedOver are those that the last look that was kept passed over, and this one does not.
func (l *look) passedOver() (paths []string) {
	data, err := os.ReadFile(l.file(coveredFile))
	if err != nil {
		return nil // nothing is remembered
	}
	for path := range strings.SplitSeq(string(data), "\x00") {
		if path != "" && !l.passes(path) && !slices.Contains(l.plan.gits, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// goAhead looks while the sandbox runs, so that little is left to do at its end. Nobody waits for it, so it rests as long as
// it works: a low priority would have the end wait for a thread that is given no time. note notes what it has found of the plan.
func (l *look) goAhead(note func() error) {
	l.halt, l.done = make(chan struct{}), make(chan struct{})
	rest := func(d time.Duration) (halted bool) {
		select {
		case <-l.halt:
			return true
		case <-time.After(d):
			return false
		}
	}
	go func() {
		defer close(l.done)
		begun := time.Now()
		for l.others.unnoted() && time.Since(begun) < lookDelay { // soon they will have noted what they put back, and then it may be gone
			if rest(askAgain) {
				return
			}
			l.askOthers()
		}
		if rest(lookDelay - time.Since(begun)) {
			return
		}
		_ = l.copyCovered(note) // if not, what loses its cover is moved away
		l.load()
		begin := time.Now()
		whole, _ := l.through(func() bool { // finish meets the same error
			worked := time.Since(begin)
			if worked < time.Millisecond {
				return false
			}
			halted := rest(worked)
			begin = time.Now()
			return halted
		})
		if whole {
			_ = l.save() // in case this process is killed
		}
	}()
}

// stop ends going ahead.
func (l *look) stop() {
	if l.halt != nil {
		close(l.halt)
		<-l.done
		l.halt = nil
	}
}

// finish looks at all that changed, for a time, and tells whether that is all.
func (l *look) finish(most time.Duration) (whole bool, err error) {
	over := l.deadline(most)
	if l.memory == nil {
		if len(l.passedOver()) == 0 && l.quietSince(l.file(memoryFile), over) {
			return true, nil
		}
		l.load()
	}
	if whole = l.quiet(); !whole {
		if whole, err = l.through(over); err != nil {
			return false, err
		}
	}
	return whole, l.save()
}

// quiet tells whether nothing at all has changed since what is remembered was looked at.
func (l *look) quiet() bool {
	if !l.whole {
		return false
	}
	top, err := openReal(l.plan.top)
	if err != nil {
		return false
	}
	defer unix.Close(top)
	for path, s := range l.memory {
		if !s.stillAt(top, append([]byte(path), 0)) {
			return false
		}
	}
	return true
}

// quietSince tells the same of what a file remembers. It is all that the ends of most short commands wait for, so it does no
// more than one call for each path, on all processors.
func (l *look) quietSince(file string, over func() bool) bool {
	if file == "" {
		return false
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	top, err := openReal(l.plan.top)
	if err != nil {
		return false
	}
	defer unix.Close(top)
	data, ok := bytes.CutPrefix(data, []byte(memoryHead))
	if !ok {
		return false // or it is not whole
	}
	const least = 16 << 10 // bytes, that another processor is worth its while
	if len(data) > least {
		first.Loosen()
	}
	var changed atomic.Bool
	var group sync.WaitGroup
	for part := range seenParts(data, max(len(data)/runtime.GOMAXPROCS(0), least)) {
		group.Go(func() {
			n := 0
			if !eachSeen(part, func(path []byte, s seen) bool {
				n++
				return s.stillAt(top, path) && !changed.Load() && (n%256 != 0 || !over())
			}) {
				changed.Store(true)
			}
		})
	}
	group.Wait()
	return !changed.Load()
}

// stillAt tells whether a path, which ends with a NUL, is what it was.
func (s seen) stillAt(top int, path []byte) bool {
	var st unix.Statx_t
	_, _, errno := unix.RawSyscall6(unix.SYS_STATX, uintptr(top), uintptr(unsafe.Pointer(&path[0])), unix.AT_SYMLINK_NOFOLLOW,
		unix.STATX_INO|unix.STATX_CTIME, uintptr(unsafe.Pointer(&st)), 0)
	if errno != 0 {
		return s.inode == 0 && missing(errno)
	}
	return st.Ino == s.inode && st.Ctime.Sec*1e9+int64(st.Ctime.Nsec) == s.changed
}

// file is where something is kept; "" if nothing is.
func (l *look) file(name string) string {
	dir := l.policy.guardDir()
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

// memoryHead begins the file of a memory that is whole, partHead that of another one. Records follow: number, time, kind, and the
// path up to a NUL.
const (
	memoryHead = "sesame looked 1\n"
	partHead   = "sesame looks 1\n"
)

// load reads what was remembered, unless it was looked at already. What cannot be read is looked at again.
func (l *look) load() {
	if l.memory != nil || l.policy.GuardState == "" {
		return
	}
	l.memory = map[string]seen{}
	data, err := os.ReadFile(l.file(memoryFile))
	if err != nil {
		return
	}
	text, err := os.ReadFile(l.file(keepsFile))
	if _, again := os.Lstat(l.file(coveredFile)); errors.Join(err, again) != nil {
		return
	}
	data, whole := bytes.CutPrefix(data, []byte(memoryHead))
	data, part := bytes.CutPrefix(data, []byte(partHead))
	if !whole && !part {
		return
	}
	l.whole = eachSeen(data, func(path []byte, s seen) bool {
		l.memory[string(path[:len(path)-1])] = s
		return true
	}) && whole
	list := readNotes(text, func(byte, string) {})
	if l.caught != nil {
		list = l.caught
	}
	for _, k := range list {
		l.keeps[k.Path] = k
	}
	for _, path := range l.passedOver() {
		dir := filepath.Dir(path)
		for ; within(dir, l.plan.top) && dir != l.plan.top; dir = filepath.Dir(dir) {
			if _, there := l.memory[l.below(dir)]; there {
				break
			}
		}
		l.again(l.below(dir))
	}
}

// encode is the records of all that is remembered.
func (l *look) encode() (data []byte) {
	for _, path := range slices.Sorted(maps.Keys(l.memory)) {
		s := l.memory[path]
		data = binary.LittleEndian.AppendUint64(data, s.inode)
		data = binary.LittleEndian.AppendUint64(data, uint64(s.changed))
		data = append(append(append(data, byte(s.kind)), path...), 0)
	}
	return data
}

// seenFixed is the part of a record that comes before the path.
const seenFixed = 8 + 8 + 1

// eachSeen calls f for each record of a memory, with the path as it stands there, until f says no. It tells whether all were read.
func eachSeen(data []byte, f func(path []byte, s seen) bool) bool {
	for len(data) > 0 {
		end := bytes.IndexByte(data[min(seenFixed, len(data)):], 0)
		if end < 0 {
			return false
		}
		s := seen{inode: binary.LittleEndian.Uint64(data), changed: int64(binary.LittleEndian.Uint64(data[8:])), kind: seenKind(data[16])}
		if !f(data[seenFixed:seenFixed+end+1], s) {
			return false
		}
		data = data[seenFixed+end+1:]
	}
	return true
}

// seenParts cuts a memory into parts of whole records and about a size.
func seenParts(data []byte, size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for begin, at := 0, 0; begin < len(data); {
			end := bytes.IndexByte(data[min(at+seenFixed, len(data)):], 0)
			at += seenFixed + end + 1
			if end < 0 {
				at = len(data)
			}
			if at-begin < size && at < len(data) {
				continue
			}
			if !yield(data[begin:at]) {
				return
			}
			begin = at
		}
	}
}

// save keeps what is remembered for the next sandbox.
func (l *look) save() error {
	if !l.mayKeep || !l.dirty {
		return nil
	}
	list := slices.SortedFunc(maps.Values(l.keeps), func(a, b kept) int { return strings.Compare(a.Path, b.Path) })
	if err := l.copies.save(list); err != nil {
		return err
	}
	data := []byte(partHead)
	if l.whole {
		data = []byte(memoryHead)
	}
	data = append(data, l.encode()...)
	// Without the one the other is not believed.
	_ = os.Remove(l.file(memoryFile))
	if err := l.writeKeeps(list); err != nil {
		return err
	}
	if err := l.replace(coveredFile, []byte(strings.Join(l.covered(), "\x00"))); err != nil {
		return err
	}
	if err := l.replace(memoryFile, data); err != nil {
		return err
	}
	l.dirty = false
	l.copies.drop(list, l.plan.kept)
	return l.saveMade()
}

func (l *look) writeKeeps(list []kept) error {
	var text notes
	for _, k := range list {
		text.addKept(k)
	}
	return l.replace(keepsFile, text.encode())
}

// replace writes a file of the guard's directory.
func (l *look) replace(name string, data []byte) error { return replaceFile(l.file(name), data) }

// replaceFile writes a file that is the old one or the new one, whole, at any time.
func replaceFile(file string, data []byte) error {
	next := file + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// catchUp copies again what the user has changed of what is kept since the last look: that is what is put back.
func (l *look) catchUp() error {
	if !l.mayKeep || l.memory != nil { // it was all looked at just now
		return nil
	}
	text, err := os.ReadFile(l.file(keepsFile))
	if err != nil || len(text) == 0 {
		return nil //nolint:nilerr // the usual case: nothing is kept
	}
	list, changed := readNotes(text, func(byte, string) {}), false
	for i, k := range list {
		if k.untouched() {
			continue
		}
		now, err := l.copies.keep(k.Path)
		if err != nil {
			return err
		}
		if l.mayBeOthers(now) || !now.there() && l.others.share(k.Path) {
			continue // what it was before is what is put back
		}
		list[i], changed = now, true
		for j, f := range list[i].Files {
			list[i].Files[j].ID = settled(f.ID)
		}
	}
	if !changed {
		return nil
	}
	// What is gone is new if it comes again.
	l.caught = slices.DeleteFunc(list, func(k kept) bool { return !k.there() && k.In != 0 })
	return nil
}

// madeRepositories are the git directories that sandboxes have made, by their paths.
func madeRepositories(state string) (made map[string]birth) {
	data, err := os.ReadFile(filepath.Join(state, madeFile))
	if state == "" || err != nil || json.Unmarshal(data, &made) != nil {
		return nil // then they are guarded like the user's
	}
	return made
}

func (l *look) saveMade() error {
	before := madeRepositories(l.policy.guardDir())
	all := maps.Clone(l.made)
	for path, b := range before {
		if _, ok := all[path]; !ok && birthOf(path) == b {
			all[path] = b
		}
	}
	if maps.Equal(all, before) {
		return nil
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(l.file(madeFile), data, 0o600)
}
