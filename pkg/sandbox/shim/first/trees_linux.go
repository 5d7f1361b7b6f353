package first

import (
	"syscall"
	"unsafe"
)

// The directories that look the same in every sandbox: /proc and /dev. They are made in directories of Tree, from where they are moved.

// procReadOnly are parts of /proc that steer the kernel: the owner of these files may write
// them without any capability, and root inside has root's uid.
var procReadOnly = [...]string{"sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"}

// procHidden tell of the host what no build needs.
var procHidden = [...]string{"kcore", "keys", "timer_list"}

func proc(s *Script) {
	s.Topic("files: proc", "/proc")
	s.Filesystem("proc", Proc, attrNosuid|attrNodev)
	s.mountIn(Tree, Proc, "proc")
	if LimitsRoot() {
		s.Call(syscall.SYS_OPENAT, In(Proc), s.Text("sys/kernel/pid_max"), Value(syscall.O_WRONLY|syscall.O_CLOEXEC), Value(0)).Into(MostIDs)
	}
	fd := s.NewSlot()
	cover := func(name string, with func() Slot) {
		var next Label
		s.Call(syscall.SYS_OPENAT, In(Proc), s.Text(name), Value(oPath|syscall.O_CLOEXEC), Value(0)).Into(fd).Spare(syscall.ENOENT).Else(&next)
		mnt := with()
		s.SetAttributes(mnt, attrReadOnly)
		s.Call(sysMoveMount, In(mnt), s.Text(""), In(fd), s.Text(""), Value(moveMountEmptyPath|moveMountToEmptyPath))
		s.Close(mnt)
		s.Close(fd)
		s.Here(&next)
	}
	for _, name := range procReadOnly {
		cover(name, func() Slot { return s.Clone(fd, atRecursive) })
	}
	for _, name := range procHidden {
		cover(name, func() Slot { return s.TreeMount(BlankFile).Result() })
	}
}

// deviceNames are the devices that every program may expect.
var deviceNames = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

func dev(s *Script) {
	s.Topic("files: dev", "/dev")
	s.mountOwn(Tree, Dev, "dev", 0o755)
	for _, name := range deviceNames {
		s.Topic("files: open", "/dev/"+name)
		fd := s.Open(Value(currentDirectory), "/dev/"+name, oPath|syscall.O_CLOEXEC, resolveNoSymlinks).Result()
		mnt := s.Clone(fd, 0)
		s.Call(syscall.SYS_MKNODAT, In(Dev), s.Text(name), Value(syscall.S_IFREG|0o644), Value(0))
		s.Call(sysMoveMount, In(mnt), s.Text(""), In(Dev), s.Text(name), Value(moveMountEmptyPath))
		s.Close(mnt)
		s.Close(fd)
	}
	s.Topic("files: dev", "/dev")
	for _, link := range [...][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	} {
		s.Call(syscall.SYS_SYMLINKAT, s.Text(link[0]), In(Dev), s.Text(link[1]))
	}
	s.mountOwn(Dev, Shm, ShmDir, syscall.S_ISVTX|0o777)
	pts := s.NewSlot()
	// Terminals are devices, after all.
	s.Filesystem("devpts", pts, attrNosuid, Option{"ptmxmode", s.Text("0666")}, Option{"mode", s.Text("0620")})
	s.mountIn(Dev, pts, "pts")
	s.Close(pts)
}

// mountOwn mounts a new directory of Tree's own by the same name in a directory, and leaves the mount in a slot.
func (s *Script) mountOwn(in, into Slot, name string, mode int) {
	own := "of-" + name
	s.Call(syscall.SYS_MKDIRAT, In(Tree), s.Text(own), Value(mode))
	s.TreeMount(own).Into(into)
	s.mountIn(in, into, name)
}

// mountIn mounts a mount that is not anywhere yet on a new directory.
func (s *Script) mountIn(in, mnt Slot, name string) {
	s.Call(syscall.SYS_MKDIRAT, In(in), s.Text(name), Value(0o755))
	s.Call(sysMoveMount, In(mnt), s.Text(""), In(in), s.Text(name), Value(moveMountEmptyPath))
}

// Open opens a path of a directory, with flags of openat2(2).
func (s *Script) Open(dir Arg, path string, flags, resolve uint64) *Call {
	how := [3]uint64{flags, 0, resolve} // struct open_how
	return s.Call(sysOpenat2, dir, s.Text(path), s.Data(AsBytes(&how)), Value(unsafe.Sizeof(how)))
}

// Clone is another mount of what a descriptor is of, which is not anywhere yet.
func (s *Script) Clone(fd Slot, flags int) Slot {
	return s.Call(sysOpenTree, In(fd), s.Text(""), Value(openTreeClone|syscall.O_CLOEXEC|atEmptyPath|flags)).Result()
}

// TreeMount makes a mount of something in Tree, likewise.
func (s *Script) TreeMount(name string) *Call {
	return s.Call(sysOpenTree, In(Tree), s.Text(name), Value(openTreeClone|syscall.O_CLOEXEC))
}

// AttributesSize is how long Attributes are, in bytes.
const AttributesSize = 32

// Attributes are those that a mount is to have from now on, struct mount_attr.
func (s *Script) Attributes(set int) Arg {
	attributes := [AttributesSize / 8]uint64{uint64(set)}
	return s.Data(AsBytes(&attributes))
}

// SetAttributes gives a mount attributes, and not what is mounted in it.
func (s *Script) SetAttributes(mnt Slot, set int) {
	s.Call(sysMountSetattr, In(mnt), s.Text(""), Value(atEmptyPath), s.Attributes(set), Value(AttributesSize))
}
