package bootstrap

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// leftoverAge is how old a work directory must be before Prune removes it.
const leftoverAge = 24 * time.Hour

// List returns the usable binaries in the cache, newest first; also those of
// other platforms, for the cache may be on a file system that machines share.
func (in *Installer) List() ([]Binary, error) {
	list, err := in.cache.list()
	if err != nil {
		return nil, in.cacheFault(err)
	}
	return list, nil
}

// Path returns a binary from the cache, without any network: want may be
// "latest", the newest one there. It fails with [fault.BootstrapFailed] where there is none.
func (in *Installer) Path(want string) (Binary, error) {
	host, err := in.host(want)
	if err != nil {
		return Binary{}, err
	}
	if err := checkPrivate(in.cache.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Binary{}, in.cacheFault(err)
	}
	if isLatest(want) {
		if b, ok := in.newest(host); ok {
			return b, nil
		}
		return Binary{}, notCached("amp")
	}
	if b, ok := in.cached(want, host); ok {
		return b, nil
	}
	if _, err := in.cache.load(want); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Binary{}, in.cacheFault(err)
	}
	return Binary{}, notCached("amp " + want)
}

func notCached(what string) *fault.Error {
	return fault.New(fault.BootstrapFailed, failedPrefix+"%s is not in the cache", what).
		Hint("`sesame amp install` fetches it")
}

// Verify hashes a cached binary from end to end. It fails with
// [fault.BootstrapFailed], and a [*DigestError] in the chain, when it is not what was verified before.
func (in *Installer) Verify(ctx context.Context, want string) (Binary, error) {
	b, err := in.Path(want)
	if err != nil {
		return Binary{}, err
	}
	got, err := hashFile(b.Path)
	if err != nil {
		return Binary{}, in.cacheFault(err)
	}
	if ctx.Err() != nil {
		return Binary{}, interrupted(ctx)
	}
	if got != b.Digest {
		wrong := &DigestError{What: "file", Algorithm: got.Algorithm, Want: b.Digest.Hex, Got: got.Hex}
		return Binary{}, fault.New(fault.BootstrapFailed, failedPrefix+"%s: %w", b.Path, wrong).
			Hint("`sesame amp install %s` fetches it again", b.Version)
	}
	return b, nil
}

// Remove takes a version out of the cache, usable or not. One that another
// process is fetching is left alone; none is [fault.BootstrapFailed].
func (in *Installer) Remove(_ context.Context, version string) error {
	if !ValidVersion(version) {
		return fault.New(fault.Usage, "%q is no version of amp", version)
	}
	if _, err := os.Lstat(filepath.Join(in.cache.dir, version)); errors.Is(err, fs.ErrNotExist) {
		return notCached("amp " + version)
	}
	if err := in.cache.open(); err != nil {
		return in.cacheFault(err)
	}
	unlock, err := tryLock(in.cache.lockFile(version))
	if err != nil {
		return in.cacheFault(err)
	}
	defer unlock()
	if err := in.cache.remove(version); err != nil {
		return in.cacheFault(err)
	}
	return nil
}

// Prune removes all but the newest keep usable versions, and what dead
// processes left. Versions named in protect stay as well, whatever their age. It returns the versions removed.
func (in *Installer) Prune(ctx context.Context, keep int, protect ...string) ([]string, error) {
	versions, err := in.cache.versions()
	if err != nil {
		return nil, in.cacheFault(err)
	}
	in.cache.sweepOld(in.now().Add(-leftoverAge))
	var removed []string
	kept := 0
	for _, v := range versions {
		if ctx.Err() != nil {
			return removed, interrupted(ctx)
		}
		if slices.Contains(protect, v) {
			continue
		}
		if _, err := in.cache.load(v); err == nil && kept < keep {
			kept++
			continue
		}
		if err := in.Remove(ctx, v); err != nil {
			if errors.Is(err, errLocked) {
				continue // somebody is at work on it; the next time, then
			}
			return removed, err
		}
		removed = append(removed, v)
	}
	return removed, nil
}

// sweepOld removes work directories that nobody has touched since before.
func (c cache) sweepOld(before time.Time) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), workPrefix) && info.ModTime().Before(before) {
			_ = os.RemoveAll(filepath.Join(c.dir, e.Name()))
		}
	}
}
