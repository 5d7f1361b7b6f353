package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// removedHome marks what the sandbox kept of a home and that is on its way out.
const removedHome = ".removed-"

// pruneHomes removes what the sandbox kept for workspaces that no session is of, and says of
// how many it kept the home and how many bytes that were in all. What a sandbox is using
// stays. A dry run only looks.
func pruneHomes(ctx context.Context, dirs config.Dirs, sessions []session.Entry, dryRun bool) (homes int, freed int64, err error) {
	needed := map[string]bool{}
	for _, e := range sessions {
		for _, dir := range keptFor(dirs, e.Workspace) {
			needed[dir] = true
		}
	}
	homes, freed, err = pruneKept(ctx, filepath.Dir(homeState(dirs, "", sandbox.Standard)), needed, dryRun, func(dir string) (func(), bool, error) {
		return lockHome(filepath.Join(dir, "lock"))
	})
	_, more, again := pruneKept(ctx, guardState(dirs), needed, dryRun, sandbox.LockGuard)
	return homes, freed + more, errors.Join(err, again)
}

// keptFor are the directories of what the sandbox keeps for a workspace.
func keptFor(dirs config.Dirs, workspace string) []string {
	return []string{
		homeState(dirs, workspace, sandbox.Standard), homeState(dirs, workspace, sandbox.Strict),
		sandbox.GuardDir(guardState(dirs), workspace),
	}
}

// pruneKept removes the directories in one that are not needed and that it can lock.
func pruneKept(ctx context.Context, all string, needed map[string]bool, dryRun bool, lock func(dir string) (unlock func(), ok bool, err error)) (n int, freed int64, err error) {
	entries, err := os.ReadDir(all)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fault.New(fault.Internal, "cannot list what the sandbox kept for workspaces: %w", err)
	}
	name := regexp.MustCompile(`^(\` + removedHome + `)?[0-9a-f]{16}$`)
	var errs []error
	for _, e := range entries {
		path := filepath.Join(all, e.Name())
		if !e.IsDir() || needed[path] || !name.MatchString(e.Name()) {
			continue
		}
		if ctx.Err() != nil {
			return n, freed, ctx.Err()
		}
		size, removed, err := removeKept(path, dryRun, lock)
		if err != nil {
			errs = append(errs, fault.New(fault.Internal, "cannot remove what the sandbox kept for a workspace: %w", err))
			continue
		}
		if removed {
			n++
			freed += size
		}
	}
	return n, freed, errors.Join(errs...)
}

// homeUse is what is kept of the home for a workspace, and by its guard, in bytes.
func homeUse(dirs config.Dirs, workspace string) (size int64) {
	for _, dir := range keptFor(dirs, workspace) {
		size += diskUse(dir)
	}
	return size
}

// removeKept removes one of them, or says only what that would free, unless a sandbox is using it.
func removeKept(path string, dryRun bool, lock func(dir string) (unlock func(), ok bool, err error)) (size int64, removed bool, err error) {
	unlock, ok, err := lock(path)
	if err != nil || !ok {
		return 0, false, err
	}
	defer unlock()
	if dryRun {
		return diskUse(path), true, nil
	}
	// Out of the way in one step: a sandbox that starts now makes a new one.
	trash := path
	if !strings.HasPrefix(filepath.Base(path), removedHome) {
		trash = filepath.Join(filepath.Dir(path), removedHome+filepath.Base(path))
		// One of the same name that was not removed to its end is in the way.
		if err := openAll(trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, false, err
		}
		if err := os.RemoveAll(trash); err != nil {
			return 0, false, err
		}
		if err := os.Rename(path, trash); err != nil {
			return 0, false, err
		}
	}
	if err := openAll(trash); err != nil {
		return 0, false, err
	}
	size = diskUse(trash)
	return size, true, os.RemoveAll(trash)
}

// openAll makes all directories below dir ones that their owner may empty: the kernel's
// work directories have no permissions at all. Links that a command in the sandbox made
// lead nowhere.
func openAll(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o700 == 0o700 {
			return err
		}
		return root.Chmod(path, 0o700)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
