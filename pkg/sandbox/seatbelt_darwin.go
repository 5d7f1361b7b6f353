package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// sandboxExec is macOS's own program, not what a PATH may have in its place.
const sandboxExec = "/usr/bin/sandbox-exec"

// maxProfile is what is left for the profile of macOS's bound for arguments and environment together, 1 MiB.
const maxProfile = 512 << 10

// environmentConcealed wipes the environment when it is first asked.
var environmentConcealed = sync.OnceValue(concealEnvironment)

// keeperGrace is how long the keeper may take to end the sandbox when the parent wants it to.
const keeperGrace = 10 * time.Second

// seatbelt is a sandbox of the tier seatbelt, seen from the host.
type seatbelt struct {
	ownPlaces
	gateway *gateway.Gateway
	cmd     *exec.Cmd
	plan    *os.File // its end is the parent's
	reports *os.File
	decoder *json.Decoder
}

func startSeatbelt(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if info, err := os.Stat(sandboxExec); err != nil || !info.Mode().IsRegular() {
		return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier seatbelt cannot be had here: there is no %s", sandboxExec).
			Hint("%s", lastResort)
	}
	if !environmentConcealed() && os.Getenv("AMP_API_KEY") != "" {
		return nil, fault.New(fault.SandboxUnavailable, "the key in AMP_API_KEY could be read from inside the sandbox").
			Hint("store it with sesame login, and unset AMP_API_KEY")
	}
	// Short, because addresses of unix sockets are bounded by 104 bytes.
	own, err := newOwnPlaces(p, "/tmp")
	if err != nil {
		return nil, fault.New(fault.SandboxUnavailable, "make the sandbox's own directory: %w", err)
	}
	s := &seatbelt{ownPlaces: own}
	if err := s.start(ctx, c); err != nil {
		s.close()
		return nil, err
	}
	return &Process{tier: Seatbelt, wait: s.wait, signal: s.signal, denials: s.denials, detached: true}, nil
}

func (s *seatbelt) start(ctx context.Context, c *Command) error {
	unavailable := func(what string, err error) error {
		return fault.New(fault.SandboxUnavailable, "%s: %w", what, err).Hint("%s", lastResort)
	}
	p := s.policy
	s.gateway = gateway.New(ctx, gateway.Options{Rules: p.AllowHosts, Dial: (&gateway.Dialer{Proxy: p.Proxy}).Dial, Swap: p.Swap, Denied: s.denied})
	proxy, err := s.gateway.Proxy()
	if err != nil {
		return unavailable("listen for the sandbox's connections", err)
	}
	context.AfterFunc(s.gateway.Context(), func() { _ = proxy.Close() })
	go func() { _ = proxy.Serve() }() // its error is its end: nothing gets out any more

	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return unavailable("find this program", err)
	}
	b := &profile{policy: p, places: seatbeltPlaces{
		tmp: s.tmp(), files: s.files(), program: program, proxy: proxy.Port(), homes: []string{"/Users"}, terminal: c.Terminal,
	}}
	s.reads, s.shows = b.reads, b.shows
	if err := s.takeHome(); err != nil {
		return unavailable("make the sandbox's home", err)
	}
	b.places.home = s.home
	if err := s.give(); err != nil {
		return unavailable("make the sandbox's files", err)
	}
	canary := filepath.Join(s.run, "canary")
	if err := os.WriteFile(canary, nil, 0o600); err != nil {
		return unavailable("make the sandbox's canary", err)
	}
	text, err := seatbeltProfile(p, b.places)
	if err != nil {
		return err
	}
	if len(text) > maxProfile {
		return fault.New(fault.Usage, "the sandbox's profile is too long: name fewer paths")
	}
	plan := keeperPlan{
		Parent: os.Getpid(), Canary: canary, Args: replaced(c.Args, s.insidePaths()), Dir: c.Dir,
		Env: setVariables(s.environment(c.Env), proxyVariables(p, proxy.URL())...),
	}
	if plan.Dir == "" {
		plan.Dir = p.Workspace
	}
	if err := s.spawn(ctx, c, text, program, plan); err != nil {
		return unavailable("start the sandbox", err)
	}
	var r keeperReport
	if err := s.decoder.Decode(&r); err != nil {
		_ = s.cmd.Wait() // why is in what it wrote to stderr: sandbox-exec refused the profile
		return unavailable("the sandbox did not start", errors.New("macOS did not take its profile, or ended it"))
	}
	switch {
	case r.Failed != "":
		_ = s.cmd.Wait()
		return unavailable("the sandbox cannot be had here", errors.New(r.Failed))
	case r.NoCommand != "":
		_ = s.cmd.Wait()
		return &NoCommandError{Code: r.Code, Why: r.NoCommand, Tier: Seatbelt}
	}
	s.tell(c)
	return nil
}

// tell says what a user should know.
func (s *seatbelt) tell(c *Command) {
	if s.policy.Notice == nil {
		return
	}
	s.policy.Notice("sandbox tier seatbelt: not yet run on macOS by us, and weaker than Linux's in ways which `sesame sandbox --explain` lists")
	if isNodeScript(c.Args[0]) {
		s.policy.Notice(c.Args[0] + " is a script for Node, and Node before 22.21 and 24 does not use the proxy that is the only way out: if the service cannot be reached, use a native build of Amp (July 2026 or newer)")
	}
}

func (s *seatbelt) spawn(ctx context.Context, c *Command, text, program string, plan keeperPlan) error {
	in, to, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	s.plan = to
	from, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	s.reports, s.decoder = from, json.NewDecoder(from)
	cmd := exec.CommandContext(ctx, sandboxExec, "-p", text, program, keeperArg)
	cmd.Env = []string{} // the command's is in the plan
	cmd.Dir = plan.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{in, out}
	// A session of its own: what is typed into a terminal by the sandbox would be typed into the user's shell.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return to.Close() }
	cmd.WaitDelay = keeperGrace
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	if err := json.NewEncoder(to).Encode(plan); err != nil && !errors.Is(err, syscall.EPIPE) {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return nil
}

func (s *seatbelt) signal(sig os.Signal) error {
	if sig == os.Kill {
		return s.plan.Close() // the keeper ends all; if it were killed, it could not
	}
	return s.cmd.Process.Signal(sig)
}

func (s *seatbelt) wait() (Status, error) {
	defer s.close()
	waitErr := s.cmd.Wait()
	// What is in the command's session and did not detach itself ends with it, also if the keeper was killed.
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EPERM) {
		return Status{Code: -1}, fmt.Errorf("end the sandbox: %w", err)
	}
	var r keeperReport
	if err := s.decoder.Decode(&r); err == nil && r.Ended {
		if _, ok := errors.AsType[*exec.ExitError](waitErr); ok || errors.Is(waitErr, exec.ErrWaitDelay) {
			waitErr = nil
		}
		return Status{Code: r.Code, Signal: syscall.Signal(r.Signal)}, waitErr
	}
	return status(waitErr)
}

// close ends what the host's side has for the sandbox.
func (s *seatbelt) close() {
	for _, f := range []*os.File{s.plan, s.reports} {
		if f != nil {
			_ = f.Close() // it may be closed already
		}
	}
	if s.gateway != nil {
		s.gateway.Close()
	}
	s.ownPlaces.close()
}

func (s *seatbelt) denied(d gateway.Denial) {
	if s.policy.Denied != nil {
		s.policy.Denied(networkDenial(d))
	}
}

func (s *seatbelt) denials() []Denial { return networkDenials(s.gateway) }
