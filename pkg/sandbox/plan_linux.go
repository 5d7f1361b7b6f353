package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// makePlan spells the policy out. It looks at the host's files but changes nothing.
// The paths it returns must not be there when the sandbox has ended.
func makePlan(p *Policy, c *Command) (plan *shim.Plan, absent []string, err error) {
	t, err := drawTree(p)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range p.Files {
		t.set(shim.Mount{Kind: shim.File, Path: f.Path, Data: f.Data, Also: f.Also})
	}
	pl := &shim.Plan{Home: t.layers, Strict: p.Profile == Strict, Args: c.Args, Dir: c.Dir, Env: c.Env, Terminal: c.Terminal}
	pl.Ports = gateway.Rules(p.AllowHosts).Ports()
	for _, r := range p.AllowHosts {
		if a, ok := r.Addr(); ok && a.Is6() {
			pl.IPv6 = true
		}
	}
	if pl.Dir == "" {
		pl.Dir = p.Workspace
	}
	for _, op := range t.ops {
		pl.Mounts = append(pl.Mounts, op)
	}
	// A parent's path is a prefix of its child's, so this order makes parents first.
	slices.SortFunc(pl.Mounts, func(a, b shim.Mount) int { return strings.Compare(a.Path, b.Path) })
	return pl, t.absent, nil
}

// drawTree decides about all paths.
func drawTree(p *Policy) (*tree, error) {
	t, err := newTree(p)
	if err != nil {
		return nil, err
	}
	if err := t.system(); err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "read the root directory: %w", err)
	}
	t.home()
	t.binds()
	t.guard()
	if err := t.hides(); err != nil {
		return nil, err
	}
	if err := t.sockets(); err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "find the host's sockets: %w", err)
	}
	t.prune()
	return t, nil
}

// tree collects mount operations, one for each path.
type tree struct {
	policy   *Policy
	ops      map[string]shim.Mount
	layers   *shim.Layers
	deny     []string            // Private, HomeState and DenyRead, also resolved
	real     map[string]bool     // by directory; see isReal
	absent   []string            // guarded paths that are not there yet
	listings map[string]*listing // by path, as far as they were looked at
}

func newTree(p *Policy) (*tree, error) {
	t := &tree{policy: p, ops: map[string]shim.Mount{}, listings: map[string]*listing{}, real: map[string]bool{}}
	hidden := slices.Concat(p.Private, p.DenyRead)
	if p.HomeState != "" {
		hidden = append(hidden, p.HomeState)
	}
	for _, d := range hidden {
		t.deny = append(t.deny, d)
		if real := resolve(d); real != d {
			t.deny = append(t.deny, real)
		}
	}
	if d, ok := t.denied(p.Workspace); ok {
		return nil, fault.New(fault.Usage, "the workspace %s is in %s, which the sandbox hides", p.Workspace, d)
	}
	return t, nil
}

func (t *tree) set(op shim.Mount) { t.ops[op.Path] = op }

func (t *tree) denied(path string) (by string, ok bool) {
	for _, d := range t.deny {
		if within(path, d) {
			return d, true
		}
	}
	return "", false
}

// ownTops are the directories of / that the sandbox has of its own or not at all.
var ownTops = []string{"/proc", "/dev", "/tmp", "/run", "/home", "/root", "/lost+found"}

// system shows what is in / read-only, but for what is the sandbox's own.
func (t *tree) system() error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := "/" + e.Name()
		switch {
		case slices.Contains(ownTops, path):
		case t.policy.Profile == Strict && !slices.Contains(strictTops, path):
		case e.Type()&fs.ModeSymlink != 0:
			if text, err := os.Readlink(path); err == nil {
				t.set(shim.Mount{Kind: shim.Symlink, Path: path, Source: text})
			}
		case e.IsDir():
			t.set(shim.Mount{Kind: shim.ReadOnly, Path: path, Source: path})
		}
	}
	t.set(shim.Mount{Kind: shim.Proc, Path: "/proc"})
	t.set(shim.Mount{Kind: shim.Dev, Path: "/dev"})
	t.set(shim.Mount{Kind: shim.Tmp, Path: "/tmp", Mode: fs.ModeSticky | 0o777})
	t.set(shim.Mount{Kind: shim.Tmp, Path: "/run", Mode: 0o755})
	t.set(shim.Mount{Kind: shim.Tmp, Path: PrivateDir, Mode: 0o755})
	if isDir("/var/tmp") || t.policy.Profile == Strict {
		t.set(shim.Mount{Kind: shim.Tmp, Path: "/var/tmp", Mode: fs.ModeSticky | 0o777})
	}
	// Toolchains that some systems have in unusual places.
	if isDir("/home/linuxbrew") {
		t.set(shim.Mount{Kind: shim.ReadOnly, Path: "/home/linuxbrew", Source: "/home/linuxbrew"})
	}
	if text, err := os.Readlink("/run/current-system"); err == nil {
		t.set(shim.Mount{Kind: shim.Symlink, Path: "/run/current-system", Source: text})
	}
	t.set(shim.Mount{Kind: shim.File, Path: finalPath("/etc/resolv.conf"), Data: []byte("nameserver 127.0.0.1\noptions timeout:2 attempts:2\n")})
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "sandbox"
	}
	// The host's own file could name allowed hosts at addresses that are not the gateway's.
	hosts := "127.0.0.1 localhost " + name + "\n::1 localhost ip6-localhost ip6-loopback\n"
	t.set(shim.Mount{Kind: shim.File, Path: finalPath("/etc/hosts"), Data: []byte(hosts)})
	return nil
}

// finalPath follows symlinks as far as they lead, also to what does not exist.
func finalPath(path string) string {
	for range 40 {
		text, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(text) {
			text = filepath.Join(filepath.Dir(path), text)
		}
		path = filepath.Clean(text)
	}
	return path
}

// binds adds what the policy shows as the host has it.
func (t *tree) binds() {
	bind := func(kind shim.Kind, path string) {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return // Policy.Check has told the user; what vanished since is not shown
		}
		if _, ok := t.denied(real); !ok {
			t.set(shim.Mount{Kind: kind, Path: real, Source: real})
		}
	}
	for _, path := range t.policy.AllowRead {
		bind(shim.ReadOnly, path)
	}
	bind(shim.ReadWrite, t.policy.Workspace)
	for _, path := range t.policy.AllowWrite {
		bind(shim.ReadWrite, path)
	}
}

// hides removes secrets: out of the home by a layer that says they are not there, elsewhere by covering them.
func (t *tree) hides() error {
	p := t.policy
	for _, d := range t.deny {
		t.hide(d, true)
	}
	for _, pattern := range homeSecrets {
		if p.Home == "" {
			break
		}
		t.hideAll(p.Home, pattern)
	}
	for _, pattern := range systemSecrets {
		t.hideAll("/", pattern)
	}
	homes, err := otherHomes(p.Home)
	if err != nil {
		return fault.New(fault.SandboxUnavailable, "find other users' homes: %w", err)
	}
	for _, h := range homes {
		if !within("/home", h) && !within(h, "/home") && !within(h, "/root") { // those are not shown anyway
			t.hideDefault(h)
		}
	}
	return nil
}

// hideAll hides what matches a pattern of the default list, unless the user allowed just that.
// In the home a name without wildcard is hidden even where it does not exist yet.
func (t *tree) hideAll(dir, pattern string) {
	parent, base := filepath.Split(filepath.Join(dir, pattern))
	d := t.listing(filepath.Clean(parent))
	if d.path == "" {
		// No such directory, so nothing in it. But programs make these when they are first used.
		if first, _, _ := strings.Cut(pattern, "/"); slices.Contains([]string{".config", ".local", ".cache"}, first) && !strings.Contains(base, "*") {
			t.hide(filepath.Join(dir, pattern), true)
		}
		return
	}
	names := []string{base}
	if strings.Contains(base, "*") {
		names = names[:0]
		for name := range d.entries {
			if ok, err := filepath.Match(base, name); ok && err == nil {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		path := filepath.Join(d.path, name)
		if d.entries[name]&fs.ModeSymlink != 0 {
			if real, err := filepath.EvalSymlinks(path); err == nil {
				t.hideDefault(real)
			}
		}
		t.hideDefault(path)
	}
}

// listing is a directory that the default lists speak of.
type listing struct {
	path    string // without links; "" if there is no such directory
	mode    os.FileMode
	entries map[string]fs.FileMode // types by name
	whole   bool                   // entries are all there are
}

// listing reads a directory, once however many secrets are looked for in it.
func (t *tree) listing(path string) *listing {
	if d, ok := t.listings[path]; ok {
		return d
	}
	d := &listing{}
	t.listings[path] = d
	// Most are not there, and their parents' lists tell that for less than a look.
	if up, ok := t.listings[filepath.Dir(path)]; ok && up.whole {
		if _, ok := up.entries[filepath.Base(path)]; !ok {
			return d
		}
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return d
	}
	entries, err := os.ReadDir(real)
	info, statErr := os.Stat(real)
	if statErr != nil || !info.IsDir() || err != nil && len(entries) == 0 && !errors.Is(err, fs.ErrPermission) {
		return d
	}
	d.path, d.mode, d.entries, d.whole = real, info.Mode().Perm(), make(map[string]fs.FileMode, len(entries)), err == nil
	for _, e := range entries {
		d.entries[e.Name()] = e.Type()
	}
	return d
}

func (t *tree) hideDefault(path string) {
	if op, ok := t.ops[path]; ok && (op.Kind == shim.ReadOnly || op.Kind == shim.ReadWrite) {
		return
	}
	t.hide(path, false)
}

// hide makes a path absent. In the home that works for paths that do not exist, too; if outright is set, also for
// those whose directories do not exist.
func (t *tree) hide(path string, outright bool) {
	if t.inHome(path) {
		t.whiteout(path, outright)
		return
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return // nothing there; or a link, whose target is hidden itself
	}
	op := shim.Mount{Kind: shim.Hide, Path: path, Blank: shim.BlankFile}
	if info.IsDir() {
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
	for _, op := range t.ops {
		if (op.Kind == shim.ReadOnly || op.Kind == shim.ReadWrite) && within(op.Path, t.layers.Host) && within(path, op.Path) {
			return false
		}
	}
	return true
}

// whiteout makes path absent from the home. Its parents must then be in the mask layer, with the modes they have.
func (t *tree) whiteout(path string, outright bool) {
	l := t.layers
	rel, err := filepath.Rel(l.Host, path)
	if err != nil || slices.Contains(l.Absent, rel) {
		return
	}
	parent := l.Host
	var dirs []shim.DirMode
	for _, elem := range strings.Split(filepath.Dir(rel), "/") {
		parent = filepath.Join(parent, elem)
		d := t.listing(parent)
		mode := d.mode
		switch {
		case d.path == "" && outright:
			mode = 0o700
		case d.path != parent:
			return // no such directory, so nothing in it; or a link, whose target is hidden itself
		}
		if r, _ := filepath.Rel(l.Host, parent); r != "." {
			dirs = append(dirs, shim.DirMode{Path: r, Mode: mode})
		}
	}
	for _, d := range dirs {
		if !slices.Contains(l.Dirs, d) {
			l.Dirs = append(l.Dirs, d)
		}
	}
	l.Absent = append(l.Absent, rel)
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
		if real, err := filepath.EvalSymlinks(path); err == nil && real == path {
			t.hide(path, false)
		}
	}
	return nil
}

// prune leaves out what is hidden by hiding something above it already.
func (t *tree) prune() {
	for path, op := range t.ops {
		if above, ok := t.above(path); ok && op.Kind == shim.Hide && t.ops[above].Kind == shim.Hide {
			delete(t.ops, path)
		}
	}
	if t.layers == nil {
		return
	}
	absent := make(map[string]bool, len(t.layers.Absent))
	for _, rel := range t.layers.Absent {
		absent[rel] = true
	}
	hidden := func(rel string) bool {
		for rel = filepath.Dir(rel); rel != "."; rel = filepath.Dir(rel) {
			if absent[rel] {
				return true
			}
		}
		return false
	}
	t.layers.Absent = slices.DeleteFunc(t.layers.Absent, hidden)
	t.layers.Dirs = slices.DeleteFunc(t.layers.Dirs, func(d shim.DirMode) bool { return absent[d.Path] || hidden(d.Path) })
}

// above finds the nearest path above path that has a mount of its own.
func (t *tree) above(path string) (string, bool) {
	for path != "/" {
		path = filepath.Dir(path)
		if _, ok := t.ops[path]; ok {
			return path, true
		}
	}
	return "", false
}

func (t *tree) home() {
	p := t.policy
	if p.Home == "" {
		t.set(shim.Mount{Kind: shim.Tmp, Path: homeWithin, Mode: 0o700})
		return
	}
	t.layers = &shim.Layers{Host: p.Home, State: p.HomeState}
	t.set(shim.Mount{Kind: shim.Home, Path: p.Home})
	if p.Profile != Strict {
		return
	}
	t.layers.Bare = true
	for _, name := range toolchains {
		path := filepath.Join(p.Home, name)
		if real, err := filepath.EvalSymlinks(path); err != nil || real != path {
			continue
		}
		if _, hidden := t.denied(path); !hidden {
			t.set(shim.Mount{Kind: shim.ReadOnly, Path: path, Source: path})
		}
	}
}

// otherHomes lists the homes of people other than the one whose home is own.
func otherHomes(own string) ([]string, error) {
	f, err := os.Open("/etc/passwd")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var homes []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		field := strings.Split(lines.Text(), ":")
		if len(field) < 7 {
			continue
		}
		uid, err := strconv.Atoi(field[2])
		home := filepath.Clean(field[5])
		if err != nil || uid != 0 && uid < 1000 || uid >= 65534 || home == "/" || !filepath.IsAbs(home) || own != "" && within(own, home) {
			continue
		}
		homes = append(homes, home)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("/etc/passwd: %w", err)
	}
	return homes, nil
}
