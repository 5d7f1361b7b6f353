package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// startTier goes on from a head in namespaces that was begun, unless that is nil, and ends it where it is not wanted.
func startTier(ctx context.Context, p *Policy, c *Command, begun head) (*Process, error) {
	err := p.Check()
	if err == nil {
		p = withPlaceForNotes(p)
		switch p.Tier {
		case "", Auto:
			return startStrongest(ctx, p, c, begun)
		case Namespaces:
			return startNamespaces(ctx, p, c, begun)
		}
	}
	if begun != nil {
		begun.abandon()
		begun.close()
	}
	if err != nil {
		return nil, err
	}
	if p.Tier == Landlock {
		return startLandlock(ctx, p, c)
	}
	return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier %s is not for this system", p.Tier).
		Hint("use --sandbox auto, --sandbox namespaces or --sandbox landlock")
}

// withPlaceForNotes is the policy of somebody without a home, which may be somebody without a place for notes, too: then none are kept.
func withPlaceForNotes(p *Policy) *Policy {
	if p.Home != "" || p.GuardState == "" || os.MkdirAll(p.guardDir(), 0o700) == nil {
		return p
	}
	without := *p
	without.HomeState, without.GuardState = "", ""
	return &without
}

// startStrongest starts the command in the first tier that works here.
func startStrongest(ctx context.Context, p *Policy, c *Command, begun head) (*Process, error) {
	process, err := startNamespaces(ctx, p, c, begun)
	if fault.CodeOf(err) != fault.SandboxUnavailable || passing(err) || ctx.Err() != nil {
		return process, err
	}
	process, second := startLandlock(ctx, p, c)
	if fault.CodeOf(second) == fault.SandboxUnavailable {
		// What would give the strongest tier helps most; the other is a detail.
		e := fault.New(fault.SandboxUnavailable, "%w; %w", err, second)
		for _, hint := range fault.HintsOf(err) {
			e = e.Hint("%s", hint)
		}
		return nil, e
	}
	return process, second
}

// passing tells whether a tier cannot be had now, but may be in a moment: another sandbox's command, which can have files change and
// processes and memory run out, must not bring this one a weaker tier.
func passing(err error) bool {
	if _, ok := errors.AsType[*planError](err); ok {
		return true
	}
	for _, why := range []error{errChanged, syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// mechanics are what the tiers of Linux differ in.
type mechanics struct {
	tier Tier
	plan func(ctx context.Context, b *box, c *Command) (*shim.Plan, error)
	take func(b *box, fds []int) error // the descriptors that the shim hands over
	// names of the sandbox itself, where it reads no hosts file
	localNames []string
}

// box is a sandbox of a tier of Linux, seen from the host.
type box struct {
	mechanics
	head
	policy    *Policy
	gateway   *gateway.Gateway
	refusals  []*gateway.Refusals
	sweep     sweep           // what to look at again at the end
	look      *look           // what does it
	lock      *os.File        // of Policy.HomeState, or nil
	shared    bool            // another one has that
	memory    *memoryHome     // if the home's changes are in memory
	unmade    []string        // see tree
	part      *guardLock      // of the workspace's guard; nil for none
	joined    *sweep          // what those of this workspace noted that were running already, nil for nobody
	trusted   map[string]bool // then: what this one knows to be the user's, by path
	others    others          // all that were running already
	unmounted string          // a file that says that this one has no mounts
	met       map[int64]bool  // their guards' numbers, and those of others that have nothing in common with this one
	metAt     int64           // when that was looked at first
	metTurns  int64           // the size of the file of turns then
	notes     bool            // it began alone, and keeps notes of the guard
	ran       bool            // the command did
	mayHave   bool            // or nobody knows whether it did
	owed      int64           // since when an earlier sandbox has left something to sweep, or 0
	owedUntil int64
	keep      func() bool       // stops waiting for the end of the context
	ended     chan shim.Message // closed without a value when the shim said nothing
}

// errChanged is in the chain of a failure that is no matter of the machine, but of what other programs do to the files of the workspace
// meanwhile.
var errChanged = errors.New("other programs changed what the sandbox shows while it was made")

// mostPlans is how often a sandbox is planned anew when that happens, with pauses between.
const (
	mostPlans         = 10
	pauseBetweenPlans = time.Millisecond
)

// planError is a failure to find out what a sandbox is to show, which says nothing of the machine either.
type planError struct{ error }

func (e *planError) Unwrap() error { return e.error }

func startNamespaces(ctx context.Context, p *Policy, c *Command, begun head) (process *Process, err error) {
	for range mostPlans {
		if begun == nil {
			begun = begin()
		}
		process, err = startBox(ctx, p, c, begun, mechanics{tier: Namespaces, plan: mountPlan, take: (*box).serve})
		if !errors.Is(err, errChanged) {
			break
		}
		begun = nil
		time.Sleep(pauseBetweenPlans)
	}
	return process, err
}

// looseningDelay is how long a command has run when this process is given what makes many connections fast.
const looseningDelay = 10 * time.Millisecond

// leavingDelay is how long an empty sandbox is left to the end of this process.
const leavingDelay = 10 * time.Millisecond

// startBox has the head build the sandbox and start the command in it. If that fails, the head has ended.
func startBox(ctx context.Context, p *Policy, c *Command, h head, m mechanics) (*Process, error) {
	b := &box{mechanics: m, head: h, policy: p, ended: make(chan shim.Message, 1)}
	b.gateway = gateway.New(ctx, gateway.Options{Rules: p.AllowHosts, Dial: (&gateway.Dialer{Proxy: p.Proxy}).Dial, Swap: p.Swap, Denied: b.denied, Local: b.localNames, Program: b.program()})
	b.keep = context.AfterFunc(ctx, b.kill)
	err := b.instructHead(ctx, c)
	if err == nil {
		// Not before: what the head says can wait, and the head waits for its orders.
		c.watch()
		if err = b.hearStart(); err == nil && ctx.Err() != nil {
			b.kill() // who was killed before may have known of nobody to kill
			err = ctx.Err()
		}
	}
	if err != nil {
		b.abandon()
		b.close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start the sandbox: %w", ctx.Err())
		}
		return nil, err
	}
	b.runs()
	b.ran = true
	if b.shared {
		b.notice("another sandbox of this workspace is running: what this one changes in the home directory is not kept")
	}
	first.Ready()
	time.AfterFunc(looseningDelay, first.Loosen)
	go b.hearEnd()
	if b.look != nil && !p.own {
		b.look.goAhead(b.writeSweep)
	}
	return &Process{tier: b.tier, wait: b.waitCommand, signal: b.signalCommand, denials: b.denials}, nil
}

// instructHead makes the plan and sends it to the head, which gives up without one.
func (b *box) instructHead(ctx context.Context, c *Command) error {
	pl, err := b.plan(ctx, b, c)
	if err != nil {
		return err
	}
	b.mayHave = true
	if err := b.instruct(pl, c); err != nil {
		return fmt.Errorf("send the plan: %w", err)
	}
	if b.tier == Namespaces && b.lock != nil {
		_ = emptyUsedWork(b.policy.HomeState) // if not, the next one does
	}
	return nil
}

// mountPlan makes the plan of a sandbox with namespaces.
func mountPlan(ctx context.Context, b *box, c *Command) (*shim.Plan, error) {
	// Nothing is changed for a sandbox that cannot be had.
	if err := b.up(); err != nil {
		return nil, unavailable(err)
	}
	if n := len(gateway.Rules(b.policy.AllowHosts).Ports()); n > shim.MaxPorts {
		return nil, fault.New(fault.SandboxUnavailable, "the rules for hosts name %d ports: a sandbox with namespaces listens on %d at most", n, shim.MaxPorts).
			Hint("name fewer, or use the weaker tier: --sandbox landlock")
	}
	if state := b.policy.HomeState; state != "" && b.policy.Home != "" {
		var err error
		if b.shared, err = b.takeHome(state); err != nil {
			return nil, fault.New(fault.SandboxUnavailable, "keep the sandbox's home in %s: %w", state, err)
		}
	}
	pl, err := b.planMounts(ctx, c)
	if err != nil {
		return nil, &planError{err}
	}
	return pl, nil
}

// planMounts makes it, and gives the first process each part as soon as that is known, but for the start of the command.
func (b *box) planMounts(ctx context.Context, c *Command) (*shim.Plan, error) {
	if err := b.join(ctx); err != nil {
		return nil, err
	}
	b.sweepKilled()
	owed := b.sweepLeft()
	t, err := newTree(b.policy)
	if err != nil {
		return nil, err
	}
	t.first = b.joined
	t.collectHome()
	b.unmade = t.unmade
	script := b.head.(*firstProcess)
	if t.layers != nil {
		t.layers.Shared = b.shared
		if err := script.writeHome(t.layers, b.policy.Profile == Strict); err != nil {
			return nil, fmt.Errorf("send the plan: %w", err)
		}
	}
	if err := t.collectSystem(); err != nil {
		return nil, err
	}
	if err := script.writeMounts(t.known(), b.policy.Profile == Strict); err != nil {
		return nil, fmt.Errorf("send the plan: %w", err)
	}
	if err := t.collectRest(); err != nil {
		return nil, err
	}
	if err := t.complete(); err != nil {
		return nil, err
	}
	pl := t.plan(c)
	if b.lock != nil {
		if err := clearWay(pl); err != nil {
			return nil, fault.New(fault.SandboxUnavailable, "clear the sandbox's home in %s: %w", pl.Home.State, err)
		}
	}
	if err := script.writeFiles(pl); err != nil {
		return nil, fmt.Errorf("send the plan: %w", err)
	}
	return pl, b.noteSweep(t.sweep, owed)
}

// unavailable says why no namespaces can be had and what would help.
func unavailable(err error) error {
	e := fault.New(fault.SandboxUnavailable, "the sandbox cannot be had here: %w", err)
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return e.Hint("user namespaces are refused here, as in most containers: allow them (docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined; " +
			"on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)").
			Hint("or, in a machine you can afford to lose: --sandbox off")
	case errors.Is(err, syscall.ENOSPC):
		return e.Hint("the limit of user namespaces is reached: raise the sysctl user.max_user_namespaces")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return e.Hint("raise the limit of open files (ulimit -n), or use the weaker tier: --sandbox landlock")
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return e.Hint("the machine, or a limit of it (ulimit -u, the control group's), is short of processes or memory: try again")
	}
	return e.Hint("see what is missing with: sesame doctor").
		Hint("or, in a machine you can afford to lose: --sandbox off")
}

// cannotBuild says why the sandbox could not be built, and what would help.
func (b *box) cannotBuild(m shim.Message) error {
	if m.Changed {
		return fault.New(fault.SandboxUnavailable, "the sandbox cannot be had here: %s: %v (%w)", m.Failed, m.Errno, errChanged).
			Hint("try again when they leave it alone")
	}
	mounts := mountsBelow(b.policy.Home)
	if b.tier != Namespaces || len(mounts) == 0 || !strings.HasPrefix(m.Failed, "files: home ") {
		why := errors.New(m.Failed)
		if m.Errno != 0 {
			why = fmt.Errorf("%s: %w", m.Failed, m.Errno)
		}
		if strings.HasPrefix(m.Failed, "files: ") && strings.Contains(m.Failed, " "+b.policy.Workspace+"/") { // which a sandbox can write
			why = &planError{why}
		}
		return unavailable(why)
	}
	return fault.New(fault.SandboxUnavailable, "the sandbox cannot be had here: the home directory %s has other mounts in it (%s), and the kernel shows what they cover to nobody else",
		b.policy.Home, strings.Join(mounts, ", ")).
		Hint("use --sandbox landlock, or set HOME to a directory without mounts in it")
}

// takeHome prepares the directory that keeps the home, and locks it: one sandbox at a time may write there. If another one has it, it
// is shared.
func (b *box) takeHome(state string) (shared bool, err error) {
	if err := prepareHomeState(state, b.policy.Workspace); err != nil {
		return false, err
	}
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return false, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, f.Close()
	}
	if err != nil {
		return false, errors.Join(err, f.Close())
	}
	b.lock = f
	return false, freshWork(state)
}

func (b *box) notice(s string) {
	if b.policy.Notice != nil {
		b.policy.Notice(s)
	}
}

// hear goes on to what the head says of its command, and does what it asks for until then.
func (b *box) hear() (shim.Message, error) {
	for {
		m, fds, err := b.receive()
		switch {
		case err != nil:
			return m, errors.New("the process that builds the sandbox died")
		case m.Listening:
			if err := b.take(b, fds); err != nil {
				return m, err
			}
		case m.Home:
			if err := b.fillHome(fds); err != nil {
				b.kill()
				return m, err
			}
		case m.Notice != "":
			b.notice(m.Notice)
		case m.Failed+m.NoCommand != "", m.Started, m.Ended:
			return m, nil
		}
	}
}

// hearStart waits until the command runs.
func (b *box) hearStart() error {
	m, err := b.hear()
	switch {
	case err != nil:
		return unavailable(err)
	case m.Failed != "":
		b.mayHave = false
		return b.cannotBuild(m)
	case m.NoCommand != "":
		b.mayHave = false
		return &NoCommandError{Code: m.Code, Why: m.NoCommand, Tier: b.tier}
	}
	return nil
}

// hearEnd waits until it has ended, or until the head has.
func (b *box) hearEnd() {
	defer close(b.ended)
	if m, err := b.hear(); err == nil && m.Ended {
		b.ended <- m
	}
}

// serve begins to answer on the sandbox's sockets: DNS over UDP and TCP, then the ports. Raw sockets hear of all other ports.
func (b *box) serve(fds []int) error {
	streams := 0
	for _, fd := range fds {
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		f := os.NewFile(uintptr(fd), "listener")
		switch {
		case err != nil:
		case kind == unix.SOCK_STREAM:
			var l net.Listener
			if l, err = net.FileListener(f); err == nil {
				serve := b.gateway.Serve
				if streams++; streams == 1 {
					serve = b.gateway.ServeDNSStream
				}
				b.until(l.Close, func() error { return serve(l) })
			}
		default:
			var conn net.PacketConn
			if conn, err = net.FilePacketConn(f); err == nil {
				switch conn := conn.(type) {
				case *net.UDPConn:
					b.until(conn.Close, func() error { return b.gateway.ServeDNS(conn) })
				case *net.IPConn:
					var r *gateway.Refusals
					if r, err = b.gateway.Refusals(conn); err == nil {
						b.refusals = append(b.refusals, r)
						go func() { _ = r.Serve() }()
					}
				}
			}
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("take over a listener: %w", err)
		}
	}
	if streams == 0 {
		return errors.New("the sandbox handed over no listeners")
	}
	return nil
}

// until runs serve in the background and ends it by stop when the gateway closes. Its error
// is the end of the listener; the sandbox then has one way out less.
func (b *box) until(stop, serve func() error) {
	context.AfterFunc(b.gateway.Context(), func() { _ = stop() })
	go func() { _ = serve() }()
}

func (b *box) waitCommand() (Status, error) {
	m, told := <-b.ended
	st := Status{Code: m.Code, Signal: m.Signal}
	if told && m.Alone {
		err := b.drain()
		b.leave()
		// Taking empty namespaces apart, and closing what leads there, takes longer than the rest of the end. A process that ends now has the
		// kernel do that when nobody waits any more.
		time.AfterFunc(leavingDelay, func() {
			b.disconnect()
			_, _ = b.wait()
		})
		return st, err
	}
	defer b.close()
	b.giveUp()
	ended, err := b.wait()
	if !told { // the head was killed, and all with it
		st = ended
	}
	return st, errors.Join(err, b.drain())
}

func (b *box) signalCommand(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v cannot be sent", sig)
	}
	return b.signal(s)
}

func (b *box) close() {
	b.disconnect()
	b.leave()
}

// disconnect ends all that goes to and from the sandbox.
func (b *box) disconnect() {
	b.head.close()
	b.gateway.Close()
}

// leave notes what was refused last, and puts in order what the sandbox has changed.
func (b *box) leave() {
	b.keep()
	for _, r := range b.refusals {
		_ = r.Close()
	}
	done := true
	if b.mayHave {
		done = b.takeAway()
	} else {
		b.forgetSweep()
	}
	if done {
		b.endUnmounted()
	}
	b.sweepLast()
	b.leaveGuard()
	b.leaveHome()
	if b.lock != nil {
		b.lock.Close()
	}
}

// program names the program behind a socket, where a tier has namespaces in which to look for it; the other one tells the gateway by itself.
func (b *box) program() func(network string, from, to netip.AddrPort) string {
	p, ok := b.head.(*firstProcess)
	if !ok {
		return nil
	}
	finder := sync.OnceValue(p.finder)
	return func(network string, from, to netip.AddrPort) string { return finder().Program(network, from, to) }
}

func (b *box) denied(d gateway.Denial) {
	if b.policy.Denied != nil {
		b.policy.Denied(networkDenial(d))
	}
}

func (b *box) denials() []Denial { return networkDenials(b.gateway) }
