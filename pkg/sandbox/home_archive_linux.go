package sandbox

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// archiveFile, in Policy.HomeState, keeps what turns changed in a home whose file system can have no upper layer: an overlay
// cannot, which is what containers have. The layer is in memory then, is filled before the sandbox begins, and put away when it
// has ended.
const archiveFile = "changes.tar"

// maxArchive bounds what is kept so: files in memory may have holes as large as they like, which an archive has not.
const maxArchive = 4 << 30

// By this attribute overlayfs hides what lower layers have in a directory; an archive has another name for it.
const (
	opaqueAttribute = "user.overlay.opaque"
	opaqueRecord    = "SCHILY.xattr." + opaqueAttribute
)

// endMark is the last name in an archive, and of no file: archive/tar takes one that was cut off for a whole one.
const endMark = "."

// memoryHome is a home's upper layer in memory.
type memoryHome struct {
	upper   *os.Root
	dir     *os.File // by whose descriptor it is named
	archive string
	partial bool // it has not all that the archive has
}

// openMemoryHome takes the layer's directory, which may be in another mount namespace, by descriptor.
func openMemoryHome(upper int, state string) (*memoryHome, error) {
	dir := os.NewFile(uintptr(upper), "home")
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", upper))
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &memoryHome{upper: root, dir: dir, archive: filepath.Join(state, archiveFile)}, nil
}

// modeBits are what chmod sets.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// fill brings back what the archive has.
func (m *memoryHome) fill() error {
	f, err := os.Open(m.archive)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := tar.NewReader(bufio.NewReader(f))
	var dirs []*tar.Header
	for {
		h, err := r.Next()
		if err == nil && path.Clean(h.Name) == endMark {
			break
		}
		switch {
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		case err == nil:
			err = m.add(h, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.archive, err)
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- { // what is in them is there
		if err := m.finishDir(dirs[i]); err != nil {
			return fmt.Errorf("%s: %w", m.archive, err)
		}
	}
	return nil
}

func (m *memoryHome) add(h *tar.Header, content io.Reader) error {
	name := path.Clean(h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		return m.upper.Mkdir(name, 0o700)
	case tar.TypeSymlink:
		return m.upper.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return m.upper.Link(h.Linkname, name)
	case tar.TypeChar:
		dir, err := m.upper.Open(path.Dir(name))
		if err != nil {
			return err
		}
		defer dir.Close()
		return unix.Mknodat(int(dir.Fd()), path.Base(name), unix.S_IFCHR, 0)
	case tar.TypeReg:
		f, err := m.upper.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		err = copyWithHoles(f, content, h.Size)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := m.upper.Chtimes(name, h.ModTime, h.ModTime); err != nil {
			return err
		}
		return m.upper.Chmod(name, h.FileInfo().Mode()&modeBits)
	}
	return fmt.Errorf("%s is of an unknown kind", name)
}

// copyWithHoles leaves out what is zero: a file with holes took no memory when it was made.
func copyWithHoles(to *os.File, from io.Reader, size int64) error {
	var zeros [32 << 10]byte
	piece := make([]byte, len(zeros))
	for at := int64(0); ; {
		n, err := io.ReadFull(from, piece)
		if !bytes.Equal(piece[:n], zeros[:n]) {
			if _, err := to.WriteAt(piece[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && at == size:
			return to.Truncate(size)
		case err != nil:
			return err
		}
	}
}

func (m *memoryHome) finishDir(h *tar.Header) error {
	name := path.Clean(h.Name)
	if value, ok := h.PAXRecords[opaqueRecord]; ok {
		dir, err := m.upper.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(int(dir.Fd()), opaqueAttribute, []byte(value), 0)
		if err = errors.Join(err, dir.Close()); err != nil {
			return err
		}
	}
	if err := m.upper.Chtimes(name, h.ModTime, h.ModTime); err != nil {
		return err
	}
	return m.upper.Chmod(name, h.FileInfo().Mode()&modeBits)
}

// keep puts away what is there. If it fails, the archive is what it was. If it is killed, the next one begins the same file anew: it
// may be large.
func (m *memoryHome) keep() error {
	f, err := os.OpenFile(m.archive+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it has another name, or is good for nothing
	// The command may have closed its home, also for looking up its own name in it.
	if err := os.Chmod(m.upper.Name(), 0o700); err != nil {
		return errors.Join(err, f.Close())
	}
	buffer := bufio.NewWriter(f)
	w := &archiveWriter{Writer: tar.NewWriter(buffer), home: m.upper, first: map[uint64]string{}}
	err = fs.WalkDir(m.upper.FS(), ".", w.add)
	if err == nil {
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: endMark, Mode: 0o700})
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = buffer.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), m.archive)
}

type archiveWriter struct {
	*tar.Writer
	home  *os.Root
	first map[uint64]string // the first name of each file, by inode number
	size  int64
}

// add adds what a walk comes to. Whoever made it is gone, and may have made it for nobody to read.
func (w *archiveWriter) add(name string, e fs.DirEntry, err error) error {
	if err != nil || name == "." {
		return err
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	link := ""
	switch kind := info.Mode().Type(); {
	case kind == fs.ModeSymlink:
		if link, err = w.home.Readlink(name); err != nil {
			return err
		}
	case kind == 0 && info.Mode().Perm()&0o400 == 0, kind == fs.ModeDir && info.Mode().Perm()&0o500 != 0o500:
		if err := w.home.Chmod(name, 0o700); err != nil {
			return err
		}
	case kind == fs.ModeDevice|fs.ModeCharDevice && st.Rdev == 0: // what overlayfs says of something that was removed
	case kind != 0 && kind != fs.ModeDir:
		return nil // a socket or pipe, with nobody behind it
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	switch {
	case info.IsDir():
		if err := w.noteOpaque(h); err != nil {
			return err
		}
	case info.Mode().IsRegular() && st.Nlink > 1:
		if other, ok := w.first[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, other, 0
			return w.WriteHeader(h)
		}
		w.first[st.Ino] = name
	}
	if w.size += h.Size; w.size > maxArchive {
		return fmt.Errorf("they are more than %d GiB", maxArchive>>30)
	}
	if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := w.home.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

func (w *archiveWriter) noteOpaque(h *tar.Header) error {
	dir, err := w.home.Open(h.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	value := make([]byte, 8)
	n, err := unix.Fgetxattr(int(dir.Fd()), opaqueAttribute, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return nil
	case err == nil:
		h.PAXRecords = map[string]string{opaqueRecord: string(value[:n])}
	}
	return err
}

// fillHome is called when the first process could mount no home but one in memory, and waits for what earlier turns changed.
func (b *box) fillHome(fds []int) error {
	if len(fds) != 2 {
		return errors.New("malformed message of the first process")
	}
	upper, event := fds[0], os.NewFile(uintptr(fds[1]), "event")
	defer event.Close()
	m, err := openMemoryHome(upper, b.policy.HomeState)
	if err != nil {
		return err
	}
	b.memory = m
	if err := m.fill(); err != nil {
		m.partial = true
		b.notice(fmt.Sprintf("what earlier turns changed in the home directory cannot all be brought back, and what this one changes is not kept (remove the file to begin anew): %v", err))
	}
	// What is on the disk was cleared before, and had nothing of this in it.
	if err := clearWayIn(m.upper, b.head.(*firstProcess).planOfFiles()); err != nil {
		return err
	}
	_, err = event.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// leaveHome closes the home in memory, and puts it away before, unless another sandbox of the workspace may or it is not all there.
func (b *box) leaveHome() {
	if b.memory == nil {
		if b.lock != nil {
			mergeWithHost(filepath.Join(b.policy.HomeState, "upper"), b.unmade)
		}
		return
	}
	mergeWithHost(fmt.Sprintf("/proc/self/fd/%d", b.memory.dir.Fd()), b.unmade)
	defer b.memory.dir.Close()
	defer b.memory.upper.Close()
	if !b.ran || b.lock == nil || b.memory.partial {
		return
	}
	if err := b.memory.keep(); err != nil {
		b.notice(fmt.Sprintf("changes to the home directory are not kept for the next turn: %v", err))
	}
}
