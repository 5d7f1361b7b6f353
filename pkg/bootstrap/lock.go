package bootstrap

import (
	"context"
	"errors"
	"os"
	"time"
)

var (
	errLocked      = errors.New("locked by another process")
	errNoLocksHere = errors.New("the file system has no locks")
)

// lockPoll is how often a lock that another process has is tried again.
const lockPoll = 100 * time.Millisecond

// tryLock takes the lock file, which is never unlinked: whoever waits for it
// must find the same one. Where the file system knows no locks it succeeds; then
// a version is perhaps fetched twice, and is whole all the same.
func tryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := flock(f); {
	case err == nil, errors.Is(err, errNoLocksHere):
		return func() { f.Close() }, nil
	default:
		f.Close()
		return nil, err
	}
}

// lock waits for the lock file; waiting is called once if that takes any time.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	for first := true; ; first = false {
		unlock, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}
