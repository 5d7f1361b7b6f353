package bootstrap

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

var (
	errLocked      = errors.New("in use by another process")
	errNoLocksHere = errors.New("the file system has no locks")
)

// lockPoll is how often a lock that another process has is tried again.
const lockPoll = 100 * time.Millisecond

// usedSuffix ends the name of the lock that those share who run a version.
const usedSuffix = ".used"

func (c cache) lockFile(name string) string { return filepath.Join(c.dir, locksDir, name) }

// take takes a lock file, which is never unlinked: whoever waits for it must find the same
// one. Where the file system knows no locks it succeeds and held is false; then a version is
// perhaps fetched twice, and is whole all the same.
func (c cache) take(name string, shared bool) (unlock func(), held bool, err error) {
	f, err := os.OpenFile(c.lockFile(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = c.lock(f, shared)
	if err != nil && !errors.Is(err, errNoLocksHere) {
		f.Close()
		return nil, false, err
	}
	return func() { f.Close() }, err == nil, nil
}

// try takes a lock or fails with errLocked.
func (c cache) try(name string) (unlock func(), held bool, err error) { return c.take(name, false) }

// wait waits for a lock; waiting is called once if that takes any time.
func (c cache) wait(ctx context.Context, name string, waiting func()) (unlock func(), held bool, err error) {
	for first := true; ; first = false {
		unlock, held, err := c.try(name)
		if !errors.Is(err, errLocked) {
			return unlock, held, err
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// Use keeps a cached version from being removed, by whichever process, until release
// is called or this process ends. Where that cannot be noted nothing is kept.
func (in *Installer) Use(b Binary) (release func()) {
	if b.Version == "" {
		return func() {}
	}
	unlock, _, err := in.cache.take(b.Version+usedSuffix, true)
	if err != nil {
		return func() {}
	}
	return unlock
}
