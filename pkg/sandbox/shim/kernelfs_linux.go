package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// procReadOnly are parts of /proc that steer the kernel: the owner of these files may write
// them without any capability, and root inside has root's uid.
var procReadOnly = []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"}

// procHidden tell of the host what no build needs.
var procHidden = []string{"kcore", "keys", "timer_list"}

func (r *root) proc(p string) error {
	mnt := r.procfs
	defer unix.Close(mnt)
	if err := r.attach(mnt, p, true); err != nil {
		return err
	}
	for _, name := range procReadOnly {
		fd, err := unix.Openat(mnt, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		part, err := cloneMount(fd, unix.MOUNT_ATTR_RDONLY)
		if err == nil {
			err = unix.MoveMount(part, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
			unix.Close(part)
		}
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range procHidden {
		if unix.Faccessat(mnt, name, unix.F_OK, 0) != nil {
			continue
		}
		if err := r.hide(path.Join(p, name), BlankFile); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// deviceNames are the devices that every program may expect.
var deviceNames = []string{"null", "zero", "full", "random", "urandom", "tty"}

func (r *root) dev(p string) error {
	dir, err := r.tmpfs(p, 0o755)
	if err != nil {
		return err
	}
	r.readers = append(r.readers, dir)
	for _, name := range deviceNames {
		mnt, err := unix.OpenTree(r.sources["/dev/"+name], "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err != nil {
			return fmt.Errorf("%s: open_tree: %w", name, err)
		}
		err = r.attach(mnt, path.Join(p, name), false)
		unix.Close(mnt)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, text := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := unix.Symlinkat(text, dir, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := r.tmpfs(path.Join(p, "shm"), fs.ModeSticky|0o777); err != nil {
		return fmt.Errorf("shm: %w", err)
	}
	pts, err := newFilesystem("devpts", [2]string{"ptmxmode", "0666"}, [2]string{"mode", "0620"})
	if err != nil {
		return err
	}
	defer unix.Close(pts)
	// Terminals are devices, after all.
	if err := unix.MountSetattr(pts, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV}); err != nil {
		return err
	}
	return r.attach(pts, path.Join(p, "pts"), true)
}
