package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// guard makes the workspace's guarded paths read-only. Those that are not there yet cannot be mounts, and an empty file in their place
// would be seen by the host as well: they are noted, and what stands there when the sandbox has ended is taken away.
func (t *tree) guard() {
	w, err := filepath.EvalSymlinks(t.policy.Workspace)
	if err != nil || t.ops[w].Kind != shim.ReadWrite {
		return
	}
	for _, name := range guardedNames {
		t.guardPath(filepath.Join(w, name))
	}
	if looksBare(w) {
		t.guardGit(w)
	} else {
		t.absent = append(t.absent, filepath.Join(w, "HEAD"))
	}
	gitDir := t.guardRepository(w)
	for _, path := range configuredPaths(w, t.policy.Home, gitDir) {
		t.guardPath(path)
	}
	for _, sub := range submodules(filepath.Join(w, ".gitmodules")) {
		t.guardRepository(filepath.Join(w, sub))
	}
}

// guardRepository guards the repository whose worktree is at the top of dir, and says where it is.
func (t *tree) guardRepository(dir string) (gitDir string) {
	dotGit := filepath.Join(dir, ".git")
	switch info, err := os.Lstat(dotGit); {
	case errors.Is(err, fs.ErrNotExist):
		t.guardNew(dotGit)
	case errors.Is(err, syscall.ENOTDIR): // a file where a submodule is said to be
	case err != nil:
		t.cannotLook(dotGit, err)
	case !t.isRealDir(dir): // behind a link: where that leads is read-only, or is guarded itself
	case info.IsDir():
		t.guardGit(dotGit)
	case info.Mode().IsRegular():
		t.guardPath(dotGit)
		if common, own, ok := linkedWorktree(dotGit); ok {
			t.set(shim.Mount{Kind: shim.ReadWrite, Path: common, Source: common})
			t.guardGit(common)
			t.guardWorktree(own)
			return common
		}
	}
	return dotGit
}

// guardNew guards a repository that is not there yet.
func (t *tree) guardNew(dotGit string) {
	t.absent = append(t.absent, dotGit)
	for _, name := range guardedInGit {
		t.absent = append(t.absent, filepath.Join(dotGit, name))
	}
}

// cannotLook notes that it is not known what is to be kept from a sandbox that could write above it: whoever may write a
// directory may also make it readable again.
func (t *tree) cannotLook(path string, err error) {
	if errors.Is(err, syscall.ENAMETOOLONG) {
		t.unknown = fault.New(fault.Usage, "the workspace's path is too long: %s cannot be guarded", filepath.Base(path)).
			Hint("move the workspace to a shorter path")
		return
	}
	t.unknown = fault.New(fault.Usage, "%s is to be kept from the sandbox and cannot be looked at: %w", path, err).
		Hint("make the directories above it readable (chmod u+rwx)")
}

func (t *tree) guardGit(dir string) {
	for _, name := range guardedInGit {
		t.guardPath(filepath.Join(dir, name))
	}
	for _, own := range worktreesOf(dir) {
		t.guardWorktree(own)
	}
	t.set(shim.Mount{Kind: shim.ReadWrite, Path: dir, Source: dir}) // what is a mount point cannot be renamed
	t.pin(dir)
}

func (t *tree) guardWorktree(own string) {
	for _, name := range guardedInWorktree {
		t.guardPath(filepath.Join(own, name))
	}
}

// guardPath makes path read-only unless the policy says that it, or what it is in, may be written.
func (t *tree) guardPath(path string) {
	for _, allowed := range t.policy.AllowWrite {
		if real := resolve(allowed); within(path, real) && !within(t.policy.Workspace, real) {
			return
		}
	}
	if !t.isRealDir(filepath.Dir(path)) {
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			t.absent = append(t.absent, path)
		}
		return // behind a link: where that leads is read-only, or is guarded itself
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.absent = append(t.absent, path)
	case err != nil:
		t.cannotLook(path, err)
	case info.Mode()&fs.ModeSymlink != 0:
		if real, err := filepath.EvalSymlinks(path); err == nil && within(real, t.policy.Workspace) {
			t.readOnly(real)
		}
	default:
		t.readOnly(path)
	}
}

// isRealDir is isReal with a memory: most questions are about two directories.
func (t *tree) isRealDir(dir string) bool {
	yes, known := t.real[dir]
	if !known {
		yes = isReal(dir)
		t.real[dir] = yes
	}
	return yes
}

func (t *tree) readOnly(path string) {
	t.set(shim.Mount{Kind: shim.ReadOnly, Path: path, Source: path})
	t.pin(path)
}

// sweep takes away the guarded paths that were not there when the sandbox began. Into a directory beside the home's
// changes: the host executes nothing there, and nothing that somebody wanted is lost. It returns what it
// moved, from and to.
func sweep(absent []string, workspace, state string) (moved [][2]string, err error) {
	var errs []error
	for _, path := range absent {
		info, err := os.Lstat(path)
		if err != nil || filepath.Base(path) == ".git" && info.IsDir() { // a new repository may stay, without its hooks
			continue
		}
		if !isReal(filepath.Dir(path)) {
			continue // the sandbox made a link on the way: what it leads to is not new
		}
		to, err := setAside(path, state)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if rel, err := filepath.Rel(workspace, path); err == nil && filepath.IsLocal(rel) {
			path = rel
		}
		moved = append(moved, [2]string{path, to})
	}
	return moved, errors.Join(errs...)
}

// setAside moves a path below state and says where to, or removes it, "", where that cannot keep it.
func setAside(path, state string) (to string, err error) {
	if state != "" { // or the temporary directory would be taken
		if dir, err := os.MkdirTemp(state, "swept-"+time.Now().Format("20060102-150405-")); err == nil {
			to = filepath.Join(dir, filepath.Base(path))
			if os.Rename(path, to) == nil {
				return to, nil
			}
		}
	}
	return "", os.RemoveAll(path)
}

// takeAway sweeps and tells.
func (b *box) takeAway() {
	moved, err := sweep(b.absent, b.policy.Workspace, b.policy.HomeState)
	for _, m := range moved {
		if m[1] == "" {
			b.notice(fmt.Sprintf("%s appeared while the sandbox ran, and programs of this machine would execute it: it was removed", m[0]))
		} else {
			b.notice(fmt.Sprintf("%s appeared while the sandbox ran, and programs of this machine would execute it: it is in %s now", m[0], m[1]))
		}
	}
	if err != nil {
		b.notice(fmt.Sprintf("files appeared while the sandbox ran that programs of this machine would execute, and they cannot be removed: %v", err))
		return
	}
	if b.absent = nil; b.lock != nil {
		_ = os.Remove(filepath.Join(b.policy.HomeState, guardFile)) // if not, the next one finds nothing to sweep
	}
}

// guardFile keeps, below Policy.HomeState, the paths to sweep while a sandbox runs: if it is killed, the next one does it.
const guardFile = "to-sweep"

func (b *box) noteAbsent(absent []string) error {
	if b.absent = absent; b.lock == nil {
		return nil // nothing to keep it in; or another sandbox has noted the same
	}
	if err := os.WriteFile(filepath.Join(b.policy.HomeState, guardFile), []byte(strings.Join(absent, "\x00")), 0o600); err != nil {
		return fault.New(fault.SandboxUnavailable, "note what is to be swept: %w", err)
	}
	return nil
}

// sweepLeft does what a sandbox that was killed could not do any more, and tells whether there was anything.
func (b *box) sweepLeft() bool {
	if b.lock == nil {
		return false
	}
	left, err := os.ReadFile(filepath.Join(b.policy.HomeState, guardFile))
	if err != nil {
		return false // the usual case: no such file
	}
	for _, path := range strings.Split(string(left), "\x00") {
		if _, err := os.Lstat(path); err == nil {
			b.absent = append(b.absent, path)
		}
	}
	found := len(b.absent) > 0
	b.takeAway()
	return found
}
