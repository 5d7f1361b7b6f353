package sandbox

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// view is the host's files as one plan sees them: each path is looked at once, however many rules speak of it, and
// without what package os makes of it, since every start does. It must not outlive the plan: what is hidden is what is there now.
type view struct {
	seen  map[string]glance   // by path
	lists map[string]*listing // by path
}

// glance is what lstat says of a path.
type glance struct {
	mode fs.FileMode // type and permissions only
	err  error
}

// listing is what is in a directory.
type listing struct {
	types map[string]fs.FileMode // by name
	err   error                  // why there may be more
}

func newView() *view { return &view{seen: make(map[string]glance, 100), lists: map[string]*listing{}} }

// lstat is that of the path itself, if it is a link.
func (v *view) lstat(path string) (fs.FileMode, error) {
	if g, ok := v.seen[path]; ok {
		return g.mode, g.err
	}
	// Most are not there, and their directories' lists tell that for less.
	slash := strings.LastIndexByte(path, '/')
	if list := v.lists[path[:max(slash, 1)]]; list != nil && list.err == nil {
		if _, ok := list.types[path[slash+1:]]; !ok {
			return 0, unix.ENOENT
		}
	}
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	for errors.Is(err, unix.EINTR) {
		err = unix.Lstat(path, &st)
	}
	g := glance{err: err}
	if err == nil {
		g.mode = fs.FileMode(st.Mode).Perm() | typeOf(st.Mode>>12)
	}
	v.seen[path] = g
	return g.mode, g.err
}

// typeOf turns the kernel's number for a kind of file, as directories have it, into Go's.
func typeOf(kind uint32) fs.FileMode {
	switch kind {
	case unix.DT_REG:
		return 0
	case unix.DT_DIR:
		return fs.ModeDir
	case unix.DT_LNK:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}

// maxLinks is how many links may be on the way to a file.
const maxLinks = 255

// real is a clean absolute path without links, as filepath.EvalSymlinks finds it.
func (v *view) real(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", unix.EINVAL
	}
	at, rest, links := "/", path[1:], 0
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next := strings.TrimSuffix(path[:max(len(path)-len(rest), 0)], "/")
		switch {
		case links == 0: // then it is still the beginning of the path
		case name == "" || name == ".":
			continue
		case name == "..":
			at = filepath.Dir(at)
			continue
		default:
			next = strings.TrimSuffix(at, "/") + "/" + name
		}
		mode, err := v.lstat(next)
		switch {
		case err != nil:
			return "", err
		case mode&fs.ModeSymlink != 0:
			text, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if links++; links > maxLinks {
				return "", unix.ELOOP
			}
			if filepath.IsAbs(text) {
				at = "/"
			}
			rest = text + "/" + rest
		case rest != "" && !mode.IsDir():
			return "", unix.ENOTDIR
		default:
			at = next
		}
	}
	return at, nil
}

// resolve follows the links of a path as far as it exists.
func (v *view) resolve(path string) string {
	parent := filepath.Dir(path)
	if real, err := v.real(path); err == nil || parent == path {
		return cmp.Or(real, path)
	}
	return filepath.Join(v.resolve(parent), filepath.Base(path))
}

// isReal tells whether a path is there and has no links in it.
func (v *view) isReal(path string) bool {
	real, err := v.real(path)
	return err == nil && real == path
}

// directory is a path without links, if that is a directory's.
func (v *view) directory(path string) (real string, ok bool) {
	real, err := v.real(path)
	if err != nil {
		return "", false
	}
	mode, err := v.lstat(real)
	return real, err == nil && mode.IsDir()
}

// list is what is in a directory that has no links in its path.
func (v *view) list(dir string) *listing {
	list, ok := v.lists[dir]
	if !ok {
		list = &listing{}
		list.types, list.err = v.read(dir)
		v.lists[dir] = list
	}
	return list
}

// read reads a directory.
func (v *view) read(dir string) (types map[string]fs.FileMode, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return types, err
		}
		if types == nil {
			types = make(map[string]fs.FileMode, n/32)
		}
		// Each is an inode and an offset, the record's length, the type and the name, as getdents64(2) has it.
		const head = 8 + 8 + 2 + 1
		for rest := string(buf[:n]); len(rest) > head; {
			size, kind := int(binary.NativeEndian.Uint16(buf[n-len(rest)+head-3:])), rest[head-1]
			name, _, _ := strings.Cut(rest[head:size], "\x00")
			if rest = rest[size:]; name == "." || name == ".." {
				continue
			}
			if types[name] = typeOf(uint32(kind)); kind == unix.DT_UNKNOWN { // not every file system has it there
				types[name], _ = v.lstat(filepath.Join(dir, name))
			}
		}
	}
}
