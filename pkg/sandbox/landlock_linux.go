package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
	"github.com/sesame-cli/sesame/pkg/sandbox/supervisor"
)

// confinement is what a sandbox of the tier landlock has besides its box: there is nothing to mount on, so
// its own places are directories of the host's.
type confinement struct {
	policy *Policy
	run    string // the run's own directory: "tmp", "files" and, if it is not kept, "home"
	home   string
	grants []shim.Grant
	lock   *os.File      // of Policy.HomeState, or nil
	ready  chan struct{} // closed when the plan is made and all above is known
}

// LandlockVersion is the version of this kernel's Landlock, 0 where there is none.
func LandlockVersion() int { return shim.LandlockABI() }

func startLandlock(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if p.Profile == Strict {
		return nil, fault.New(fault.SandboxUnavailable, "the sandbox profile strict cannot be had in the tier landlock").
			Hint("use --profile standard, with --deny-read for what must stay hidden")
	}
	switch abi := shim.LandlockABI(); {
	case abi == 0:
		return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier landlock cannot be had here: this kernel has no Landlock, or it is not switched on").
			Hint("use Linux 5.19 or newer with landlock among its security modules (lsm=landlock,... on its command line)")
	case abi < shim.LandlockABIMin:
		return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier landlock cannot be had here: this kernel's Landlock has version %d, and %d is needed", abi, shim.LandlockABIMin).
			Hint("use Linux 5.19 or newer")
	}
	run, err := newRunDir()
	if err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "make the sandbox's own directory: %w", err).
			Hint("name another place for it with TMPDIR")
	}
	l := &confinement{policy: p, run: run, ready: make(chan struct{})}
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, strings.ToLower(name))
	}
	process, err := startBox(ctx, p, c, mechanics{
		tier: Landlock, shim: shim.KeeperName, attr: &syscall.SysProcAttr{}, plan: l.plan, take: l.supervise, localNames: names,
	})
	if err != nil {
		l.close()
		return nil, err
	}
	wait := process.wait
	process.wait = func() (Status, error) {
		defer l.close()
		return wait()
	}
	if p.Notice != nil {
		p.Notice("sandbox tier landlock: weaker than namespaces in some ways, which `sesame sandbox --explain` lists")
	}
	return process, nil
}

func newRunDir() (string, error) {
	run, err := os.MkdirTemp("", "sesame-")
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(run)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"tmp", "files"} {
		if err := os.Mkdir(filepath.Join(real, name), 0o700); err != nil {
			return "", err
		}
	}
	return real, nil
}

// close removes what the shim does not remove when all goes well.
func (l *confinement) close() {
	_ = os.RemoveAll(l.run) // what is left is in the user's own temporary directory
	if l.lock != nil {
		l.lock.Close()
	}
}

// plan is the plan of a sandbox without namespaces.
func (l *confinement) plan(b *box, c *Command) (*shim.Plan, error) {
	t, err := newTree(l.policy)
	if err != nil {
		return nil, err
	}
	// The host's sockets are no matter of files here: whoever connects is asked.
	if err := t.collect(); err != nil {
		return nil, err
	}
	t.prune()
	if err := b.noteAbsent(t.absent); err != nil {
		return nil, err
	}
	l.grants = t.grants()
	if err := l.takeHome(); err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "make the sandbox's home: %w", err)
	}
	for _, f := range l.policy.Files {
		if err := l.give(f); err != nil {
			return nil, fault.New(fault.SandboxUnavailable, "make %s: %w", f.Path, err)
		}
	}
	l.grants = append(l.grants, l.ownGrants()...)
	inside := l.insidePaths()
	pl := &shim.Plan{
		Dir: c.Dir, Env: l.environment(c.Env, inside), Terminal: c.Terminal,
		Confine: &shim.Confine{Grants: l.grants, Remove: l.run},
	}
	for _, arg := range c.Args {
		pl.Args = append(pl.Args, inside.Replace(arg))
	}
	if pl.Dir == "" {
		pl.Dir = l.policy.Workspace
	}
	close(l.ready)
	return pl, nil
}

// give writes a file of the policy where the sandbox can read it.
func (l *confinement) give(f File) error {
	rel, err := filepath.Rel(PrivateDir, f.Path)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("not below %s", PrivateDir)
	}
	path := filepath.Join(l.run, "files", rel)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, f.Data, 0o400)
}

// insidePaths turns the paths that other tiers have into those of this one: arguments and variables name them.
func (l *confinement) insidePaths() *strings.Replacer {
	return strings.NewReplacer(PrivateDir+"/", filepath.Join(l.run, "files")+"/", homeWithin, filepath.Join(l.run, "home"))
}

// writtenHomes are variables that say where in the home a toolchain also writes.
var writtenHomes = []string{"GOPATH", "CARGO_HOME", "GEM_HOME", "DENO_DIR", "BUN_INSTALL", "PNPM_HOME"}

// environment is the command's, for the home and the temporary directory that there are.
func (l *confinement) environment(env []string, inside *strings.Replacer) []string {
	out := make([]string, 0, len(env)+3)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "HOME":
			value = l.home
		case name == "TMPDIR" || name == "TEMP" || name == "TMP" || name == "RES_OPTIONS":
			continue
		case l.policy.Home != "" && slices.Contains(writtenHomes, name) && within(value, l.policy.Home):
			value = l.home + strings.TrimPrefix(value, l.policy.Home)
		case name == "PATH":
			value = l.searchPath(value)
		default:
			value = inside.Replace(value)
		}
		out = append(out, name+"="+value)
	}
	// The C library is to ask the name server by TCP, and to believe the one that answers.
	return append(out, "TMPDIR="+filepath.Join(l.run, "tmp"), "RES_OPTIONS=use-vc")
}

// searchPath leaves out the directories that cannot be read: a shell would find programs there, and fail to start them.
func (l *confinement) searchPath(path string) string {
	var dirs []string
	for _, dir := range filepath.SplitList(path) {
		real := resolve(dir)
		if slices.ContainsFunc(l.grants, func(g shim.Grant) bool { return within(real, g.Path) }) {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// supervise begins to answer the calls that the sandbox's filter does not decide.
func (l *confinement) supervise(b *box, fds []int) error {
	<-l.ready // the shim hands over nothing before it has the plan
	if len(fds) != 1 {
		return errors.New("the sandbox handed over no listener")
	}
	s, err := supervisor.New(supervisor.Options{
		Gateway: b.gateway, Writable: l.writable(), Sockets: append(l.policy.AllowRead, l.policy.AllowWrite...),
	})
	if err != nil {
		unix.Close(fds[0])
		return err
	}
	go func() { _ = s.Serve(fds[0]) }() // its error is its end; calls then fail
	return nil
}

func (l *confinement) writable() []string {
	var paths []string
	for _, g := range l.grants {
		if g.Access == shim.AccessWrite {
			paths = append(paths, g.Path)
		}
	}
	return paths
}
