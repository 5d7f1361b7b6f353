package sandbox

import (
	"errors"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// An ordinary user's sandbox can take the rights to a directory from itself and from whoever looks into it then. Once somebody
// gives them back all is there again that it has hidden: it is unlocked by the look that finds it.

// locked tells whether the sandbox has kept a directory from its owner.
func (l *look) locked(st *unix.Stat_t) bool {
	return st.Mode&0o500 != 0o500 && l.treat && l.inTurn(st.Ctim.Nano())
}

// mayWrite tells whether a directory is where the sandbox may have changed something.
func (l *look) mayWrite(dir string) bool {
	return within(dir, l.plan.top) || slices.ContainsFunc(l.plan.gits, func(git string) bool { return within(dir, git) })
}

// letIn unlocks a directory and those above it that the sandbox has locked. It tells whether there were any.
func (l *look) letIn(dir string) (unlocked bool) {
	if !l.treat {
		return false
	}
	var way []string
	for ; l.mayWrite(dir); dir = filepath.Dir(dir) {
		way = append(way, dir)
	}
	for _, dir := range slices.Backward(way) {
		fd, err := openReal(dir)
		if err != nil {
			return unlocked // it is somebody else's, or not there
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && l.locked(&st) && unlock(fd) == nil {
			unlocked = true
		}
		unix.Close(fd)
	}
	return unlocked
}

// keep looks at a path and copies what is there, as copies.keep does.
func (l *look) keep(path string) (kept, error) {
	k, err := l.copies.keep(path)
	if errors.Is(err, unix.EACCES) && l.letIn(filepath.Dir(path)) {
		return l.copies.keep(path)
	}
	return k, err
}

// openList opens a directory for reading it. One that the sandbox has locked it unlocks.
func (l *look) openList(path string, st *unix.Stat_t) (int, error) {
	const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	if l.locked(st) {
		locked, err := unix.Openat2(l.top, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve})
		if err != nil {
			return -1, err
		}
		defer unix.Close(locked)
		_ = unlock(locked) // if it is somebody else's, opening it says so
	}
	return unix.Openat2(l.top, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve})
}

// unlock lets its owner into a directory again.
func unlock(dir int) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	return unix.Fchmodat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(dir), st.Mode&0o7777|0o700, 0)
}
