package sandbox

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
	"github.com/sesame-cli/sesame/pkg/sandbox/secret"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// plan spells the policy out.
func (t *tree) plan(c *Command) *shim.Plan {
	p := t.policy
	for _, f := range p.Files {
		t.set(shim.Mount{Kind: shim.File, Path: f.Path, Data: f.Data, Also: f.Also})
	}
	pl := &shim.Plan{Home: t.layers, Strict: p.Profile == Strict, Args: c.Args, Dir: c.Dir, Env: c.Env, Terminal: c.Terminal, Processes: processLimitInside()}
	if pl.Strict {
		// Amp's native builds unpack a library of their own, and this is where they are told to.
		pl.Env = setVariables(pl.Env, "BUN_TMPDIR="+librariesDir)
	}
	pl.Ports = gateway.Rules(p.AllowHosts).Ports()
	if fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		pl.IPv6, pl.Listen6 = true, gateway.Rules(p.AllowHosts).NameIPv6()
		unix.Close(fd)
	}
	if pl.Dir == "" {
		pl.Dir = p.Workspace
	}
	pl.Mounts = parentsFirst(slices.AppendSeq(make([]shim.Mount, 0, len(t.ops)), maps.Values(t.ops)))
	return pl
}

// drawTree decides about all paths. It looks at the host's files but changes nothing.
func drawTree(p *Policy) (*tree, error) {
	t, err := newTree(p)
	if err != nil {
		return nil, err
	}
	if err := t.collect(); err != nil {
		return nil, err
	}
	return t, t.complete()
}

// complete adds what only matters to a tier with mounts, and leaves out what is idle.
func (t *tree) complete() error {
	if err := t.sockets(); err != nil {
		return fault.New(fault.SandboxUnavailable, "find the host's sockets: %w", err)
	}
	t.hideBinds()
	t.prune()
	t.finishSweep()
	return nil
}

// collect finds out what is shown and what is hidden, in every tier; prune then leaves out what that makes idle. The first process can begin
// after each part of it.
func (t *tree) collect() error {
	t.collectHome()
	if err := t.collectSystem(); err != nil {
		return err
	}
	return t.collectRest()
}

// collectHome finds out what matters to the home's layers, which are complete then.
func (t *tree) collectHome() {
	t.home()
	t.binds()
	t.hidesOfHome()
	t.pruneHome()
	t.sealed = true
}

// collectSystem adds what is shown whatever the policy says: what that has named is there already.
func (t *tree) collectSystem() error {
	named := maps.Clone(t.ops)
	if err := t.system(); err != nil {
		return fault.New(fault.SandboxUnavailable, "read the root directory: %w", err)
	}
	maps.Copy(t.ops, named)
	return nil
}

// collectRest finds out the rest.
func (t *tree) collectRest() (err error) {
	t.guard()
	if t.reopened {
		t.hidesOfHome()
	}
	for _, later := range t.postponed {
		later()
	}
	if t.mounts, err = mountPoints(); err != nil {
		return fault.New(fault.SandboxUnavailable, "find what is mounted: %w", err)
	}
	if err := t.hidesElsewhere(); err != nil {
		return err
	}
	return t.unknown
}

// tree collects mount operations, one for each path.
type tree struct {
	policy *Policy
	ops    map[string]shim.Mount
	layers *shim.Layers
	sealed bool // the layers are complete, and may be in use
	// Until sealed only the layers hide. Other hides wait here, for the guard: what that has made read-only counts as named by the policy.
	postponed []func()
	reopened  bool     // since sealed something of the host was mounted in the home
	deny      []string // what the policy hides outright, also resolved
	view      *view
	sweep     sweep           // what is to be guarded and cannot be a mount
	top       string          // the workspace, if it is to be guarded
	first     *sweep          // what the first of the sandboxes of the workspace has noted, nil if this is it
	looked    map[string]bool // by directory: its repository is guarded
	guarded   map[string]bool // by path: it is read-only because programs of the host execute it
	mounts    []mountPoint    // read when the first process has something else to do than to mount, which others wait for
	homes     []string        // of all users
	unknown   error           // what is to be guarded or hidden cannot be looked at
	masked    map[string]bool // directories of the home that are in layers.Dirs with all above them, or need not be
	absent    map[string]bool // what is in layers.Absent
	unmade    []string        // directories of the home that are in there because there are none, and would have secrets in them

	openModules  bool       // in submodules work goes on
	noMounts     bool       // it is for a tier without mounts
	knownIndexes []gitIndex // what large indexes named when they were last read
	indexes      *indexReader
}

func newTree(p *Policy) (*tree, error) {
	// The usual sizes: growing takes as long as filling.
	t := &tree{policy: p, ops: make(map[string]shim.Mount, 50), view: newView(), looked: map[string]bool{}, guarded: map[string]bool{}, masked: map[string]bool{}, absent: make(map[string]bool, len(secret.Home))}
	for _, d := range p.outright() {
		t.deny = append(t.deny, d)
		if real := t.view.resolve(d); real != d {
			t.deny = append(t.deny, real)
		}
	}
	if d, ok := t.denied(p.Workspace); ok {
		return nil, fault.New(fault.Usage, "the workspace %s is in %s, which the sandbox hides", p.Workspace, d)
	}
	return t, nil
}

func (t *tree) set(op shim.Mount) {
	if t.sealed && (op.Kind == shim.ReadOnly || op.Kind == shim.ReadWrite) && t.inHome(op.Path) {
		t.reopened = true
	}
	t.ops[op.Path] = op
}

// known are the mounts so far, which mostly stay as they are, but for those in the home: what an earlier turn put in their way is removed
// when all of them are known.
func (t *tree) known() []shim.Mount {
	mounts := make([]shim.Mount, 0, len(t.ops))
	for path, op := range t.ops {
		if t.layers == nil || path == t.layers.Host || !within(path, t.layers.Host) {
			mounts = append(mounts, op)
		}
	}
	return parentsFirst(mounts)
}

// parentsFirst sorts mounts.
func parentsFirst(mounts []shim.Mount) []shim.Mount {
	// A parent's path is a prefix of its child's.
	slices.SortFunc(mounts, func(a, b shim.Mount) int { return strings.Compare(a.Path, b.Path) })
	return mounts
}

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
	root := t.view.list("/")
	if root.err != nil {
		return root.err
	}
	for name, kind := range root.types {
		path := "/" + name
		switch {
		case slices.Contains(ownTops, path):
		case t.policy.Profile == Strict && !slices.Contains(strictTops, path):
		case kind&fs.ModeSymlink != 0:
			if text, err := os.Readlink(path); err == nil {
				t.set(shim.Mount{Kind: shim.Symlink, Path: path, Source: text})
			}
		case kind.IsDir():
			t.set(shim.Mount{Kind: shim.ReadOnly, Path: path, Source: path})
		}
	}
	t.set(shim.Mount{Kind: shim.Proc, Path: "/proc"})
	t.set(shim.Mount{Kind: shim.Dev, Path: "/dev"})
	t.set(shim.Mount{Kind: shim.Tmp, Path: "/tmp", Mode: fs.ModeSticky | 0o777})
	t.set(shim.Mount{Kind: shim.Tmp, Path: "/run", Mode: 0o755})
	t.set(shim.Mount{Kind: shim.Tmp, Path: PrivateDir, Mode: 0o755})
	if t.policy.Profile == Strict {
		t.set(shim.Mount{Kind: shim.Libraries, Path: librariesDir, Mode: 0o700})
	}
	_, there := t.view.directory("/var/tmp")
	above, _ := t.above("/var/tmp")
	kind := t.ops[above].Kind // nothing is made in what is the host's
	if there || t.policy.Profile == Strict && kind != shim.ReadOnly && kind != shim.ReadWrite {
		t.set(shim.Mount{Kind: shim.Tmp, Path: "/var/tmp", Mode: fs.ModeSticky | 0o777})
	}
	// Toolchains that some systems have in unusual places.
	if _, ok := t.view.directory("/home/linuxbrew"); ok {
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
		real, err := t.view.real(path)
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

// above finds the nearest path above path that has a mount of its own.
func (t *tree) above(path string) (string, bool) {
	for slash := strings.LastIndexByte(path, '/'); slash >= 0 && path != "/"; slash = strings.LastIndexByte(path, '/') {
		path = path[:max(slash, 1)]
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
	t.layers = &shim.Layers{Host: p.Home, State: p.HomeState, Absent: make([]string, 0, len(secret.Home))}
	t.set(shim.Mount{Kind: shim.Home, Path: p.Home})
	if p.Profile != Strict {
		return
	}
	t.layers.Bare = true
	for _, name := range toolchains {
		path := filepath.Join(p.Home, name)
		if !t.view.isReal(path) {
			continue
		}
		if _, hidden := t.denied(path); !hidden {
			t.set(shim.Mount{Kind: shim.ReadOnly, Path: path, Source: path})
		}
	}
}
