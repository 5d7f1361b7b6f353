package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// kept is something that programs of the host execute, as it was: a file, or a directory with all that is in it.
type kept struct {
	Path  string     // without links
	In    uint64     // the directory that it is in
	Files []keptFile // parents first; none where nothing is
	More  bool       // there are more than are looked at
	// Another sandbox may have left it so: it is known from what this one makes of it, and not put back.
	Foreign bool
}

// keptFile is a file or directory of it.
type keptFile struct {
	Path     string // below the kept path; "" is that itself
	ID       fileID
	Mode     uint32 // as stat(2) has it
	UID, GID int
	Modified int64  // in nanoseconds
	Text     string // of a link; or the name of the content among the copies, "" where there is none
}

// Bounds of what is kept. That a larger file was changed is found out, but it cannot be put back.
const (
	maxKeptFiles = 5000
	maxKeptFile  = 1 << 20
	maxKeptBytes = 16 << 20
	maxCopies    = 64 << 20 // in all
	maxKeptDepth = 20
)

// copies are what kept files had in them, by what they are named.
type copies struct {
	dir   string // where they last; "" while nothing does
	fresh map[string][]byte
	size  int // of the fresh ones
}

func (c *copies) put(data []byte) string {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	if c.fresh == nil {
		c.fresh = map[string][]byte{}
	}
	if _, ok := c.fresh[name]; !ok && c.size+len(data) <= maxCopies { // without, it can only be told from another one
		c.fresh[name] = data
		c.size += len(data)
	}
	return name
}

func (c *copies) get(name string) ([]byte, error) {
	if data, ok := c.fresh[name]; ok {
		return data, nil
	}
	if c.dir == "" || name == "" {
		return nil, fs.ErrNotExist
	}
	return os.ReadFile(filepath.Join(c.dir, name))
}

// putFrom takes over what is kept among the copies in another directory.
func (c *copies) putFrom(dir string, k kept) {
	for _, f := range k.Files {
		if f.Mode&unix.S_IFMT != unix.S_IFREG || f.Text == "" {
			continue
		}
		if c.size > maxCopies/4 { // the rest is for one's own
			return
		}
		if data, err := os.ReadFile(filepath.Join(dir, f.Text)); err == nil { // if not, it is not put back
			c.put(data)
		}
	}
}

// save writes those of a list that are not on the disk yet.
func (c *copies) save(list []kept) error {
	for _, k := range list {
		for _, f := range k.Files {
			data, ok := c.fresh[f.Text]
			if !ok || f.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			file := filepath.Join(c.dir, f.Text)
			if info, err := os.Lstat(file); err == nil && info.Size() == int64(len(data)) {
				continue
			}
			if err := os.MkdirAll(c.dir, 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(file, data, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop removes from the disk what no list needs.
func (c *copies) drop(needed ...[]kept) {
	names := map[string]bool{}
	for _, k := range slices.Concat(needed...) {
		for _, f := range k.Files {
			names[f.Text] = true
		}
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return // there are none
	}
	for _, e := range entries {
		if !names[e.Name()] {
			_ = os.Remove(filepath.Join(c.dir, e.Name())) // if not, the next one does
		}
	}
}

// openReal opens a directory by a path without links: nobody can send us elsewhere by a link that was made meanwhile.
func openReal(path string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// missing tells errors that say that there is nothing at a path, or only by way of a link.
func missing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// keep looks at a path and copies what is there.
func (c *copies) keep(path string) (kept, error) {
	k := kept{Path: path}
	dir, err := openReal(filepath.Dir(path))
	if missing(err) {
		return k, nil
	}
	if err != nil {
		return k, err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return k, err
	}
	k.In = st.Ino
	room := int64(maxKeptBytes)
	return k, c.add(&k, dir, filepath.Base(path), "", 0, &room)
}

// add adds what has a name in a directory, with what is in it. room is how many bytes may still be kept.
func (c *copies) add(k *kept, dir int, name, path string, depth int, room *int64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); missing(err) {
		return nil
	} else if err != nil {
		return err
	}
	if len(k.Files) >= maxKeptFiles || depth > maxKeptDepth {
		k.More = true
		return nil
	}
	at := len(k.Files)
	k.Files = append(k.Files, keptFile{Path: path, ID: idOf(&st), Mode: st.Mode, UID: int(st.Uid), GID: int(st.Gid), Modified: st.Mtim.Nano()})
	err := c.read(k, at, dir, name, st.Size, depth, room)
	// It may go or become something else meanwhile. That is known as changed, also where the next one in its place has its number and time.
	if f := &k.Files[at]; missing(err) || (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENXIO)) && !f.stillIn(dir, name) {
		f.ID.Changed = math.MaxInt64
		return nil
	}
	return err
}

// read adds what is in the file that was added last, which had a size when it was.
func (c *copies) read(k *kept, at, dir int, name string, size int64, depth int, room *int64) error {
	path := k.Files[at].Path
	switch k.Files[at].Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		text := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, text)
		if err != nil {
			return err
		}
		if k.Files[at].stillIn(dir, name) {
			k.Files[at].Text = string(text[:n])
		}
	case unix.S_IFREG:
		if size > min(maxKeptFile, *room) {
			return nil
		}
		data, err := readIn(dir, name, maxKeptFile)
		if errors.Is(err, unix.EACCES) || errors.Is(err, errTooLarge) {
			return nil // the sandbox is the same user and has no more rights, unless it takes them, which shows
		}
		if err != nil {
			return err
		}
		*room -= int64(len(data))
		if k.Files[at].stillIn(dir, name) {
			k.Files[at].Text = c.put(data)
		}
	case unix.S_IFDIR:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EACCES) {
			return nil
		}
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		names, err := f.Readdirnames(maxKeptFiles + 1)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			// In a directory that can be read and not entered nothing is known but names: its mode tells it from what it was.
			if err := c.add(k, fd, n, filepath.Join(path, n), depth+1, room); err != nil && !errors.Is(err, unix.EACCES) {
				return err
			}
		}
	}
	return nil
}

// stillIn tells whether a file is as it was before it was read. If not, it is known as what it is now, and without its content:
// the sandbox may be running.
func (f *keptFile) stillIn(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && idOf(&st) == f.ID {
		return true
	}
	f.ID = idOf(&st)
	if err != nil { // it is gone
		f.ID.Changed = math.MaxInt64
	}
	return false
}

var errTooLarge = errors.New("too large, or not a file")

// readIn reads a regular file of a directory, whatever is put in its place meanwhile.
func readIn(dir int, name string, most int64) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errTooLarge)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = errTooLarge
	}
	return data, err
}

func idOf(st *unix.Stat_t) fileID {
	return fileID{Inode: st.Ino, Changed: st.Ctim.Nano(), Size: st.Size}
}

// birth tells a file from all that were before it in its place, also where the number is given again.
type birth struct {
	Inode uint64
	Born  int64 // in nanoseconds; 0 where the file system does not say
}

// birthOf is that of what is at a path, that of nothing zero.
func birthOf(path string) birth {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return birth{}
	}
	b := birth{Inode: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		b.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return b
}

// settled is an id that shows whether the file is changed again. In one whose change is too young that may not show.
func settled(id fileID) fileID {
	if age := time.Since(time.Unix(0, id.Changed)); age < indexSettles {
		id.Changed = 0
	}
	return id
}

// changedSince tells whether something of it has changed since a time.
func (k kept) changedSince(when int64) bool {
	return slices.ContainsFunc(k.Files, func(f keptFile) bool { return f.ID.Changed >= when })
}

// there tells whether there is anything at all.
func (k kept) there() bool { return len(k.Files) > 0 }

// untouched tells whether nobody has changed anything of it, by looking at no more than times and numbers.
func (k kept) untouched() bool {
	var st unix.Stat_t
	if !k.there() {
		return missing(unix.Fstatat(unix.AT_FDCWD, k.Path, &st, unix.AT_SYMLINK_NOFOLLOW))
	}
	for _, f := range k.Files {
		if err := unix.Fstatat(unix.AT_FDCWD, filepath.Join(k.Path, f.Path), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || idOf(&st) != f.ID {
			return false
		}
	}
	return true
}

// same tells whether both are the same but for times and numbers.
func (k kept) same(other kept) bool {
	return !k.More && !other.More && slices.EqualFunc(k.Files, other.Files, func(a, b keptFile) bool {
		known := a.Text != "" || a.Mode&unix.S_IFMT == unix.S_IFDIR
		return a.Path == b.Path && a.Mode == b.Mode && a.Text == b.Text && (known || a.ID == b.ID)
	})
}

// canPutBack tells whether all of it is known, and the place is still the one where it was.
func (c *copies) canPutBack(k kept) bool {
	dir, err := openReal(filepath.Dir(k.Path))
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	return !k.More && k.there() && unix.Fstat(dir, &st) == nil && st.Ino == k.In && !slices.ContainsFunc(k.Files, func(f keptFile) bool {
		switch f.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			_, err := c.get(f.Text)
			return err != nil
		case unix.S_IFLNK:
			return f.Text == ""
		}
		return false
	})
}

// putBack makes it again in a place where nothing is.
func (c *copies) putBack(k kept) error {
	dir, err := openReal(filepath.Dir(k.Path))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for _, f := range k.Files {
		if err := c.makeAgain(dir, filepath.Join(filepath.Base(k.Path), f.Path), f); err != nil {
			return &fs.PathError{Op: "put back", Path: filepath.Join(k.Path, f.Path), Err: err}
		}
	}
	// Directories get their modes when all is in them, the innermost first.
	for _, f := range slices.Backward(k.Files) {
		if f.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := dress(dir, filepath.Join(filepath.Base(k.Path), f.Path), f); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeAgain makes one of its files.
func (c *copies) makeAgain(top int, path string, f keptFile) error {
	dir, err := unix.Openat2(top, filepath.Dir(path), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := filepath.Base(path)
	switch f.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.Mkdirat(dir, name, 0o700)
	case unix.S_IFLNK:
		return unix.Symlinkat(f.Text, dir, name)
	case unix.S_IFREG:
		data, err := c.get(f.Text)
		if err != nil {
			return err
		}
		if err := writeIn(dir, name, data, 0o600); err != nil {
			return err
		}
		return dress(dir, name, f)
	}
	return nil // pipes and the like execute nothing
}

// writeIn makes a file in a directory.
func writeIn(dir int, name string, data []byte, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// dress gives a file the owner, mode and time that it had.
func dress(dir int, path string, f keptFile) error {
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if f.UID != os.Geteuid() || f.GID != os.Getegid() {
		_ = unix.Fchown(fd, f.UID, f.GID) // only root can; others could not have changed the owner either
	}
	if err := unix.Fchmod(fd, f.Mode&0o7777); err != nil {
		return err
	}
	times := []unix.Timeval{unix.NsecToTimeval(f.Modified), unix.NsecToTimeval(f.Modified)}
	return unix.Futimes(fd, times)
}
