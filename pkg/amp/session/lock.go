package session

import (
	"errors"
	"io"
	"os"
	"time"
)

var errBusy = errors.New("the lock is held")

// A look at a lock by somebody who lists sessions takes it for a moment.
const (
	lockTries = 20
	lockPause = 5 * time.Millisecond
)

// takeLock takes the lock of a session for as long as the process lives or until
// Close. It is errBusy where somebody has it. The file is never removed by itself,
// else two could hold "the" lock.
func takeLock(path string) (io.Closer, error) {
	var err error
	for try := range lockTries {
		if try > 0 {
			time.Sleep(lockPause)
		}
		var f *os.File
		f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, filePrivate)
		if err != nil {
			return nil, err
		}
		if err = lockFile(f, true); err == nil {
			// The session may have been removed, lock and all, since the file was opened.
			if err = current(path, f); err == nil {
				return f, nil
			}
		}
		_ = f.Close()
		if !errors.Is(err, errBusy) {
			return nil, err
		}
	}
	return nil, err
}

func current(path string, f *os.File) error {
	there, err := os.Stat(path)
	if err != nil {
		return err
	}
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(there, ours) {
		return os.ErrNotExist
	}
	return nil
}

// locked tells whether somebody holds the lock.
func locked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return errors.Is(lockFile(f, false), errBusy)
}
