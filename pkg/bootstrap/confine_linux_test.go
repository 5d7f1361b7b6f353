package bootstrap_test

import (
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confine does to the child what its environment says: BOOTSTRAP_ERRNO fails its writes with
// that number from byte 100,000 of a file on; BOOTSTRAP_TMPFS puts a small file system in the
// place of BOOTSTRAP_MOUNT, and BOOTSTRAP_READONLY makes it read-only (both need namespaces).
func confine() error {
	if number, err := strconv.ParseUint(os.Getenv("BOOTSTRAP_ERRNO"), 10, 16); err == nil {
		return failWrites(uint32(number))
	}
	place := os.Getenv("BOOTSTRAP_MOUNT")
	if place == "" {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if options := os.Getenv("BOOTSTRAP_TMPFS"); options != "" {
		return unix.Mount("none", place, "tmpfs", 0, options)
	}
	if err := unix.Mount(place, place, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.MountSetattr(unix.AT_FDCWD, place, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// failWrites has the kernel answer pwrite64 with an error, in all threads.
func failWrites(errno uint32) error {
	const number, offset = 0, 16 + 3*8 // in struct seccomp_data; the lower half, on little-endian machines
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PWRITE64, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: 100_000, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	list := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&list))); err != 0 {
		return err
	}
	return nil
}
