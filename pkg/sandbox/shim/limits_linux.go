package shim

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// limitProcesses has this process, and all that come of it, refused more processes when the user has as many as the limit; in a user
// namespace, when he has as many in there (Linux 5.14). It is for good. Root's are not counted.
func limitProcesses(limit int) error {
	both := unix.Rlimit{Cur: uint64(limit), Max: uint64(limit)}
	_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NPROC, uintptr(unsafe.Pointer(&both)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("limit processes: %w", errno)
	}
	return nil
}
