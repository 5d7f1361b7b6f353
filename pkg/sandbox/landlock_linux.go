package sandbox

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
	"github.com/sesame-cli/sesame/pkg/sandbox/supervisor"
)

// confinement is what a sandbox of the tier landlock has besides its box: there is nothing to mount on, so
// its own places are directories of the host's.
type confinement struct {
	ownPlaces
	grants []shim.Grant
	ready  chan struct{} // closed when the plan is made and all above is known
}

// LandlockVersion is the version of this kernel's Landlock, 0 where there is none.
func LandlockVersion() int { return shim.LandlockABI() }

func startLandlock(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	switch abi := shim.LandlockABI(); {
	case abi == 0:
		return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier landlock cannot be had here: this kernel has no Landlock, or it is not switched on").
			Hint("use Linux 5.19 or newer with landlock among its security modules (lsm=landlock,... on its command line)")
	case abi < shim.LandlockABIMin:
		return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier landlock cannot be had here: this kernel's Landlock has version %d, and %d is needed", abi, shim.LandlockABIMin).
			Hint("use Linux 5.19 or newer")
	}
	c.watch()
	forgo()
	own, err := newOwnPlaces(p, "")
	if err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "make the sandbox's own directory: %w", err).
			Hint("name another place for it with TMPDIR")
	}
	l := &confinement{ownPlaces: own, ready: make(chan struct{})}
	l.reads, l.shows = l.granted, l.grantedBelow
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, strings.ToLower(name))
	}
	k, err := newKeeper(c)
	if err != nil {
		l.close()
		return nil, err
	}
	process, err := startBox(ctx, p, c, k, mechanics{tier: Landlock, plan: l.plan, take: l.supervise, localNames: names})
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

// plan is the plan of a sandbox without namespaces.
func (l *confinement) plan(ctx context.Context, b *box, c *Command) (*shim.Plan, error) {
	if err := b.up(); err != nil {
		return nil, unavailable(err)
	}
	if err := b.join(ctx); err != nil {
		return nil, err
	}
	b.sweepKilled()
	owed := b.sweepLeft()
	t, err := newTree(l.policy)
	if err != nil {
		return nil, err
	}
	t.noMounts, t.first = true, b.joined
	// The host's sockets are no matter of files here: whoever connects is asked.
	if err := t.collect(); err != nil {
		return nil, err
	}
	t.hideBinds()
	t.prune()
	t.finishSweep()
	if err := b.noteSweep(t.sweep, owed); err != nil {
		return nil, err
	}
	l.grants = t.grants()
	if err := l.takeHome(); err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "make the sandbox's home: %w", err)
	}
	if err := l.give(); err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "make the sandbox's files: %w", err)
	}
	l.grants = append(l.grants, l.ownGrants()...)
	pl := &shim.Plan{
		// The C library is to ask the name server by TCP, and to believe the one that answers.
		Args: replaced(c.Args, l.insidePaths()), Dir: c.Dir, Env: setVariables(l.environment(c.Env), "RES_OPTIONS=use-vc"), Terminal: c.Terminal, Strict: l.policy.Profile == Strict,
		Processes: processLimit(),
		Confine:   &shim.Confine{Grants: l.grants, Remove: l.run},
	}
	if pl.Dir == "" {
		pl.Dir = l.policy.Workspace
	}
	close(l.ready)
	return pl, nil
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
		if g.Access == shim.AccessWrite || g.Access == shim.AccessData {
			paths = append(paths, g.Path)
		}
	}
	return paths
}

// granted tells whether the sandbox may read a path with all below it.
func (l *confinement) granted(path string) bool {
	return slices.ContainsFunc(l.grants, func(g shim.Grant) bool { return g.Access != shim.AccessDevice && within(path, g.Path) })
}

// grantedBelow tells whether it may read something below a path.
func (l *confinement) grantedBelow(path string) bool {
	return slices.ContainsFunc(l.grants, func(g shim.Grant) bool { return g.Access != shim.AccessDevice && within(g.Path, path) })
}
