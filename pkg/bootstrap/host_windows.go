package bootstrap

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

func flock(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return errLocked
	}
	return err
}

// ownedByUs leaves it to the access list of the user's profile.
func ownedByUs(fs.FileInfo) bool { return true }

// mayExecute: Windows goes by the name and the content.
func mayExecute(string, fs.FileInfo) bool { return true }
