package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// usedWork is the directory of overlayfs that was in use before, beside the one that is.
const usedWork = "used-work"

// freshWork gives the next overlay a work directory without the mark that a volatile one leaves behind and that keeps the
// next one from being mounted. Two directories take turns, so that none need be made; the used one is only put aside, for
// emptyUsedWork, because emptying it takes longer. The home's lock must be held. A home may be volatile, which spares every
// sandbox's end a sync of the whole disk: if the machine crashes, what a turn left in it may be incomplete.
func freshWork(state string) error {
	if err := emptyUsedWork(state); err != nil { // it is empty already, unless somebody was killed
		return err
	}
	work, used := filepath.Join(state, "work"), filepath.Join(state, usedWork)
	if unix.Renameat2(unix.AT_FDCWD, work, unix.AT_FDCWD, used, unix.RENAME_EXCHANGE) == nil {
		return nil
	}
	return replaceWork(work, used)
}

// replaceWork is for file systems that cannot exchange directories.
func replaceWork(work, used string) error {
	if err := unix.Rename(work, used); err != nil {
		return fmt.Errorf("%s: %w", work, err)
	}
	return os.Mkdir(work, 0o700)
}

// emptyUsedWork removes what is in the directory that freshWork put aside, and makes that directory if there is none.
func emptyUsedWork(state string) error {
	used := filepath.Join(state, usedWork)
	entries, err := os.ReadDir(used)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Mkdir(used, 0o700)
	}
	if err != nil || len(entries) == 0 {
		return err
	}
	work := filepath.Join(used, "work")
	mark := filepath.Join(work, "incompat")
	for _, dir := range []string{work, mark, filepath.Join(mark, "volatile")} { // the kernel makes them for nobody to enter
		if err := os.Chmod(dir, 0o700); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(used, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// mergeWithHost has directories in the layer of changes, which were made there while a whiteout hid what the host might put in their place,
// show what the host has put there when they are next used.
func mergeWithHost(upper string, names []string) {
	for _, name := range names {
		_ = unix.Lremovexattr(filepath.Join(upper, name), opaqueAttribute) // most were not made, or are no directories
	}
}

// clearWay removes what an earlier turn put in the way of the plan's mounts, where these lie in the home: it is in the layer of changes
// only, and would send a mount elsewhere. The home's lock must be held.
func clearWay(pl *shim.Plan) error {
	upper, err := openOwn(filepath.Join(pl.Home.State, "upper"))
	if err != nil {
		return err
	}
	defer upper.Close()
	return clearWayIn(upper, pl)
}

// clearWayIn does so in the layer of changes, wherever that is.
func clearWayIn(upper *os.Root, pl *shim.Plan) error {
	home := pl.Home.Host
	top := "" // the last mount in the home; what lies in that is not the home's
	for _, op := range pl.Mounts {
		rel, err := filepath.Rel(home, op.Path)
		if err != nil || rel == "." || !filepath.IsLocal(rel) || top != "" && within(op.Path, top) {
			continue
		}
		if op.Kind != shim.Hide || op.Blank == shim.BlankParent {
			top = op.Path
		}
		isDir := op.Kind != shim.File && (op.Source == "" && op.Blank != shim.BlankFile || isDir(op.Source))
		err = clearPath(upper, rel, isDir)
		if errors.Is(err, fs.ErrPermission) {
			if err = openUp(upper, rel); err == nil || errors.Is(err, fs.ErrNotExist) {
				err = clearPath(upper, rel, isDir)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openUp makes what is on the way to a path, and what is there, directories that their owner may empty: a command can close its own.
func openUp(upper *os.Root, rel string) error {
	for i := range rel {
		if rel[i] != '/' {
			continue
		}
		if info, err := upper.Lstat(rel[:i]); err != nil || !info.IsDir() {
			return err
		}
		if err := upper.Chmod(rel[:i], 0o700); err != nil {
			return err
		}
	}
	if _, err := upper.Lstat(rel); err != nil {
		return err
	}
	return fs.WalkDir(upper.FS(), rel, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = upper.Chmod(path, 0o700)
		}
		return err
	})
}

// clearPath removes what is in the place of a path or of a directory above it.
func clearPath(upper *os.Root, rel string, dir bool) error {
	for i := range len(rel) + 1 {
		if i < len(rel) && rel[i] != '/' {
			continue
		}
		info, err := upper.Lstat(rel[:i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		whiteout := info.Mode()&fs.ModeCharDevice != 0
		if wantDir := i < len(rel) || dir; !whiteout && (wantDir != info.IsDir() || info.Mode()&fs.ModeSymlink != 0) {
			return upper.RemoveAll(rel[:i])
		}
		if whiteout {
			return nil // nothing is there
		}
	}
	return nil
}

// mountsBelow lists what is mounted below a directory.
func mountsBelow(dir string) []string {
	mounts, err := mountPoints()
	if err != nil || dir == "" {
		return nil
	}
	var found []string
	for _, m := range mounts {
		if m.at != dir && within(m.at, dir) {
			found = append(found, m.at)
		}
	}
	return found
}
