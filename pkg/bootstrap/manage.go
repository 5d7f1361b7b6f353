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

// Verify hashes a cached version from end to end, also one of another platform. It fails
// with [fault.BootstrapFailed], and a [*DigestError] in the chain, when it is not what was verified before.
func (in *Installer) Verify(ctx context.Context, want string) (Binary, error) {
	if isLatest(want) {
		versions, err := in.Versions()
		if err != nil {
			return Binary{}, err
		}
		if len(versions) == 0 {
			return Binary{}, notCached("amp")
		}
		want = versions[0]
	} else if _, err := in.host(want); err != nil {
		return Binary{}, err
	}
	if err := checkPrivate(in.cache.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Binary{}, in.cacheFault(err)
	}
	damaged := func(path string, err error) error {
		return fault.New(fault.BootstrapFailed, failedPrefix+"%s: %w", path, err).
			Hint("`sesame amp install %s` fetches it again", want)
	}
	b, err := in.cache.read(want)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(in.cache.dir, want)); errors.Is(err, fs.ErrNotExist) {
			return Binary{}, notCached("amp " + want)
		}
	}
	if err != nil {
		return Binary{}, damaged("the cached amp "+want, err)
	}
	got, err := hashFile(b.Path)
	if err != nil {
		return Binary{}, in.cacheFault(err)
	}
	if ctx.Err() != nil {
		return Binary{}, interrupted(ctx)
	}
	compare := func(what string, want Digest) error {
		if got == want || want.IsZero() {
			return nil
		}
		return damaged(b.Path, &DigestError{What: what, Algorithm: got.Algorithm, Want: want.Hex, Got: got.Hex})
	}
	if err := compare("file", b.Digest); err != nil {
		return Binary{}, err
	}
	if err := compare(pinnedFile, in.pin); err != nil {
		return Binary{}, err
	}
	return b, nil
}

// Versions returns the names of all cached versions, newest first, whatever state they are in.
func (in *Installer) Versions() ([]string, error) {
	versions, err := in.cache.versions()
	if err != nil {
		return nil, in.cacheFault(err)
	}
	return versions, nil
}

// Remove takes a version out of the cache, usable or not. One that another
// process is fetching or running is left alone; none is [fault.BootstrapFailed].
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
	used, _, err := in.cache.try(version + usedSuffix)
	if err != nil {
		return in.cacheFault(err)
	}
	defer used()
	if err := in.remove(version); err != nil {
		return in.cacheFault(err)
	}
	return nil
}

// remove is Remove, also for what somebody runs: a damaged one.
func (in *Installer) remove(version string) error {
	unlock, _, err := in.cache.try(version)
	if err != nil {
		return err
	}
	defer unlock()
	return in.cache.remove(version)
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

// sweepOld removes what nobody has touched since before, of what has no name yet.
func (c cache) sweepOld(before time.Time) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		left := strings.HasPrefix(e.Name(), ".") // work, parts, and files that were to replace others
		if err == nil && left && info.ModTime().Before(before) {
			_ = os.RemoveAll(filepath.Join(c.dir, e.Name()))
		}
	}
}
