package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// grants turns the tree into rules of Landlock, which can only allow: where something is hidden below what is
// shown, what stands beside the way to it is allowed one by one. What appears there later is not.
func (t *tree) grants() []shim.Grant {
	g := granter{hidden: map[string]bool{}, above: map[string]bool{}, ops: t.ops}
	for path, op := range t.ops {
		switch op.Kind {
		case shim.ReadOnly:
			if above, ok := t.above(path); ok && t.ops[above].Kind == shim.ReadWrite && !t.ours(path) {
				g.pass(path)
			}
		case shim.ReadWrite, shim.Home, shim.Symlink:
		default:
			g.hide(path)
		}
	}
	if t.layers != nil {
		for _, rel := range t.layers.Absent {
			g.hide(filepath.Join(t.layers.Host, rel))
		}
	}
	for path, op := range t.ops {
		switch op.Kind {
		case shim.ReadWrite:
			g.add(path, shim.AccessWrite)
		case shim.ReadOnly, shim.Home:
			// The profile strict has a home of its own, in which nothing of the user's is but what is shown besides.
			if op.Kind != shim.Home || t.layers != nil && !t.layers.Bare {
				g.add(path, shim.AccessRead)
			}
		}
	}
	return g.list
}

// ours tells what is guarded in the workspace, or in the part of a repository that is a linked worktree's own. It cannot
// be kept from it here: git makes files beside it. In the repository of such a worktree it can, but for packing.
func (t *tree) ours(path string) bool {
	return within(path, t.policy.Workspace) || filepath.Base(filepath.Dir(filepath.Dir(path))) == "worktrees"
}

// granter collects the grants.
type granter struct {
	ops    map[string]shim.Mount
	hidden map[string]bool
	above  map[string]bool // directories that something hidden is below of
	list   []shim.Grant
}

func (g *granter) hide(path string) {
	g.hidden[path] = true
	g.pass(path)
}

// pass has what is above a path allowed one by one, beside the way to it.
func (g *granter) pass(path string) {
	for dir := filepath.Dir(path); !g.above[dir]; dir = filepath.Dir(dir) {
		g.above[dir] = true
	}
}

func (g *granter) add(path string, access shim.Access) {
	if g.hidden[path] {
		return
	}
	if !g.above[path] {
		g.list = append(g.list, shim.Grant{Path: path, Access: access})
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return
	}
	for _, e := range entries {
		child := filepath.Join(path, e.Name())
		if _, ok := g.ops[child]; ok || !e.IsDir() && !e.Type().IsRegular() {
			continue // it has a grant of its own, or needs none
		}
		g.add(child, access)
	}
}

// devices are those that every program may expect.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// ownGrants are the places that a sandbox with mounts has made for it.
func (l *confinement) ownGrants() []shim.Grant {
	own := shim.AccessWrite
	if l.policy.Profile == Strict {
		own = shim.AccessData
	}
	grants := []shim.Grant{
		{Path: filepath.Join(l.run, "tmp"), Access: own},
		{Path: filepath.Join(l.run, "files"), Access: shim.AccessRead},
		{Path: l.home, Access: own},
		{Path: "/proc", Access: shim.AccessRead},
	}
	for _, name := range devices {
		grants = append(grants, shim.Grant{Path: "/dev/" + name, Access: shim.AccessDevice})
	}
	if sharedMemoryIsFree() {
		grants = append(grants, shim.Grant{Path: "/dev/shm", Access: own})
	}
	return grants
}

// sharedMemoryIsFree tells whether nothing is in /dev/shm that this user may open: C libraries
// have their semaphores there and nowhere else, and so do the user's other programs. Most of those exist for a
// moment only, while they are made: it looks again before it says no.
func sharedMemoryIsFree() bool {
	for range 10 {
		entries, err := os.ReadDir("/dev/shm")
		if err != nil {
			return false
		}
		if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
			return unix.Access(filepath.Join("/dev/shm", e.Name()), unix.R_OK) == nil
		}) {
			return true
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}
