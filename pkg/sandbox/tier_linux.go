package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

func startTier(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	switch p.Tier {
	case "", Auto:
		return startStrongest(ctx, p, c)
	case Namespaces:
		return startNamespaces(ctx, p, c)
	case Landlock:
		return startLandlock(ctx, p, c)
	}
	return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier %s is not for this system", p.Tier).
		Hint("use --sandbox auto, --sandbox namespaces or --sandbox landlock")
}

// startStrongest starts the command in the first tier that works here.
func startStrongest(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	process, err := startNamespaces(ctx, p, c)
	if fault.CodeOf(err) != fault.SandboxUnavailable || ctx.Err() != nil {
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

// mechanics are what the tiers of Linux differ in.
type mechanics struct {
	tier Tier
	shim string               // argv[0] of the shim's process
	attr *syscall.SysProcAttr // and how it starts
	plan func(b *box, c *Command) (*shim.Plan, error)
	take func(b *box, fds []int) error // the descriptors that the shim hands over
	// names of the sandbox itself, where it reads no hosts file
	localNames []string
}

// box is a sandbox of a tier of Linux, seen from the host.
type box struct {
	mechanics
	policy  *Policy
	gateway *gateway.Gateway
	cmd     *exec.Cmd
	socket  *os.File
	absent  []string // guarded paths to sweep at the end
	lock    *os.File // of Policy.HomeState, or nil
	started chan error
	ended   chan shim.Message // closed without a value when the shim said nothing
	done    chan struct{}     // closed when the sandbox is gone
	closed  bool
	mu      sync.Mutex // of closed and of sending, which must not meet a number that is another file's by now
}

func startNamespaces(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	return startBox(ctx, p, c, mechanics{
		tier: Namespaces, shim: shim.Name,
		attr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
			// One id of each kind, the user's own: files look inside as they do outside.
			UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
			// The shim has to build the sandbox after an exec, which takes capabilities from an ordinary uid.
			AmbientCaps: setupCapabilities,
			Pdeathsig:   syscall.SIGKILL,
		},
		plan: (*box).mountPlan,
		take: (*box).serve,
	})
}

func startBox(ctx context.Context, p *Policy, c *Command, m mechanics) (*Process, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	b := &box{mechanics: m, policy: p, started: make(chan error, 1), ended: make(chan shim.Message, 1), done: make(chan struct{})}
	// The shim starts while the plan is made.
	plan, err := b.spawn(ctx, c)
	if err != nil {
		b.close()
		return nil, unavailable(err)
	}
	err = b.instruct(plan, c)
	if err == nil {
		err = <-b.started
	}
	if err != nil {
		_ = b.cmd.Wait() // it failed; why is known already
		for range b.ended {
			// Until nobody reads the socket any more.
		}
		b.close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start the sandbox: %w", ctx.Err())
		}
		return nil, err
	}
	return &Process{tier: b.tier, wait: b.wait, signal: b.signal, denials: b.denials}, nil
}

// instruct makes the plan and sends it to the shim, which gives up without one.
func (b *box) instruct(to *os.File, c *Command) error {
	defer to.Close()
	pl, err := b.plan(b, c)
	if err != nil {
		return err
	}
	// A shim that died cannot be told; it is known by the end of its socket.
	if _, err := to.Write(pl.Encode()); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("send the plan: %w", err)
	}
	return nil
}

// mountPlan is the plan of a sandbox with namespaces.
func (b *box) mountPlan(c *Command) (*shim.Plan, error) {
	pl, absent, err := makePlan(b.policy, c)
	if err != nil {
		return nil, err
	}
	if pl.Home != nil && pl.Home.State != "" {
		if err := b.takeHome(pl.Home); err != nil {
			return nil, fault.New(fault.SandboxUnavailable, "keep the sandbox's home in %s: %w", pl.Home.State, err)
		}
	}
	if b.sweepLeft() {
		shared := pl.Home.Shared
		if pl, absent, err = makePlan(b.policy, c); err != nil {
			return nil, err
		}
		pl.Home.Shared = shared
	}
	return pl, b.noteAbsent(absent)
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
	}
	return e.Hint("see what is missing with: sesame doctor").
		Hint("or, in a machine you can afford to lose: --sandbox off")
}

// cannotBuild says why the sandbox could not be built, and what would help.
func (b *box) cannotBuild(why string) error {
	mounts := mountsBelow(b.policy.Home)
	if b.tier != Namespaces || len(mounts) == 0 || !strings.HasPrefix(why, "files: home ") {
		return unavailable(errors.New(why))
	}
	return fault.New(fault.SandboxUnavailable, "the sandbox cannot be had here: the home directory %s has other mounts in it (%s), and the kernel shows what they cover to nobody else",
		b.policy.Home, strings.Join(mounts, ", ")).
		Hint("use --sandbox landlock, or set HOME to a directory without mounts in it")
}

// takeHome prepares the directory that keeps the home, and locks it: one sandbox at a time may write there.
func (b *box) takeHome(h *shim.Layers) error {
	if err := prepareHomeState(h.State, b.policy.Workspace); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(h.State, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		h.Shared = true
		b.notice("another sandbox of this workspace is running: what this one changes in the home directory is not kept")
		return f.Close()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	b.lock = f
	return forgetVolatile(h.State)
}

func (b *box) notice(s string) {
	if b.policy.Notice != nil {
		b.policy.Notice(s)
	}
}

// spawn starts the shim in new namespaces and begins to listen to it. The plan is written to what it returns.
func (b *box) spawn(ctx context.Context, c *Command) (*os.File, error) {
	plan, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer plan.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		to.Close()
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	b.socket = os.NewFile(uintptr(pair[0]), "shim")
	theirs := os.NewFile(uintptr(pair[1]), "parent")
	defer theirs.Close()

	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{b.shim}
	// The command's environment is in the plan; this is the shim's own. It does one thing after
	// the other and lives briefly or sleeps: more threads, and collecting garbage, would only cost.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = throughPipe(c.Stdin), throughPipeOut(c.Stdout), throughPipeOut(c.Stderr)
	cmd.WaitDelay = copyDelay
	cmd.ExtraFiles = []*os.File{theirs, plan}
	cmd.SysProcAttr = b.attr
	if b.tier == Landlock {
		// A shim that is killed could not end what it started: it is asked to.
		cmd.Cancel = func() error { return errors.Join(os.ErrProcessDone, b.signal(syscall.SIGKILL)) } // which Wait takes for no error
	}
	b.cmd = cmd
	b.gateway = gateway.New(ctx, gateway.Options{Rules: b.policy.AllowHosts, Dial: (&gateway.Dialer{Proxy: b.policy.Proxy}).Dial, Swap: b.policy.Swap, Denied: b.denied, Local: b.localNames})
	spawned := make(chan error)
	go func() {
		// The kernel sends the death signal when the *thread* that started the shim ends.
		runtime.LockOSThread()
		err := cmd.Start()
		spawned <- err
		if err == nil {
			b.listen()
			<-b.done
		}
	}()
	if err := <-spawned; err != nil {
		to.Close()
		return nil, err
	}
	return to, nil
}

// setupCapabilities are what building the sandbox takes, in the new user namespace only.
var setupCapabilities = []uintptr{
	unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_SYS_CHROOT,
	unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_CHOWN, unix.CAP_MKNOD, unix.CAP_SETUID, unix.CAP_SETGID,
}

// copyDelay is how long after the end of the command its streams may still be copied.
const copyDelay = 10 * time.Second

// throughPipe keeps a file on the host from being handed into the sandbox: by /proc/self/fd the command
// could open it again, for writing, past all mounts. Terminals, pipes and sockets go in as they are.
func throughPipe(r io.Reader) io.Reader {
	if f, ok := r.(*os.File); ok && reopenable(f) {
		return struct{ io.Reader }{f}
	}
	return r
}

func throughPipeOut(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && reopenable(f) {
		return struct{ io.Writer }{f}
	}
	return w
}

func reopenable(f *os.File) bool {
	info, err := f.Stat()
	return err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeCharDevice) == 0
}

// listen follows what the shim says until it ends.
func (b *box) listen() {
	defer close(b.ended)
	fail := func(err error) {
		select {
		case b.started <- err:
		default: // it had started: Wait tells how it ended
		}
	}
	for {
		m, fds, err := shim.Receive(int(b.socket.Fd()))
		switch {
		case err != nil:
			fail(unavailable(errors.New("the process that builds the sandbox died")))
			return
		case m.Listening:
			if err := b.take(b, fds); err != nil {
				fail(unavailable(err))
				return
			}
		case m.Notice != "":
			b.notice(m.Notice)
		case m.Failed != "":
			fail(b.cannotBuild(m.Failed))
			return
		case m.NoCommand != "":
			fail(&NoCommandError{Code: m.Code, Why: m.NoCommand, tier: b.tier})
			return
		case m.Started:
			b.started <- nil
		case m.Ended:
			b.ended <- m
			return
		}
	}
}

// serve begins to answer on the sandbox's listeners: DNS over UDP and TCP, then the ports.
func (b *box) serve(fds []int) error {
	if len(fds) < 2 {
		return errors.New("the sandbox handed over no listeners")
	}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "listener")
		var err error
		if i == 0 {
			var conn net.PacketConn
			if conn, err = net.FilePacketConn(f); err == nil {
				b.until(conn.Close, func() error { return b.gateway.ServeDNS(conn.(*net.UDPConn)) })
			}
		} else {
			var l net.Listener
			if l, err = net.FileListener(f); err == nil {
				serve := b.gateway.Serve
				if i == 1 {
					serve = b.gateway.ServeDNSStream
				}
				b.until(l.Close, func() error { return serve(l) })
			}
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("take over a listener: %w", err)
		}
	}
	return nil
}

// until runs serve in the background and ends it by stop when the gateway closes. Its error
// is the end of the listener; the sandbox then has one way out less.
func (b *box) until(stop, serve func() error) {
	context.AfterFunc(b.gateway.Context(), func() { _ = stop() })
	go func() { _ = serve() }()
}

func (b *box) wait() (Status, error) {
	defer b.close()
	if !b.copies() {
		// Taking the empty namespaces apart takes the kernel longer than the rest of the end.
		if m, ok := <-b.ended; ok && m.Alone {
			go func() { _ = b.cmd.Wait() }()
			return Status{Code: m.Code, Signal: m.Signal}, nil
		} else if ok {
			b.ended <- m
		}
	}
	waitErr := b.cmd.Wait()
	if m, ok := <-b.ended; ok {
		return Status{Code: m.Code, Signal: m.Signal}, copyError(waitErr)
	}
	return status(waitErr) // the shim was killed, and all with it
}

// copies tells whether a stream of the command goes through a pipe, which Wait empties.
func (b *box) copies() bool {
	for _, stream := range []any{b.cmd.Stdin, b.cmd.Stdout, b.cmd.Stderr} {
		if _, file := stream.(*os.File); stream != nil && !file {
			return true
		}
	}
	return false
}

// copyError is what is left of an error of exec.Cmd.Wait when the exit status is known otherwise.
func copyError(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

func (b *box) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	close(b.done)
	if b.gateway != nil {
		b.gateway.Close()
	}
	if b.socket != nil {
		b.socket.Close()
	}
	b.takeAway()
	if b.lock != nil {
		b.lock.Close()
	}
}

func (b *box) signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v cannot be sent", sig)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return os.ErrProcessDone
	}
	return shim.Send(int(b.socket.Fd()), shim.Message{Signal: s}, nil)
}

func (b *box) denied(d gateway.Denial) {
	if b.policy.Denied != nil {
		b.policy.Denied(networkDenial(d))
	}
}

func (b *box) denials() []Denial { return networkDenials(b.gateway) }
