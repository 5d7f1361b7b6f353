package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// root builds the sandbox's tree of files. Everything of the host that is to be seen inside is
// opened before the first mount, and from then on named by descriptor only: a path that
// changes meanwhile changes nothing.
type root struct {
	fd      int            // the new root, a tmpfs
	sources map[string]int // by host path
	blank   int            // a tmpfs with an empty directory "dir", an unreadable file "file", and the files that are given
	procfs  int            // the pid namespace's own /proc
	strict  bool           // Plan.Strict
	files   int            // how many are given
	homeDev uint64         // the device of the copy-on-write home, 0 before it is there
	readers []int          // tmpfs mounts to make read-only at the end, when all mount points in them exist
	notices []string
}

// layersDir is where the home's layers are while they are put together.
const layersDir = "/.layers"

// newRoot makes an empty tree, which is not mounted anywhere yet.
func newRoot() (*root, error) {
	// Nothing may propagate to the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	r := &root{sources: map[string]int{}}
	var err error
	if r.fd, err = newTmpfs(0o755); err != nil {
		return nil, err
	}
	if r.blank, err = newTmpfs(0o755); err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(r.blank, "dir", 0o555); err != nil {
		return nil, err
	}
	if err := unix.Mknodat(r.blank, "file", unix.S_IFREG, 0); err != nil {
		return nil, err
	}
	if r.procfs, err = newFilesystem("proc"); err != nil {
		return nil, err
	}
	for _, d := range deviceNames {
		if err := r.openSource("/dev/" + d); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// build carries out the plan's mounts and makes the result the root directory.
func (r *root) build(pl *Plan) error {
	r.strict = pl.Strict
	if err := r.openSources(pl); err != nil {
		return err
	}
	stage, err := stageDir()
	if err != nil {
		return err
	}
	if err := unix.MoveMount(r.fd, "", unix.AT_FDCWD, stage, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("new root: %w", err)
	}
	for _, op := range pl.Mounts {
		if err := r.mount(op, pl); err != nil {
			return fmt.Errorf("%s %s: %w", op.Kind, op.Path, err)
		}
	}
	for _, fd := range append(r.readers, r.fd) {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make read-only: %w", err)
		}
	}
	return r.enter(pl.Dir)
}

// openSource opens something of the host as it is without following links: the parent has followed them.
func (r *root) openSource(path string) error {
	if _, ok := r.sources[path]; ok {
		return nil
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	r.sources[path] = fd
	return nil
}

// openSources opens what the plan takes from the host.
func (r *root) openSources(pl *Plan) error {
	for _, op := range pl.Mounts {
		if op.Kind == ReadOnly || op.Kind == ReadWrite {
			if err := r.openSource(op.Source); err != nil {
				return err
			}
		}
	}
	if h := pl.Home; h != nil {
		paths := []string{h.Host}
		if h.State != "" {
			paths = append(paths, h.State+"/upper", h.State+"/work")
		}
		for _, p := range paths {
			if err := r.openSource(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// stageDir is a directory to build on: any will do, for the host's tree is left behind afterwards.
func stageDir() (string, error) {
	for _, d := range []string{"/tmp", "/mnt", "/var", "/usr"} {
		if info, err := os.Stat(d); err == nil && info.IsDir() {
			return d, nil
		}
	}
	return "", errors.New("no directory to mount the new root on")
}

// newTmpfs makes a detached tmpfs and returns a descriptor of its root.
func newTmpfs(mode os.FileMode) (int, error) {
	return newFilesystem("tmpfs", [2]string{"mode", strconv.FormatUint(uint64(unixMode(mode)), 8)})
}

func unixMode(mode os.FileMode) uint32 {
	m := uint32(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		m |= unix.S_ISVTX
	}
	return m
}

// newFilesystem makes a file system with options (key and value; no value is a flag) and a detached mount of it.
func newFilesystem(kind string, options ...[2]string) (int, error) {
	fsfd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	defer unix.Close(fsfd)
	for _, o := range options {
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fsfd, o[0])
		} else {
			err = unix.FsconfigSetString(fsfd, o[0], o[1])
		}
		if err != nil {
			return -1, fmt.Errorf("%s option %s: %w", kind, o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("create %s: %w", kind, err)
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", kind, err)
	}
	return mnt, nil
}

func (r *root) mount(op Mount, pl *Plan) error {
	switch op.Kind {
	case ReadOnly:
		return r.bind(op.Source, op.Path, unix.MOUNT_ATTR_RDONLY)
	case ReadWrite:
		return r.bind(op.Source, op.Path, 0)
	case Hide:
		err := r.hide(op.Path, op.Blank)
		if errors.Is(err, unix.EACCES) {
			return nil // in somebody else's directory, where root inside has no more rights than anybody
		}
		return err
	case Tmp:
		_, err := r.tmpfs(op.Path, op.Mode)
		return err
	case Libraries:
		return r.libraries(op.Path, op.Mode)
	case Proc:
		return r.proc(op.Path)
	case Dev:
		return r.dev(op.Path)
	case Home:
		return r.home(op.Path, pl.Home)
	case Symlink:
		dir, err := r.makeDir(filepath.Dir(op.Path))
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		return unix.Symlinkat(op.Source, dir, filepath.Base(op.Path))
	case File:
		return r.file(op)
	}
	return errors.New("unknown kind of mount")
}

// lookup opens a path of the new root. The plan's paths have no links on the host, so a link on the way was
// made inside, in the home that lasts or in a place where mounts are not finished: it is not followed.
func (r *root) lookup(p string, flags uint64) (int, error) {
	return unix.Openat2(r.fd, strings.TrimPrefix(p, "/"), &unix.OpenHow{
		Flags:   flags | unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
}

// makeDir opens a directory of the new root, making it and its parents where they are missing.
func (r *root) makeDir(p string) (int, error) {
	if p == "/" {
		return unix.Openat(r.fd, ".", unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	fd, err := r.lookup(p, unix.O_DIRECTORY)
	if err == nil || !inTheWay(err) {
		return fd, err
	}
	return r.make(p, func(parent int, name string) error { return unix.Mkdirat(parent, name, 0o755) }, unix.O_DIRECTORY)
}

// mountPoint opens what a mount goes on, making a directory or an empty file where there is none.
func (r *root) mountPoint(p string, dir bool) (int, error) {
	if dir {
		return r.makeDir(p)
	}
	fd, err := r.lookup(p, 0)
	var st unix.Stat_t
	if err == nil {
		if err = unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fd, err
		}
		unix.Close(fd)
		err = unix.EISDIR
	}
	if !inTheWay(err) {
		return -1, err
	}
	return r.make(p, func(parent int, name string) error { return unix.Mknodat(parent, name, unix.S_IFREG|0o644, 0) }, 0)
}

// inTheWay tells errors that say that something is missing or of the wrong kind.
func inTheWay(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR)
}

// make makes a mount point. What an earlier turn put in its place in the home goes: it is in the
// layer of changes only, and would send the mount elsewhere.
func (r *root) make(p string, create func(parent int, name string) error, flags uint64) (int, error) {
	parent, err := r.makeDir(path.Dir(p))
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	err = create(parent, path.Base(p))
	if errors.Is(err, unix.EEXIST) && r.inHome(parent) {
		if err := removeTree(parent, path.Base(p)); err != nil {
			return -1, fmt.Errorf("remove what is in the place of %s: %w", p, err)
		}
		err = create(parent, path.Base(p))
	}
	if err != nil {
		return -1, err
	}
	return r.lookup(p, flags)
}

// inHome tells whether a directory belongs to the copy-on-write home itself, not to something mounted in it.
func (r *root) inHome(dir int) bool {
	var st unix.Stat_t
	return r.homeDev != 0 && unix.Fstat(dir, &st) == nil && st.Dev == r.homeDev
}

// removeTree removes a file, or a directory with all that is in it, without following links.
func removeTree(parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	dir, err := os.OpenRoot(fdPath(parent))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.RemoveAll(name)
}

// attach puts a detached mount on a path of the new root.
func (r *root) attach(mnt int, p string, dir bool) error {
	target, err := r.mountPoint(p, dir)
	if err != nil {
		return fmt.Errorf("mount point: %w", err)
	}
	defer unix.Close(target)
	return unix.MoveMount(mnt, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// bind shows a source of the host, with all that is mounted below it.
func (r *root) bind(source, p string, attr uint64) error {
	fd := r.sources[source]
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	mnt, err := cloneMount(fd, attr)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	return r.attach(mnt, p, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

func cloneMount(fd int, attr uint64) (int, error) {
	mnt, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	set := &unix.MountAttr{Attr_set: attr | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(mnt, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, set); err != nil {
		unix.Close(mnt)
		return -1, fmt.Errorf("mount_setattr: %w", err)
	}
	return mnt, nil
}

// tmpfs mounts a new tmpfs and returns a descriptor of its root, which stays open until the command runs.
func (r *root) tmpfs(p string, mode os.FileMode) (int, error) {
	mnt, err := newTmpfs(mode)
	if err == nil {
		err = r.forbidExec(mnt)
	}
	if err != nil {
		return -1, err
	}
	return mnt, r.attach(mnt, p, true)
}

// libraries mounts a tmpfs that libraries are loaded from. What keeps programs in it from being started is Landlock;
// without that nothing can be loaded from it either.
func (r *root) libraries(p string, mode os.FileMode) error {
	if LandlockABI() < abiRefer {
		_, err := r.tmpfs(p, mode)
		return err
	}
	mnt, err := newTmpfs(mode)
	if err != nil {
		return err
	}
	return r.attach(mnt, p, true)
}

// forbidExec keeps what is in a mount from being executed, under the strict profile.
func (r *root) forbidExec(mnt int) error {
	if !r.strict {
		return nil
	}
	return unix.MountSetattr(mnt, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOEXEC})
}

// hide covers a directory with an empty one, a file with one that nobody may read.
func (r *root) hide(p string, what Blank) error {
	if what == BlankParent {
		mnt, err := r.tmpfs(p, 0o555)
		r.readers = append(r.readers, mnt)
		return err
	}
	mnt, err := r.blankMount(string(what))
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	return r.attach(mnt, p, what == BlankDir)
}

// file puts a read-only file on its paths. Where a system has no such file and no place
// for it, programs do without it, too.
func (r *root) file(op Mount) error {
	name, err := r.newFile(op.Data)
	if err != nil {
		return err
	}
	for _, p := range append([]string{op.Path}, op.Also...) {
		mnt, err := r.blankMount(name)
		if err != nil {
			return err
		}
		err = r.attach(mnt, p, false)
		unix.Close(mnt)
		if err != nil && !(errors.Is(err, unix.EROFS) && strings.HasPrefix(p, "/etc/")) {
			return err
		}
	}
	return nil
}

// newFile makes a file among the blanks and returns its name.
func (r *root) newFile(data []byte) (string, error) {
	r.files++
	name := strconv.Itoa(r.files)
	fd, err := unix.Openat(r.blank, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return "", err
		}
		data = data[n:]
	}
	return name, unix.Fchmod(fd, 0o444)
}

// blankMount makes a read-only mount of something in the tmpfs of blanks.
func (r *root) blankMount(name string) (int, error) {
	mnt, err := unix.OpenTree(r.blank, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	if err := unix.MountSetattr(mnt, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		unix.Close(mnt)
		return -1, fmt.Errorf("mount_setattr: %w", err)
	}
	return mnt, nil
}

// enter makes the new tree the root directory and forgets the old one.
func (r *root) enter(dir string) error {
	if err := unix.Fchdir(r.fd); err != nil {
		return err
	}
	// The old root is stacked on the new one and then taken away: no directory is needed for it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("working directory %s: %w", dir, err)
	}
	return nil
}
