package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// prepareHomeState makes the directory that keeps the home's changes. The file "workspace" in it says whose it is.
func prepareHomeState(state, workspace string) error {
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o700); err != nil {
			return err
		}
	}
	owner := filepath.Join(state, "workspace")
	if _, err := os.Stat(owner); err == nil {
		return nil
	}
	return os.WriteFile(owner, []byte(workspace), 0o600)
}

// forgetVolatile removes the mark that a volatile overlay leaves behind and that keeps the next one from
// being mounted. The home's lock must be held. A home may be volatile, which spares every
// sandbox's end a sync of the whole disk: if the machine crashes, what a turn left in it may be incomplete.
func forgetVolatile(state string) error {
	work := filepath.Join(state, "work", "work")
	mark := filepath.Join(work, "incompat")
	// Root may remove them as they are.
	if err := syscall.Rmdir(filepath.Join(mark, "volatile")); err == nil {
		return syscall.Rmdir(mark)
	} else if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, dir := range []string{work, mark, filepath.Join(mark, "volatile")} { // the kernel makes them for nobody to enter
		if err := os.Chmod(dir, 0o700); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return os.RemoveAll(mark)
}
