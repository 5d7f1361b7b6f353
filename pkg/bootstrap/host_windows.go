package bootstrap

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// errReadOnly is what writing to a medium that cannot be written to fails with.
const errReadOnly = windows.ERROR_WRITE_PROTECT

func isDiskFull(err error) bool { return errors.Is(err, windows.ERROR_DISK_FULL) }

func flock(f *os.File, shared bool) error {
	how := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK)
	if shared {
		how = 0
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), how|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return errLocked
	}
	return err
}

// ownedByUs leaves it to the access list of the user's profile.
func ownedByUs(fs.FileInfo) bool { return true }

func isOwner(fs.FileInfo) bool { return true }

// mayExecute: Windows goes by the name and the content.
func mayExecute(string, fs.FileInfo) bool { return true }
