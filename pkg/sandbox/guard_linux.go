package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	t.top = w
	for _, name := range guardedNames {
		t.guardPath(filepath.Join(w, name))
	}
	if looksBare(w) {
		t.guardGit(w)
	} else {
		t.sweep.absent = append(t.sweep.absent, filepath.Join(w, "HEAD"))
	}
	gitDir := t.guardRepository(w)
	for _, path := range configuredPaths(w, t.policy.Home, gitDir) {
		t.guardPath(path)
	}
}

// guardRepository guards the repository whose worktree is at the top of dir, and those in it that git would ask. It says
// where it is.
func (t *tree) guardRepository(dir string) (gitDir string) {
	if t.looked[dir] {
		return ""
	}
	if t.looked[dir] = true; len(t.looked) > maxRepositories {
		t.tooMany("submodules", maxRepositories)
		return ""
	}
	gitDir, own := t.guardDotGit(dir)
	x := t.readIndex(dir, own, filepath.Join(gitDir, "config"))
	x.Links = append(x.Links, submodules(filepath.Join(dir, ".gitmodules"))...)
	t.guardInside(x)
	return gitDir
}

// guardInside guards the repositories that an index names, or will.
func (t *tree) guardInside(x gitIndex) {
	t.sweep.indexes = append(t.sweep.indexes, x)
	for _, link := range x.Links {
		if dir := x.at(link); within(dir, t.top) {
			t.guardRepository(dir)
		}
	}
}

// tooMany refuses what would make a start without end, or a guard with holes.
func (t *tree) tooMany(what string, most int) {
	t.unknown = fault.New(fault.Usage, "the workspace %s has more than %d %s: they cannot all be guarded", t.policy.Workspace, most, what).
		Hint("use one of its directories as the workspace")
}

// guardDotGit guards the repository of a worktree itself, and says where it is and where it has what is the worktree's own.
func (t *tree) guardDotGit(dir string) (gitDir, own string) {
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
			return common, own
		}
		if own = pathIn(dotGit, "gitdir: "); own != "" {
			if t.canWrite(own) {
				t.guardGit(own)
			}
			return own, own
		}
	}
	return dotGit, dotGit
}

// canWrite tells whether a directory of the workspace is not in one that is read-only.
func (t *tree) canWrite(dir string) bool {
	if !within(dir, t.top) || dir == t.top || !isDir(dir) {
		return false
	}
	for d := dir; d != t.top; d = filepath.Dir(d) {
		if t.ops[d].Kind == shim.ReadOnly {
			return false
		}
	}
	return true
}

// guardNew guards a repository that is not there yet.
func (t *tree) guardNew(dotGit string) {
	t.sweep.absent = append(t.sweep.absent, dotGit)
	for _, name := range guardedInGit {
		t.sweep.absent = append(t.sweep.absent, filepath.Join(dotGit, name))
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
	worktrees := worktreesOf(dir)
	if len(worktrees) > maxWorktrees {
		t.tooMany("linked worktrees", maxWorktrees)
		return
	}
	for _, own := range worktrees {
		t.guardWorktree(own)
		t.guardWorktreeInside(own, filepath.Join(dir, "config"))
	}
	t.set(shim.Mount{Kind: shim.ReadWrite, Path: dir, Source: dir}) // what is a mount point cannot be renamed
	t.pin(dir)
}

func (t *tree) guardWorktree(own string) {
	for _, name := range guardedInWorktree {
		t.guardPath(filepath.Join(own, name))
	}
}

// guardWorktreeInside guards a linked worktree that is in the workspace itself.
func (t *tree) guardWorktreeInside(own, config string) {
	dotGit := pathIn(filepath.Join(own, "gitdir"), "")
	dir := filepath.Dir(dotGit)
	if dir == t.top || !within(dir, t.top) || t.looked[dir] {
		return
	}
	t.looked[dir] = true
	t.guardPath(dotGit)
	t.guardInside(t.readIndex(dir, own, config))
}

// guardPath makes path read-only unless the policy says that it, or what it is in, may be written.
func (t *tree) guardPath(path string) {
	if t.policy.unguarded(path) {
		return
	}
	if !t.isRealDir(filepath.Dir(path)) {
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			t.sweep.absent = append(t.sweep.absent, path)
		}
		return // behind a link: where that leads is read-only, or is guarded itself
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.sweep.absent = append(t.sweep.absent, path)
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

// unguarded tells whether somebody wants that a path may be written, or what it is in.
func (p *Policy) unguarded(path string) bool {
	return slices.ContainsFunc(p.AllowWrite, func(allowed string) bool {
		real := resolve(allowed)
		return within(path, real) && !within(p.Workspace, real)
	})
}

// isRealDir tells whether a directory is there and has no links in its path.
func (t *tree) isRealDir(dir string) bool { return t.view.isReal(dir) }

func (t *tree) readOnly(path string) {
	t.set(shim.Mount{Kind: shim.ReadOnly, Path: path, Source: path})
	t.pin(path)
}

// sweep is what the host would follow and the sandbox can make: it is looked at again when that has ended.
type sweep struct {
	absent     []string   // guarded paths that are not there yet
	indexes    []gitIndex // that may name repositories anew
	newIndexes bool       // some were read that are worth keeping
}

// encode is a text that decodeSweep understands.
func (s *sweep) encode() ([]byte, error) {
	items := slices.Clone(s.absent)
	for _, x := range s.indexes {
		data, err := json.Marshal(x)
		if err != nil {
			return nil, err
		}
		items = append(items, string(data)) // a path begins with a slash, this with a brace
	}
	return []byte(strings.Join(items, "\x00")), nil
}

func decodeSweep(data []byte) (s sweep) {
	for _, item := range strings.Split(string(data), "\x00") {
		var x gitIndex
		if strings.HasPrefix(item, "{") && json.Unmarshal([]byte(item), &x) == nil {
			s.indexes = append(s.indexes, x)
		} else {
			s.absent = append(s.absent, item)
		}
	}
	return s
}

// found are the paths that are there now and that programs of the host would follow.
func (s *sweep) found(p *Policy) (paths []string) {
	top := resolve(p.Workspace)
	for _, path := range s.absent {
		// A new repository may stay, without its hooks.
		if info, err := os.Lstat(path); err == nil && (filepath.Base(path) != ".git" || !info.IsDir()) {
			paths = append(paths, path)
		}
	}
	for _, x := range s.indexes {
		for _, path := range x.strangers(top) {
			if _, err := os.Lstat(path); err == nil && !slices.Contains(paths, path) && !p.unguarded(path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// takeAway moves what was found into a directory beside the home's
// changes: the host executes nothing there, and nothing that somebody wanted is lost. It returns what it
// moved, from and to.
func (s *sweep) takeAway(p *Policy) (moved [][2]string, err error) {
	var errs []error
	for _, path := range s.found(p) {
		if !isReal(filepath.Dir(path)) {
			continue // the sandbox made a link on the way: what it leads to is not new
		}
		to, err := setAside(path, p.HomeState)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if rel, err := filepath.Rel(p.Workspace, path); err == nil && filepath.IsLocal(rel) {
			path = rel
		}
		moved = append(moved, [2]string{path, to})
	}
	return moved, errors.Join(errs...)
}

// setAside moves a path below state and says where to. Where that is on another disk it stays beside its place, under a name
// that means nothing; what cannot be moved at all is removed, "".
func setAside(path, state string) (to string, err error) {
	now := time.Now().Format("20060102-150405-")
	if state != "" { // or the temporary directory would be taken
		if dir, err := os.MkdirTemp(state, "swept-"+now); err == nil {
			to = filepath.Join(dir, filepath.Base(path))
			if os.Rename(path, to) == nil {
				return to, nil
			}
			_ = os.Remove(dir) // it is empty
		}
	}
	if dir, err := os.MkdirTemp(filepath.Dir(path), "sesame-swept-"+now); err == nil {
		to = filepath.Join(dir, "from"+filepath.Base(path))
		if os.Rename(path, to) == nil {
			return to, nil
		}
		_ = os.Remove(dir)
	}
	return "", os.RemoveAll(path)
}

// takeAway sweeps and tells. It says whether there was anything.
func (b *box) takeAway() (found bool) {
	moved, err := b.sweep.takeAway(b.policy)
	for _, m := range moved {
		if m[1] == "" {
			b.notice(fmt.Sprintf("%s appeared while the sandbox ran, and programs of this machine would execute it: it was removed", m[0]))
		} else {
			b.notice(fmt.Sprintf("%s appeared while the sandbox ran, and programs of this machine would execute it: it is in %s now", m[0], m[1]))
		}
	}
	if err != nil {
		b.notice(fmt.Sprintf("files appeared while the sandbox ran that programs of this machine would execute, and they cannot be removed: %v", err))
		return true
	}
	if b.sweep = (sweep{}); b.lock != nil {
		_ = os.Remove(filepath.Join(b.policy.HomeState, guardFile)) // if not, the next one finds nothing to sweep
	}
	return len(moved) > 0
}

// guardFile keeps, below Policy.HomeState, the paths to sweep while a sandbox runs: if it is killed, the next one does it.
const guardFile = "to-sweep"

func (b *box) noteSweep(s sweep) error {
	if b.sweep = s; b.lock == nil {
		return nil // nothing to keep it in; or another sandbox has noted the same
	}
	data, err := s.encode()
	if err == nil {
		err = os.WriteFile(filepath.Join(b.policy.HomeState, guardFile), data, 0o600)
	}
	if err != nil {
		return fault.New(fault.SandboxUnavailable, "note what is to be swept: %w", err)
	}
	if s.newIndexes {
		keepIndexes(b.policy.HomeState, s.indexes)
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
	b.sweep = decodeSweep(left)
	return b.takeAway()
}
