package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/secret"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// hidesOfHome removes secrets out of the home, by a layer that says they are not there, and what the policy hides, wherever that is.
func (t *tree) hidesOfHome() {
	home := t.policy.Home
	for _, d := range t.deny {
		t.hide(d, true)
	}
	// Patterns have directories listed, and a list tells at once what of the other names is not there.
	for _, wild := range []bool{true, false} {
		for _, pattern := range secret.Home {
			if home != "" && strings.Contains(pattern, "*") == wild {
				t.hideAll(home+"/"+pattern, pattern)
			}
		}
		t.hideSystem(wild, true)
	}
}

// hideSystem hides secrets of the system, those that lie in the home or the others.
func (t *tree) hideSystem(wild, inHome bool) {
	for _, pattern := range secret.System {
		if strings.Contains(pattern, "*") == wild && (t.policy.Home != "" && within(pattern, t.policy.Home)) == inHome {
			t.hideAll(pattern, "")
		}
	}
}

// hidesElsewhere removes other secrets, by covering them.
func (t *tree) hidesElsewhere() error {
	p := t.policy
	for _, wild := range []bool{true, false} {
		t.hideSystem(wild, false)
	}
	homes, err := otherHomes(p.Home)
	if err != nil {
		return fault.New(fault.SandboxUnavailable, "find other users' homes: %w", err)
	}
	homes = append(homes, "/home", "/root") // which may be links, too
	for _, h := range homes {
		for _, h := range []string{h, t.view.resolve(h)} {
			shown := !within("/home", h) && !within(h, "/home") && !within(h, "/root")
			if h != p.Home && (shown || p.Home != "" && within(h, p.Home)) {
				t.hideDefault(h)
			}
		}
	}
	if t.homes = homes; p.Home != "" {
		t.homes = append(t.homes, p.Home)
	}
	return nil
}

// hideAll hides what matches a pattern of the default list, unless the user allowed just that. inHome is the pattern as
// the list of the home has it: there a name without wildcard is hidden even where it does not exist yet.
func (t *tree) hideAll(pattern, inHome string) {
	slash := strings.LastIndexByte(pattern, '/')
	base := pattern[slash+1:]
	dir, ok := t.view.directory(pattern[:slash])
	if !ok { // No such directory, so nothing in it. But programs of the host make it when they are first used.
		switch first, _, below := strings.Cut(inHome, "/"); {
		case !below:
		case !slices.Contains([]string{".config", ".local", ".cache"}, first):
			t.hideUnmade(first)
		case !strings.Contains(base, "*"):
			t.hide(pattern, true)
		}
		return
	}
	if !strings.Contains(base, "*") {
		t.hideSecret(dir + "/" + base)
		return
	}
	for name := range t.view.list(dir).types {
		if ok, err := filepath.Match(base, name); ok && err == nil {
			t.hideSecret(dir + "/" + name)
		}
	}
}

// hideUnmade hides a directory that the home has not, for as long as the sandbox runs. It may have one of its own.
func (t *tree) hideUnmade(name string) {
	path := t.policy.Home + "/" + name
	if _, err := t.view.lstat(path); errors.Is(err, fs.ErrNotExist) && t.inHome(path) && !t.absent[name] {
		t.whiteout(name, false)
		t.unmade = append(t.unmade, name)
	}
}

// hideSecret hides a path, and what it leads to if it is a link.
func (t *tree) hideSecret(path string) {
	if mode, err := t.view.lstat(path); err == nil && mode&fs.ModeSymlink != 0 {
		if real, err := t.view.real(path); err == nil {
			t.hideDefault(real)
		}
	}
	t.hideDefault(path)
}

// hideDefault hides a path unless the policy names it. What the system has in / nobody has named.
func (t *tree) hideDefault(path string) {
	if t.postpone(path, func() { t.hideDefault(path) }) {
		return
	}
	if op, ok := t.ops[path]; ok && (op.Kind == shim.ReadOnly || op.Kind == shim.ReadWrite) {
		p := t.policy
		if filepath.Dir(path) != "/" || slices.ContainsFunc(slices.Concat(p.AllowRead, p.AllowWrite, []string{p.Workspace}), func(named string) bool { return t.view.resolve(named) == path }) {
			return
		}
	}
	t.hide(path, false)
}

// hide makes a path absent. In the home that works for paths that do not exist, too; if outright is set, also for
// those whose directories do not exist.
func (t *tree) hide(path string, outright bool) {
	if t.postpone(path, func() { t.hide(path, outright) }) {
		return
	}
	if t.inHome(path) {
		switch rel := strings.TrimPrefix(path[len(t.layers.Host):], "/"); {
		case !t.sealed:
			t.whiteout(rel, outright)
			return
		case t.isAbsent(rel):
			return
		}
	}
	mode, err := t.view.lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		if above, ok := t.above(path); ok && t.ops[above].Kind == shim.ReadWrite {
			t.cannotLook(path, err)
		}
	}
	if err != nil || mode&fs.ModeSymlink != 0 {
		return // nothing there; or a link, whose target is hidden itself
	}
	op := shim.Mount{Kind: shim.Hide, Path: path, Blank: shim.BlankFile, Gone: mode&fs.ModeSocket != 0} // a program that ends removes its socket
	if mode.IsDir() {
		op.Blank = shim.BlankDir
		for other := range t.ops {
			if other != path && within(other, path) {
				op.Blank = shim.BlankParent
			}
		}
	}
	t.set(op)
	t.pin(path)
}

// pin mounts each directory between a writable one and a hidden path on itself: what is a mount point cannot
// be renamed, and the hidden path with it would come out from under its cover.
func (t *tree) pin(path string) {
	above, ok := t.above(path)
	if !ok || t.ops[above].Kind != shim.ReadWrite {
		return
	}
	for dir := filepath.Dir(path); dir != above; dir = filepath.Dir(dir) {
		t.set(shim.Mount{Kind: shim.ReadWrite, Path: dir, Source: dir})
	}
}

// inHome tells whether path is shown by the home's layers, not by something mounted over them.
func (t *tree) inHome(path string) bool {
	if t.layers == nil || path == t.layers.Host || !within(path, t.layers.Host) {
		return false
	}
	for at := path; len(at) >= len(t.layers.Host); at = at[:strings.LastIndexByte(at, '/')] {
		if kind := t.ops[at].Kind; kind == shim.ReadOnly || kind == shim.ReadWrite {
			return false
		}
	}
	return true
}

// postpone keeps for later what is to be done about a path that the home's layers do not show, as long as these are not complete.
func (t *tree) postpone(path string, later func()) bool {
	if t.sealed || t.inHome(path) {
		return false
	}
	t.postponed = append(t.postponed, later)
	return true
}

// whiteout makes a path absent from the home. Its parents must then be in the mask layer, with the modes they have.
func (t *tree) whiteout(rel string, outright bool) {
	if t.absent[rel] || !t.maskAbove(rel, outright) {
		return
	}
	t.absent[rel] = true
	t.layers.Absent = append(t.layers.Absent, rel)
}

// maskAbove has the directories above a path of the home in the mask layer. It tells whether they are there, or are to be made outright.
func (t *tree) maskAbove(rel string, outright bool) bool {
	dir := filepath.Dir(rel)
	if t.masked[dir] {
		return true
	}
	if dir != "." && !t.maskAbove(dir, outright) {
		return false
	}
	path, mode := filepath.Join(t.layers.Host, dir), fs.FileMode(0o700)
	switch real, ok := t.view.directory(path); {
	case !ok && outright:
	case real != path:
		return false // no such directory, so nothing in it; or a link, whose target is hidden itself
	default:
		mode, _ = t.view.lstat(path)
	}
	if t.masked[dir] = true; dir != "." {
		t.layers.Dirs = append(t.layers.Dirs, shim.DirMode{Path: dir, Mode: mode.Perm()})
	}
	return true
}

// sockets hides the sockets that programs of the host listen on where the host's directories are shown: a
// read-only mount keeps nobody from talking to them. Those that the policy names stay.
func (t *tree) sockets() error {
	data, err := os.ReadFile("/proc/net/unix")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		_, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " /")
		path = "/" + path
		if !ok || t.inHome(path) || slices.Contains(t.policy.AllowRead, path) || slices.Contains(t.policy.AllowWrite, path) {
			continue
		}
		above, ok := t.above(path)
		if !ok || t.ops[above].Kind != shim.ReadOnly && t.ops[above].Kind != shim.ReadWrite {
			continue // a directory of the sandbox's own
		}
		if t.view.isReal(path) {
			t.hide(path, false)
		}
	}
	return nil
}

// prune leaves out what is hidden by hiding something above it already, and pruneHome does so in the home.
func (t *tree) prune() {
	for path, op := range t.ops {
		if above, ok := t.above(path); ok && op.Kind == shim.Hide && t.ops[above].Kind == shim.Hide {
			delete(t.ops, path)
		}
	}
}

func (t *tree) pruneHome() {
	if t.layers == nil {
		return
	}
	t.layers.Absent = slices.DeleteFunc(t.layers.Absent, t.absentAbove)
	t.layers.Dirs = slices.DeleteFunc(t.layers.Dirs, func(d shim.DirMode) bool { return t.isAbsent(d.Path) })
}

// isAbsent tells whether a path of the home, or something above it, is absent.
func (t *tree) isAbsent(rel string) bool { return t.absent[rel] || t.absentAbove(rel) }

// absentAbove tells whether something above a path of the home is absent.
func (t *tree) absentAbove(rel string) bool {
	for i := strings.LastIndexByte(rel, '/'); i > 0; i = strings.LastIndexByte(rel[:i], '/') {
		if t.absent[rel[:i]] {
			return true
		}
	}
	return false
}

// otherHomes lists the homes of people other than the one whose home is own.
func otherHomes(own string) ([]string, error) {
	all, err := users()
	if err != nil {
		return nil, err
	}
	var homes []string
	for _, u := range all {
		uid, err := strconv.Atoi(u.uid)
		home := filepath.Clean(u.home)
		if err != nil || uid != 0 && uid < 1000 || uid >= 65534 || home == "/" || !filepath.IsAbs(home) || own != "" && within(own, home) {
			continue
		}
		homes = append(homes, home)
	}
	return homes, nil
}
