package shim

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// files carries out the plan's mounts and makes the result the root directory.
func (b *builder) files() error {
	if err := b.mountAll(b.plan.Mounts); err != nil {
		return err
	}
	b.Topic("files: make read-only", "")
	for _, mnt := range append(b.readers, b.root) {
		b.SetAttributes(mnt, unix.MOUNT_ATTR_RDONLY)
	}
	b.Topic("files: "+entering, "")
	b.enter(b.plan.Dir)
	return nil
}

// mountAll mounts, in the new root, what is not mounted yet, parents first, and again what is in something else that is.
func (b *builder) mountAll(mounts []Mount) error {
	if b.root == 0 {
		b.Topic("files: new root", "")
		b.root = b.TreeMount(first.RootDir).Result()
		b.Call(unix.SYS_MOVE_MOUNT, first.In(b.root), b.Text(""), first.In(first.Tree), b.Text(first.RootDir), first.Value(unix.MOVE_MOUNT_F_EMPTY_PATH))
	}
	again := len(b.mounted) > 0
	if again {
		mounts = b.notMounted(mounts)
	}
	for _, op := range mounts { // as it is, without following links: the parent has followed them
		if op.Kind == ReadOnly || op.Kind == ReadWrite {
			b.source(op.Source)
		}
	}
	for _, op := range mounts {
		if again {
			b.forget(op.Path)
		}
		b.Topic("files: "+string(op.Kind), op.Path)
		if err := b.mount(op); err != nil {
			return fmt.Errorf("%s %s: %w", op.Kind, op.Path, err)
		}
		b.mounted[op.Path] = op
	}
	return nil
}

// notMounted are those of which there is no mount, or another one, or one that such a mount covers.
func (b *builder) notMounted(mounts []Mount) (todo []Mount) {
	mounting := map[string]bool{}
	for _, op := range mounts {
		old, there := b.mounted[op.Path]
		covered := false
		for dir := path.Dir(op.Path); !covered && dir != "/"; dir = path.Dir(dir) {
			covered = mounting[dir]
		}
		if !there || covered || !op.same(old) {
			mounting[op.Path] = true
			todo = append(todo, op)
		}
	}
	return todo
}

// source opens one thing of the host, once.
func (b *builder) source(path string) first.Slot {
	if _, ok := b.sources[path]; !ok {
		b.Topic("files: "+opening, path)
		b.sources[path] = b.Open(cwd(), path, unix.O_PATH|unix.O_CLOEXEC, unix.RESOLVE_NO_SYMLINKS).Result()
	}
	return b.sources[path]
}

// forget forgets what was put in a place that is covered now.
func (b *builder) forget(dir string) {
	within := func(path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	maps.DeleteFunc(b.mounted, func(path string, _ Mount) bool { return within(path) })
	maps.DeleteFunc(b.ours, func(path string, _ bool) bool { return within(path) })
}

func (b *builder) mount(op Mount) error {
	switch op.Kind {
	case ReadOnly:
		b.bind(op.Source, op.Path, unix.MOUNT_ATTR_RDONLY)
	case ReadWrite:
		b.bind(op.Source, op.Path, 0)
	case Hide:
		b.hide(op)
	case Tmp:
		b.ownDir(op.Path, op.Mode)
	case Libraries:
		b.libraries(op.Path, op.Mode)
	case Proc:
		b.attach(first.Proc, op.Path, true)
	case Dev:
		b.dev(op.Path)
	case Home: // its descriptor stays open, to move it if its place is covered
		b.attach(b.home, op.Path, true)
	case Symlink:
		b.parents(op.Path)
		b.Call(unix.SYS_SYMLINKAT, b.Text(op.Source), first.In(b.root), b.Text(relative(op.Path)))
	case File:
		b.file(op)
	default:
		return errors.New("unknown kind of mount")
	}
	return nil
}

// lookup opens a path of the new root. The plan's paths have no links on the host, so a link on the way was
// made inside, in the home that lasts or in a place where mounts are not finished: it is not followed.
func (b *builder) lookup(p string, flags uint64) *first.Call {
	return b.Open(first.In(b.root), relative(p), flags|unix.O_PATH|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
}

// parents makes the directories above a path where nobody but us has put anything yet.
func (b *builder) parents(p string) (ours bool) {
	dir := path.Dir(p)
	if b.ours[dir] {
		return true
	}
	if !b.parents(dir) {
		return false
	}
	if _, ok := b.mounted[dir]; ok { // by now: parents come first
		return false
	}
	b.Call(unix.SYS_MKDIRAT, first.In(b.root), b.Text(relative(dir)), first.Value(0o755))
	b.ours[dir] = true
	return true
}

// attach puts a detached mount on a path of the new root. Where nothing is there, a directory or an empty file is made; but not in what is
// the host's, which would have that from then on.
func (b *builder) attach(mnt first.Slot, p string, dir bool) {
	create := func(parent first.Arg, name string) *first.Call {
		if dir {
			return b.Call(unix.SYS_MKDIRAT, parent, b.Text(name), first.Value(0o755))
		}
		return b.Call(unix.SYS_MKNODAT, parent, b.Text(name), first.Value(unix.S_IFREG|0o644), none())
	}
	if b.parents(p) {
		create(first.In(b.root), relative(p)).Spare(unix.EEXIST)
		b.Call(unix.SYS_MOVE_MOUNT, first.In(mnt), b.Text(""), first.In(b.root), b.Text(relative(p)), first.Value(unix.MOVE_MOUNT_F_EMPTY_PATH))
		return
	}
	if b.ofHost(p) {
		b.cover(mnt, p)
		return
	}
	target, parent := b.NewSlot(), b.NewSlot()
	var missing, there first.Label
	b.lookup(p, 0).Into(target).Spare(unix.ENOENT).Else(&missing)
	b.Jump(&there)
	b.Here(&missing)
	var above []string
	for d := path.Dir(p); d != "/" && !b.ours[d]; d = path.Dir(d) {
		above = append(above, d)
	}
	for _, d := range slices.Backward(above) {
		b.lookup(path.Dir(d), unix.O_DIRECTORY).Into(parent)
		b.Call(unix.SYS_MKDIRAT, first.In(parent), b.Text(path.Base(d)), first.Value(0o755)).Spare(unix.EEXIST)
		b.Close(parent)
	}
	b.lookup(path.Dir(p), unix.O_DIRECTORY).Into(parent)
	create(first.In(parent), path.Base(p))
	b.Close(parent)
	b.lookup(p, 0).Into(target)
	b.Here(&there)
	b.moveTo(target, mnt)
}

// ofHost tells whether what a path of the new root lies in is the host's.
func (b *builder) ofHost(p string) bool {
	for d := path.Dir(p); d != "/"; d = path.Dir(d) {
		if op, ok := b.mounted[d]; ok {
			return op.Kind == ReadOnly || op.Kind == ReadWrite
		}
	}
	return false
}

// cover puts a detached mount on what is there. After errors that are spared there is none.
func (b *builder) cover(mnt first.Slot, p string, spare ...unix.Errno) {
	target := b.NewSlot()
	var skip first.Label
	b.lookup(p, 0).Into(target).Spare(spare...).Else(&skip)
	b.moveTo(target, mnt)
	b.Here(&skip)
}

func (b *builder) moveTo(target, mnt first.Slot) {
	b.Call(unix.SYS_MOVE_MOUNT, first.In(mnt), b.Text(""), first.In(target), b.Text(""), first.Value(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
	b.Close(target)
}

// bind shows a source of the host, with all that is mounted below it.
func (b *builder) bind(source, p string, attributes int) {
	mnt := b.Clone(b.sources[source], unix.AT_RECURSIVE)
	b.Call(unix.SYS_MOUNT_SETATTR, first.In(mnt), b.Text(""), first.Value(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE),
		b.Attributes(attributes|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV), first.Value(first.AttributesSize))
	b.attach(mnt, p, isDir(source))
	b.Close(mnt)
}

// forbidExec keeps what is in a mount from being executed, under the strict profile.
func (b *builder) forbidExec(mnt first.Slot) {
	if b.strict {
		b.SetAttributes(mnt, unix.MOUNT_ATTR_NOEXEC)
	}
}

// ownDir mounts an empty directory of the sandbox's own. The mount's descriptor stays open.
func (b *builder) ownDir(p string, mode os.FileMode) first.Slot {
	mnt := b.newDir(mode)
	b.forbidExec(mnt)
	b.attachOwn(mnt, p)
	return mnt
}

func (b *builder) newDir(mode os.FileMode) first.Slot {
	b.own++
	name := "own" + strconv.Itoa(b.own)
	b.Call(unix.SYS_MKDIRAT, first.In(first.Tree), b.Text(name), first.Value(unixMode(mode)))
	return b.TreeMount(name).Result()
}

func (b *builder) attachOwn(mnt first.Slot, p string) {
	b.attach(mnt, p, true)
	b.ours[p] = true
}

// libraries mounts a directory that libraries are loaded from. What keeps programs in it from being started is Landlock;
// without that nothing can be loaded from it either.
func (b *builder) libraries(p string, mode os.FileMode) {
	if LandlockABI() < abiRefer {
		b.ownDir(p, mode)
		return
	}
	b.attachOwn(b.newDir(mode), p)
}

// hide covers a directory with an empty one, a file with one that nobody may read. In somebody else's directory root inside has no more
// rights than anybody, and nothing needs to be hidden from it.
func (b *builder) hide(op Mount) {
	p, dir := op.Path, op.Blank == BlankDir
	if op.Blank == BlankParent {
		b.readers = append(b.readers, b.ownDir(p, 0o555))
		return
	}
	name := first.BlankFile
	if dir {
		name = first.BlankDir
	}
	mnt := b.TreeMount(name).Result()
	b.SetAttributes(mnt, unix.MOUNT_ATTR_RDONLY)
	switch {
	case b.parents(p):
		b.attach(mnt, p, dir)
	case op.Gone:
		b.cover(mnt, p, unix.EACCES, unix.ENOENT)
	default:
		b.cover(mnt, p, unix.EACCES)
	}
	b.Close(mnt)
}

// file puts a read-only file on its paths. Where a system has no such file and no place for it, programs do without it, too.
func (b *builder) file(op Mount) {
	b.given++
	name := first.FilesDir + "/" + strconv.Itoa(b.given)
	fd := b.Call(unix.SYS_OPENAT, first.In(first.Tree), b.Text(name), first.Value(unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC), first.Value(0o444)).Result()
	if len(op.Data) > 0 {
		b.Call(unix.SYS_WRITE, first.In(fd), b.Data(op.Data), first.Value(len(op.Data)))
	}
	b.Close(fd)
	for _, p := range append([]string{op.Path}, op.Also...) {
		mnt := b.TreeMount(name).Result()
		b.SetAttributes(mnt, unix.MOUNT_ATTR_RDONLY)
		if strings.HasPrefix(p, "/etc/") && b.ofHost(p) {
			b.cover(mnt, p, unix.ENOENT)
		} else {
			b.attach(mnt, p, false)
		}
		b.Close(mnt)
	}
}

// dev puts the devices that are there already on a path. What else the plan has there goes in beside them.
func (b *builder) dev(p string) {
	for _, mnt := range []first.Slot{first.Dev, first.Shm} {
		b.forbidExec(mnt)
	}
	b.attachOwn(first.Dev, p)
	b.ours[path.Join(p, first.ShmDir)] = true
	b.readers = append(b.readers, first.Dev)
}

// enter makes the new tree the root directory and forgets the old one.
func (b *builder) enter(dir string) {
	b.Call(unix.SYS_FCHDIR, first.In(b.root))
	// The old root is stacked on the new one and then taken away: no directory is needed for it.
	b.Call(unix.SYS_PIVOT_ROOT, b.Text("."), b.Text("."))
	b.Call(unix.SYS_UMOUNT2, b.Text("."), first.Value(unix.MNT_DETACH))
	b.Call(unix.SYS_CHDIR, b.Text("/"))
	b.Topic("files: "+entering, dir)
	b.Call(unix.SYS_CHDIR, b.Text(dir))
}
