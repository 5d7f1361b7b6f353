package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// aside is where that goes which must not stay in the workspace, with its path there: programs of the host execute nothing in
// it, and nothing that somebody wanted is lost.
type aside struct {
	top   string // the workspace
	state string // below which it is; "" for none
	dir   string // made when it is first needed
}

// take moves a path and says where to. Where that is on another disk it stays beside its place, under a name that means nothing;
// what cannot be moved at all is removed, "".
func (a *aside) take(path string) (to string, err error) {
	dir, err := openReal(filepath.Dir(path))
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	name := filepath.Base(path)
	if into, to, err := a.place(path); err == nil {
		err = unix.Renameat(dir, name, into, filepath.Base(to))
		if errors.Is(err, unix.EACCES) { // the sandbox has locked the directory, or this one
			_ = unlock(dir)
			if locked, err := openIn(dir, name); err == nil {
				_ = unlock(locked)
				unix.Close(locked)
			}
			err = unix.Renameat(dir, name, into, filepath.Base(to))
		}
		unix.Close(into)
		if err == nil {
			return to, nil
		}
	}
	beside := "sesame-swept-" + time.Now().Format("20060102-150405.000000000")
	err = unix.Mkdirat(dir, beside, 0o700)
	if err == nil {
		var into int
		if into, err = openIn(dir, beside); err == nil {
			err = unix.Renameat(dir, name, into, "from"+name)
			unix.Close(into)
		}
		if err == nil {
			return filepath.Join(filepath.Dir(path), beside, "from"+name), nil
		}
		_ = unix.Unlinkat(dir, beside, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.EBUSY) { // something is mounted there, which is not the sandbox's
		return "", &fs.PathError{Op: "move", Path: path, Err: err}
	}
	root, err := os.OpenRoot(filepath.Join("/proc/self/fd", strconv.Itoa(dir)))
	if err != nil {
		return "", err
	}
	defer root.Close()
	return "", root.RemoveAll(name)
}

// errNoPlace says that there is nowhere to put things aside.
var errNoPlace = errors.New("no place for it")

// place opens the directory that a path goes into, and says where it will be. What was taken before is there, too: a link among that leads
// nowhere, and who still has a directory of it open, as another sandbox may, cannot put a link on the way.
func (a *aside) place(path string) (dir int, to string, err error) {
	if a.state == "" { // or the temporary directory would be taken
		return -1, "", errNoPlace
	}
	if a.dir == "" {
		if a.dir, err = os.MkdirTemp(a.state, "swept-"+time.Now().Format("20060102-150405-")); err != nil {
			return -1, "", err
		}
	}
	to = filepath.Join(a.dir, filepath.Base(path))
	if within(path, a.top) {
		to = filepath.Join(a.dir, strings.TrimPrefix(path, a.top))
	}
	if dir, err = makeWay(a.dir, strings.TrimPrefix(filepath.Dir(to), a.dir)); err == nil {
		var st unix.Stat_t
		if errors.Is(unix.Fstatat(dir, filepath.Base(to), &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT) {
			return dir, to, nil
		}
		unix.Close(dir)
	}
	again, err := os.MkdirTemp(a.dir, "again-") // the same path for the second time, or something else on the way
	if err != nil {
		return -1, "", err
	}
	dir, err = openReal(again)
	return dir, filepath.Join(again, filepath.Base(path)), err
}

// makeWay opens a directory below another one, made with all that are above it.
func makeWay(top, below string) (int, error) {
	dir, err := openReal(top)
	for part := range strings.SplitSeq(below, "/") {
		if err != nil {
			return -1, err
		}
		if part == "" {
			continue
		}
		_ = unix.Mkdirat(dir, part, 0o700) // opening it tells
		next, again := openIn(dir, part)
		unix.Close(dir)
		dir, err = next, again
	}
	return dir, err
}

// openIn opens a directory of a directory, which is no link.
func openIn(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// close removes what was made for nothing.
func (a *aside) close() {
	if a.dir != "" {
		_ = os.Remove(a.dir) // if there is something in it, it stays
	}
}
