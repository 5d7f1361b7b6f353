package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// look goes through the directories of a workspace for what programs of the host execute and the plan's mounts do not
// guard: other repositories, and settings of editors, shells and agents below the top. It remembers each directory
// with a number and a time that change when something is made in it, so that only what changed is read again.
type look struct {
	policy *Policy
	plan   *sweep
	memory map[string]seen  // by path below the top, that itself "."
	whole  bool             // that is all there is
	made   map[string]birth // git directories that the sandbox has made
	// arrivals are of what this turn may have brought: another pass of it is to know that, though it was there before.
	arrivals map[string]arrival
	dirty    bool            // it was changed since it was kept
	keeps    map[string]kept // what programs of the host execute and nothing else guards, by path
	caught   []kept          // these, with what the user has changed since they were kept; nil for no changes
	free     []string        // what the policy allows to be written
	copies   copies
	turns    []turn    // those before this one, once they are asked for
	beside   *memories // what the guards of other workspaces know of this one's, likewise
	// mayKeep says that what is remembered may be written.
	mayKeep    bool
	halt, done chan struct{} // of going ahead
	deadline   func(most time.Duration) (over func() bool)

	// What was changed in this time is the sandbox's doing, and is dealt with if treat is set, or left for later.
	since, until int64 // as the workspace's file system has it; no until is the present
	treat        bool
	others       others           // that were running when this one began
	dirsBefore   map[string]birth // which directories were there when somebody noted it last
	aside        aside
	changes      []change
	unseen       []string // directories, and what is too large
	exposed      []string // what was to be hidden and was not
	errs         []error

	// For one pass.
	pass      int
	top       int                 // a descriptor of the workspace
	children  map[string][]string // of the directories that are remembered, by their paths
	inodes    map[uint64]string   // the paths of these
	guardedIn map[string][]string // what programs of the host execute, likewise
	judged    map[string]bool
	gits      map[string]bool // git directories that are looked at, or guarded otherwise
	known     []place         // still to be gone to: first what was there before, then what was made since, which may be endless
	fresh     []place
	pointers  []place // .git files
	buffer    []byte
}

// seen is what is remembered of a path: with another number or time it is another one, or was changed.
type seen struct {
	inode   uint64 // 0: there is nothing
	changed int64  // in nanoseconds; 0: it may have changed since
	kind    seenKind
	pass    int // the last in which it was there
}

type seenKind byte

const (
	directory  seenKind = 'd'
	repository seenKind = 'g' // a git directory
	guarded    seenKind = 'p' // what programs of the host execute, or a part of it
)

// place is a directory to go to.
type place struct {
	path string
	came arrival
}

// arrival is how something came to where it is, as far as that matters to what is in it.
type arrival int

const (
	known   arrival = iota // it was here before
	unknown                // nobody has seen it
	brought                // likewise, and this turn may have put it here: it may be an earlier turn's, which had it where nobody looks
	moved                  // this turn has put it here, and with it all that is in it, whatever the times of that say
)

// below is how something came that is in a directory and is gone to by itself.
func (a arrival) below() arrival {
	if a == unknown {
		return known // or it is not there among what is remembered
	}
	return a
}

// unseen tells of what nobody knows where it was until now.
func (a arrival) unseen() bool { return a == unknown || a == brought }

// maxSeen bounds the memory that a look takes.
const maxSeen = 300_000

// through goes through the workspace, and tells whether it came to its end before stop says so.
func (l *look) through(stop func() bool) (whole bool, err error) {
	if l.top, err = openReal(l.plan.top); err != nil {
		return false, fmt.Errorf("look through the workspace: %w", err)
	}
	defer unix.Close(l.top)
	l.begin()
	defer func() { l.children, l.inodes, l.guardedIn, l.buffer = nil, nil, nil, nil }()
	for l.whole = true; l.whole; l.whole = len(l.memory) <= maxSeen && !stop() {
		var p place
		switch {
		case len(l.known) > 0:
			p, l.known = l.known[0], l.known[1:]
		case len(l.fresh) > 0:
			p, l.fresh = l.fresh[0], l.fresh[1:]
		default:
			l.followPointers()
			if l.treat { // before, it shows where things were
				l.forget()
			}
			return true, nil
		}
		l.goTo(p)
	}
	for _, p := range l.pointers { // it is not known yet what they lead to
		l.again(filepath.Dir(p.path))
	}
	return false, nil
}

// begin prepares for another pass.
func (l *look) begin() {
	if l.memory == nil {
		l.memory = map[string]seen{}
	}
	l.pass++
	l.buffer = make([]byte, 32<<10)
	l.pointers, l.judged, l.gits, l.guardedIn = nil, map[string]bool{}, map[string]bool{}, map[string][]string{}
	l.known, l.fresh = []place{{path: "."}}, nil
	for _, dir := range l.plan.gits {
		l.gits[dir] = true
		if within(dir, l.plan.top) {
			l.send(place{path: join(l.below(dir), "modules")})
		}
	}
	l.children, l.inodes = make(map[string][]string, len(l.memory)/4), make(map[uint64]string, len(l.memory))
	for path, s := range l.memory {
		if s.kind != guarded && path != "." {
			dir := filepath.Dir(path)
			l.children[dir] = append(l.children[dir], filepath.Base(path))
			if s.inode != 0 {
				l.inodes[s.inode] = path
			}
		}
	}
	for path := range l.keeps {
		dir := l.below(filepath.Dir(path))
		l.guardedIn[dir] = append(l.guardedIn[dir], filepath.Base(path))
	}
}

// forget drops what is not there any more.
func (l *look) forget() {
	before := len(l.memory)
	maps.DeleteFunc(l.memory, func(_ string, s seen) bool { return s.pass != l.pass })
	l.dirty = l.dirty || len(l.memory) != before
	maps.DeleteFunc(l.keeps, func(path string, _ kept) bool { return !l.judged[path] })
}

func (l *look) lstat(path string, st *unix.Stat_t) error {
	err := unix.Fstatat(l.top, path, st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EACCES) && l.letIn(l.at(filepath.Dir(path))) {
		err = unix.Fstatat(l.top, path, st, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

// note remembers a path.
func (l *look) note(path string, id fileID, kind seenKind) {
	if kind == guarded {
		id = l.settled(l.at(path), id)
	}
	s := seen{id.Inode, settled(id).Changed, kind, l.pass}
	was := l.memory[path]
	was.pass = s.pass
	l.dirty = l.dirty || was != s
	l.memory[path] = s
}

// noteIn remembers what is in a directory and is not gone to, because a change in it does not show above it.
func (l *look) noteIn(dir string, names ...string) {
	for _, name := range names {
		var st unix.Stat_t
		if l.lstat(join(dir, name), &st) == nil {
			l.note(join(dir, name), idOf(&st), guarded)
		}
	}
}

// again has a path looked at once more by the next pass.
func (l *look) again(path string) {
	if s, ok := l.memory[path]; ok {
		s.changed, l.dirty = 0, true
		l.memory[path] = s
	}
}

// leave leaves what is the sandbox's doing to a later pass, which must not take it for the user's.
func (l *look) leave(path string, was seen) {
	if l.memory[path] = was; was == (seen{}) {
		delete(l.memory, path)
	}
	l.again(path)
	l.again(filepath.Dir(path))
}

// goTo looks at a directory.
func (l *look) goTo(p place) {
	var st unix.Stat_t
	switch err := l.lstat(p.path, &st); {
	case err != nil && !missing(err): // its path is too long: programs can go there step by step
		if l.treat { // or it is told by a later pass, which comes here again
			l.unseen = append(l.unseen, l.at(filepath.Dir(p.path)))
		}
		return
	case err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR:
		delete(l.memory, p.path)
		return
	}
	id := idOf(&st)
	was, there := l.memory[p.path]
	there = there && was.inode == id.Inode && was.kind != guarded
	if there && p.came != moved {
		p.came = l.arrivals[p.path]
	}
	if at, elsewhere := l.inodes[id.Inode]; !there && p.came != moved {
		switch {
		case !elsewhere && l.elsewhere().seen[l.at(p.path)] == id.Inode:
			p.came = known
		case !elsewhere && (p.came == brought || l.inTurn(id.Changed)):
			p.came = brought
		case !elsewhere:
			p.came = unknown
		case at != p.path && l.bySandbox(l.at(p.path), id.Changed):
			p.came = moved
		}
	}
	if p.came == moved && !l.treat {
		l.leave(p.path, was)
		return
	}
	if p.came == brought {
		l.arrivals[p.path] = brought
	}
	var c contents
	if there && was.changed == id.Changed {
		c = l.remembered(p.path, was.kind)
	} else {
		var err error
		if c, err = l.list(p.path, &st); err != nil {
			l.cannotList(p.path, &st, err)
			return
		}
	}
	kind := directory
	if c.repository || filepath.Base(p.path) == ".git" {
		kind = repository
	}
	l.note(p.path, id, kind)
	left := false
	for _, name := range c.guarded {
		left = l.path(l.at(join(p.path, name)), p.came, false) || left
	}
	if c.dotGit {
		left = l.dotGit(place{join(p.path, ".git"), p.came}) || left
	}
	if c.repository {
		left = l.repository(p, &st, was) || left
	}
	if left && p.came.unseen() {
		l.leave(p.path, seen{})
	}
	for _, name := range c.dirs {
		if c.repository && insideGit(p.path) && name != "modules" {
			continue // of a submodule's git directory
		}
		l.send(place{join(p.path, name), p.came.below()})
	}
}

// send has a directory gone to, unless nothing in it can be written or whoever may write there may do as he likes.
func (l *look) send(p place) {
	if l.passes(l.at(p.path)) {
		return
	}
	if s, there := l.memory[p.path]; there && s.inode != 0 {
		l.known = append(l.known, p)
	} else {
		// If this pass does not come to it the next one does.
		l.memory[p.path] = seen{kind: directory, pass: l.pass}
		l.fresh = append(l.fresh, p)
	}
}

// dotGit looks at what git takes for the repository of a directory, and tells whether it left something to a later pass.
func (l *look) dotGit(p place) (left bool) {
	var st unix.Stat_t
	if l.lstat(p.path, &st) != nil {
		return false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if l.gits[l.at(p.path)] {
			return false
		}
		was := l.memory[p.path]
		l.note(p.path, idOf(&st), repository)
		left = l.repository(p, &st, was)
		l.send(place{join(p.path, "modules"), p.came.below()})
	case unix.S_IFREG:
		l.pointers = append(l.pointers, p)
	case unix.S_IFLNK:
		left = l.path(l.at(p.path), p.came, false)
	}
	return left
}

// repository looks at a git directory, of which something was remembered, and tells whether it left something to a later pass.
func (l *look) repository(p place, st *unix.Stat_t, was seen) (left bool) {
	dir := l.at(p.path)
	if l.gits[dir] {
		return false // it is guarded otherwise
	}
	l.gits[dir] = true
	theirs := false
	if before := was.inode == st.Ino && was.kind == repository; !before && p.came != moved {
		if l.byTurn(dir, st.Ctim.Nano(), p.came) {
			p.came = moved
		} else {
			theirs = l.others.mayHave(dir, st.Ctim.Nano())
		}
	}
	if p.came == moved && !l.treat || theirs {
		l.leave(p.path, was)
		return true
	}
	if p.came == moved {
		l.made[dir] = birthOf(dir)
	}
	inside := insideGit(p.path)
	if inside { // or they are gone to like all others
		l.noteIn(p.path, "info", "worktrees")
	}
	for _, name := range []string{"config", "config.worktree", "commondir", "hooks", "info/attributes"} {
		left = l.path(filepath.Join(dir, name), p.came, true) || left
	}
	for _, own := range l.worktreesOf(dir) {
		came := l.cameHere(own, p.came)
		if came == moved && !l.treat {
			// What leads there must not have it remembered.
			l.memory[l.below(own)] = seen{inode: l.memory[l.below(own)].inode, kind: guarded, pass: l.pass}
			l.again(p.path)
			left, l.dirty = true, true
			continue
		}
		if inside {
			l.noteIn(join(p.path, "worktrees"), filepath.Base(own))
		}
		for _, name := range guardedInWorktree {
			left = l.path(filepath.Join(own, name), came, true) || left
		}
	}
	if filepath.Base(dir) == ".git" {
		l.configured(filepath.Dir(dir), dir)
	} else {
		l.configured(dir, dir)
	}
	if left && p.came.unseen() {
		l.leave(p.path, seen{})
	}
	return left
}

// worktreesOf are the parts of a git directory that belong to linked worktrees, also where the sandbox has locked them.
func (l *look) worktreesOf(git string) []string {
	worktrees := filepath.Join(git, "worktrees")
	if errors.Is(unix.Access(worktrees, unix.R_OK|unix.X_OK), unix.EACCES) {
		l.letIn(worktrees)
	}
	return worktreesOf(git)
}

// cameHere is how the part of a repository came that belongs to a linked worktree: it may be another one than was remembered.
func (l *look) cameHere(own string, repository arrival) arrival {
	var st unix.Stat_t
	switch path := l.below(own); {
	case repository == moved || l.lstat(path, &st) != nil || l.memory[path].inode == st.Ino:
		return repository
	case l.byTurn(own, st.Ctim.Nano(), max(repository, unknown)):
		return moved
	}
	return max(repository, unknown)
}

// configured looks at what the configuration of a repository names for one of its worktrees.
func (l *look) configured(worktree, gitDir string) {
	var st unix.Stat_t
	// What the sandbox made of it is not the user's word; and it is not so any more when it was dealt with.
	if !l.treat && unix.Lstat(filepath.Join(gitDir, "config"), &st) == nil && l.bySandbox(gitDir, st.Ctim.Nano()) {
		return
	}
	for _, path := range l.policy.configuredPaths(l.plan.top, worktree, gitDir, resolve) {
		l.target(path)
	}
}

// insideGit tells whether a path is in a directory .git, where nobody goes.
func insideGit(path string) bool { return strings.Contains("/"+path+"/", "/.git/") }

// followPointers looks at the .git files that were found, when it is known which repositories there are.
func (l *look) followPointers() {
	for _, p := range l.pointers {
		path := l.at(p.path)
		target := pathIn(path, "gitdir: ")
		var st unix.Stat_t
		if below := l.below(target); within(target, l.plan.top) && below != "." {
			id := fileID{}
			if l.lstat(below, &st) == nil {
				id = idOf(&st)
			}
			if l.memory[below].pass != l.pass {
				l.note(below, id, guarded)
			}
			// What nothing led to may have been put there.
			if !l.leadsRight(path) && l.bySandbox(target, id.Changed) {
				delete(l.keeps, path)
				p.came = moved
			}
		}
		if l.path(path, p.came, true) && p.came.unseen() {
			l.leave(filepath.Dir(p.path), seen{})
		}
		if common, _, ok := linkedWorktree(path); ok && l.gits[common] {
			l.configured(filepath.Dir(path), common)
		} else if l.gits[target] {
			l.configured(filepath.Dir(path), target)
		}
	}
}

// guardedBelow are those that matter below the workspace's top, too, and .git, by their names in small letters. Git reads
// .gitmodules and takes no command from it, and .gitconfig is the name of nothing there.
var guardedBelow = func() map[string]string {
	names := map[string]string{".git": ".git"}
	for _, name := range guardedNames {
		if !strings.HasPrefix(name, ".git") {
			names[name] = name
		}
	}
	return names
}()

// guardedFirst are the bytes that such a name may begin with.
var guardedFirst = func() (first [256]bool) {
	for name := range guardedBelow {
		first[name[0]], first[strings.ToUpper(name)[0]] = true, true
	}
	return first
}()

// contents are what a directory has in it, as far as it matters.
type contents struct {
	dirs       []string
	guarded    []string // what programs of the host execute
	dotGit     bool
	repository bool // git would take the directory itself for one
}

// remembered are the contents of a directory that was not changed.
func (l *look) remembered(path string, kind seenKind) contents {
	c := contents{guarded: l.guardedIn[path], repository: kind == repository && filepath.Base(path) != ".git"}
	for _, name := range l.children[path] {
		if name == ".git" {
			c.dotGit = true
		} else {
			c.dirs = append(c.dirs, name)
		}
	}
	if i := slices.Index(c.guarded, ".git"); i >= 0 {
		c.dotGit, c.guarded = true, slices.Delete(slices.Clone(c.guarded), i, i+1)
	}
	return c
}

// Parts of a git directory by which git knows it, each a bit.
var gitParts = []string{"HEAD", "objects", "refs", "commondir"}

func areRepository(parts int) bool { return parts&1 != 0 && (parts&8 != 0 || parts&6 == 6) }

// list reads a directory.
func (l *look) list(path string, st *unix.Stat_t) (c contents, err error) {
	fd, err := l.openList(path, st)
	if err != nil {
		return c, err
	}
	defer unix.Close(fd)
	is := func(name string) bool {
		var st unix.Stat_t
		return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	}
	parts, alike := 0, 0
	for {
		n, err := unix.ReadDirent(fd, l.buffer)
		if err != nil {
			return c, err
		}
		if n == 0 {
			break
		}
		for b := l.buffer[:n]; len(b) > 0; {
			size, kind := binary.NativeEndian.Uint16(b[16:]), b[18]
			name, _, _ := bytes.Cut(b[19:size], []byte{0})
			b = b[size:]
			if kind == unix.DT_UNKNOWN {
				var st unix.Stat_t
				if unix.Fstatat(fd, string(name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
					kind = unix.DT_DIR
				}
			}
			// Where capitals do not matter another name may be the same to programs.
			for i, part := range gitParts {
				if len(name) == len(part) && bytes.EqualFold(name, []byte(part)) {
					alike |= 1 << i
					if string(name) == part {
						parts |= 1 << i
					}
				}
			}
			if guardedFirst[name[0]] {
				official, ok := guardedBelow[strings.ToLower(string(name))]
				ok = ok && (official == string(name) || is(official))
				switch {
				case ok && official == ".git":
					c.dotGit = true
				case ok:
					c.guarded = append(c.guarded, official)
				}
				if ok || string(name) == "." || string(name) == ".." {
					continue
				}
			}
			if kind == unix.DT_DIR {
				c.dirs = append(c.dirs, string(name))
			}
		}
	}
	for i, part := range gitParts {
		if areRepository(alike) && parts&(1<<i) == 0 && is(part) {
			parts |= 1 << i
		}
	}
	c.repository = areRepository(parts) && filepath.Base(path) != ".git"
	return c, nil
}

// cannotList is called for a directory that cannot be read. The sandbox has no more rights than this process, but it
// may have made what is in it before it took them away.
func (l *look) cannotList(path string, st *unix.Stat_t, err error) {
	if missing(err) || errors.Is(err, unix.EACCES) && !l.inTurn(st.Ctim.Nano()) {
		return
	}
	if l.treat {
		l.unseen = append(l.unseen, l.at(path))
	}
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// at is the whole path of one below the top, and below is the way back.
func (l *look) at(path string) string { return filepath.Join(l.plan.top, path) }

func (l *look) below(path string) string {
	if path == l.plan.top {
		return "."
	}
	return strings.TrimPrefix(path, l.plan.top+"/")
}
