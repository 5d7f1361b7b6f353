package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

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
	t.sweep.top = w
	for _, name := range guardedNames {
		t.guardPath(w + "/" + name)
	}
	if looksBare(w) {
		t.guardGit(w)
	} else {
		t.sweep.absent = append(t.sweep.absent, filepath.Join(w, "HEAD"))
	}
	gitDir := t.guardRepository(w)
	for _, path := range t.policy.configuredPaths(w, w, gitDir, t.view.resolve) {
		t.guardPath(path)
	}
	if !t.noMounts { // or copies of all that would be made
		t.guardNeighbours()
	}
}

// maxNeighbours bounds how many repositories beside each other make a start longer.
const maxNeighbours = 32

// guardNeighbours guards the repositories in directories of the top: editors ask those by themselves, also while the sandbox
// runs. But what an earlier sandbox has made one may go on with. All others are put right when it has ended, see look.
func (t *tree) guardNeighbours() {
	t.openModules = true
	defer func() { t.openModules = false }()
	made := madeRepositories(t.policy.guardDir())
	f, err := openDirectory(t.top)
	if err != nil {
		return
	}
	defer f.Close()
	entries, _ := f.ReadDir(1000) // of more there are too many anyway
	n := 0
	for _, e := range entries {
		dir := filepath.Join(t.top, e.Name())
		if !e.IsDir() || e.Name() == ".git" || t.looked[dir] {
			continue
		}
		dotGit := filepath.Join(dir, ".git")
		info, err := os.Lstat(dotGit)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			dotGit = resolve(dotGit)
			info, err = os.Lstat(dotGit)
		}
		if err != nil || !info.IsDir() || made[dotGit] != (birth{}) && made[dotGit] == birthOf(dotGit) {
			continue
		}
		if n++; n > maxNeighbours {
			return
		}
		t.guardRepository(dir)
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
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ELOOP):
		t.sweep.absent = append(t.sweep.absent, dotGit)
	case errors.Is(err, syscall.ENOTDIR): // a file where a submodule is said to be
	case err != nil:
		t.cannotLook(dotGit, err)
	case !t.isRealDir(dir): // behind a link: where that leads is read-only, or is guarded itself
	case info.IsDir():
		t.guardGit(dotGit)
	case info.Mode().IsRegular():
		t.guardPath(dotGit)
		if common, own, ok := linkedWorktree(dotGit); ok {
			if dir != t.top && !within(common, t.top) && t.first != nil && !slices.Contains(t.first.gits, common) {
				return common, own // who runs already may have put that into an index, to have this one write there
			}
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
	case info.Mode()&fs.ModeSymlink != 0 && isDir(dotGit):
		end := t.keepLinks(dotGit)
		if t.canWrite(end) {
			t.guardGit(end)
		}
		return end, end
	case info.Mode()&fs.ModeSymlink != 0:
		t.guardPath(dotGit)
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

// longestName is how long the name of a file can be, in bytes, on the file systems of Linux.
const longestName = 255

// cannotLook notes that it is not known what is to be kept from a sandbox that could write above it: whoever may write a
// directory may also make it readable again.
func (t *tree) cannotLook(path string, err error) {
	if errors.Is(err, syscall.ENAMETOOLONG) {
		if slices.ContainsFunc(strings.Split(path, "/"), func(name string) bool { return len(name) > longestName }) {
			return // nothing can be there
		}
		t.unknown = fault.New(fault.Usage, "the workspace's path is too long: %s cannot be guarded", filepath.Base(path)).
			Hint("move the workspace to a shorter path")
		return
	}
	t.unknown = fault.New(fault.Usage, "%s is to be kept from the sandbox and cannot be looked at: %w", path, err).
		Hint("make the directories above it readable (chmod u+rwx)")
}

func (t *tree) guardGit(dir string) {
	t.sweep.gits = append(t.sweep.gits, dir)
	for _, name := range guardedInGit {
		if name != "modules" || !t.openModules { // what is in those is looked at one by one, then
			t.guardPath(filepath.Join(dir, name))
		}
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
		t.guardBehindLinks(path)
		return
	}
	if _, err := t.view.lstat(path); errors.Is(err, fs.ErrNotExist) { // as most, which costs least
		t.sweep.absent = append(t.sweep.absent, path)
		return
	}
	info, err := os.Lstat(path)
	switch {
	case missing(err): // by now
		t.sweep.absent = append(t.sweep.absent, path)
	case err != nil:
		t.cannotLook(path, err)
	case info.Mode()&fs.ModeSymlink != 0:
		t.guardBehindLinks(path)
	default:
		t.readOnly(path)
		t.guardOtherNames(path, info)
	}
}

// openDirectory opens nothing but a directory: another sandbox of the workspace may put a pipe in its place, which waits.
func openDirectory(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
}

// keepLinks has the links kept by which a path leads somewhere, and says where.
func (t *tree) keepLinks(path string) (end string) {
	links, end := follow(path)
	for _, link := range links {
		if t.isIn(shim.ReadWrite, link) && !t.policy.unguarded(link) {
			t.sweep.keep = append(t.sweep.keep, link)
			t.pin(link)
		}
	}
	return end
}

// guardBehindLinks guards what a path leads to, there or not, and the links on the way: those cannot be mounts, and are put back when
// the sandbox has ended.
func (t *tree) guardBehindLinks(path string) {
	end := t.keepLinks(path)
	if !t.isIn(shim.ReadWrite, end) || within(t.top, end) || t.guarded[end] || t.policy.unguarded(end) {
		return
	}
	switch info, err := os.Lstat(end); {
	case missing(err):
		t.sweep.absent = append(t.sweep.absent, end)
	case err != nil:
		t.cannotLook(end, err)
	default:
		t.readOnly(end)
		t.guardOtherNames(end, info)
	}
}

// isIn tells whether the nearest mount above a path is of a kind.
func (t *tree) isIn(kind shim.Kind, path string) bool {
	above, ok := t.above(path)
	return ok && t.ops[above].Kind == kind
}

// follow goes where a path leads: over links, each named without others, to an end that need not be there.
func follow(path string) (links []string, end string) {
	end = "/"
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		if name == ".." {
			end = filepath.Dir(end)
			continue
		}
		next := filepath.Join(end, name)
		text, err := os.Readlink(next)
		if err != nil { // no link, or nothing
			end = next
			continue
		}
		if links = append(links, next); len(links) > maxLinks {
			return links, next
		}
		if filepath.IsAbs(text) {
			end = "/"
		}
		path = text + "/" + path
	}
	return links, end
}

// guardOtherNames guards what is read-only and may be written by another name: a file of more than one, and a hook that is a
// link to a file of the workspace.
func (t *tree) guardOtherNames(path string, info fs.FileInfo) {
	if !info.IsDir() {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && !t.noMounts {
			t.sweep.keep = append(t.sweep.keep, path)
		}
		return
	}
	if filepath.Base(path) == "modules" {
		return
	}
	f, err := openDirectory(path)
	if err != nil {
		return
	}
	defer f.Close()
	entries, _ := f.ReadDir(1000)
	for _, e := range entries {
		entry := filepath.Join(path, e.Name())
		switch {
		case filepath.Ext(entry) == ".sample":
		case e.Type().IsRegular():
			if info, err := e.Info(); err == nil {
				t.guardOtherNames(entry, info)
			}
		case e.Type()&fs.ModeSymlink != 0 && filepath.Base(path) == "hooks":
			t.guardBehindLinks(entry)
		}
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
	t.guarded[path] = true
	t.set(shim.Mount{Kind: shim.ReadOnly, Path: path, Source: path})
	t.pin(path)
}
