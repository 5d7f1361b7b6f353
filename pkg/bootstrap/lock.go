package bootstrap

import (
	"context"
	"errors"
	"io/fs"
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
	f, err := os.OpenFile(c.lockFile(name), os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // c.dir decides who gets here
	if err != nil {
		return nil, false, err
	}
	return c.hold(f, shared)
}

// join is take for those who may only look at the cache, too, as at one that root fills for all:
// to wait, and to be waited for, it is enough to see the lock.
func (c cache) join(name string, shared bool) (unlock func(), held bool, err error) {
	unlock, held, err = c.take(name, shared)
	if !isReadOnly(err) {
		return unlock, held, err
	}
	f, openErr := os.Open(c.lockFile(name))
	if openErr != nil {
		return nil, false, err
	}
	return c.hold(f, shared)
}

// isReadOnly reports whether err is of a cache that is somebody else's to fill.
func isReadOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errReadOnly)
}

func (c cache) hold(f *os.File, shared bool) (unlock func(), held bool, err error) {
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
		unlock, held, err := c.join(name, false)
		if errors.Is(err, fs.ErrNotExist) && !first {
			// Somebody cleared the cache meanwhile.
			if err := c.open(); err != nil {
				return nil, false, err
			}
			continue
		}
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
	unlock, _, err := in.cache.join(b.Version+usedSuffix, true)
	if err != nil {
		return func() {}
	}
	return unlock
}
