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
	if to := a.place(path); to != "" {
		err := unix.Renameat(dir, name, unix.AT_FDCWD, to)
		if errors.Is(err, unix.EACCES) { // the sandbox has locked the directory, or this one
			_ = unlock(dir)
			if locked, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
				_ = unlock(locked)
				unix.Close(locked)
			}
			err = unix.Renameat(dir, name, unix.AT_FDCWD, to)
		}
		if err == nil {
			return to, nil
		}
	}
	beside := "sesame-swept-" + time.Now().Format("20060102-150405.000000000")
	err = unix.Mkdirat(dir, beside, 0o700)
	if err == nil {
		to := filepath.Join(beside, "from"+name)
		if err = unix.Renameat(dir, name, dir, to); err == nil {
			return filepath.Join(filepath.Dir(path), to), nil
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

// place is where a path goes; "" if there is no place for it.
func (a *aside) place(path string) string {
	if a.state == "" { // or the temporary directory would be taken
		return ""
	}
	if a.dir == "" {
		dir, err := os.MkdirTemp(a.state, "swept-"+time.Now().Format("20060102-150405-"))
		if err != nil {
			return ""
		}
		a.dir = dir
	}
	to := filepath.Join(a.dir, filepath.Base(path))
	if within(path, a.top) {
		to = filepath.Join(a.dir, strings.TrimPrefix(path, a.top))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return ""
	}
	if _, err := os.Lstat(to); err == nil { // the same path for the second time
		other, err := os.MkdirTemp(filepath.Dir(to), "again-")
		if err != nil {
			return ""
		}
		to = filepath.Join(other, filepath.Base(to))
	}
	return to
}

// close removes what was made for nothing.
func (a *aside) close() {
	if a.dir != "" {
		_ = os.Remove(a.dir) // if there is something in it, it stays
	}
}
