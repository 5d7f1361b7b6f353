package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// Status is how a command ended.
type Status struct {
	Code   int            // exit code; 128+n when signal n ended it
	Signal syscall.Signal // the signal that ended it, or 0
}

// Process is a command running under a policy.
type Process struct {
	tier    Tier
	wait    func() (Status, error)
	signal  func(os.Signal) error
	denials func() []Denial
	// detached commands have another session than the terminal's: ctrl-c does not reach them by itself.
	detached bool
}

// Detached tells whether the terminal's own signals have to be passed on.
func (p *Process) Detached() bool { return p.detached }

// Start runs the command under the policy. When ctx ends, everything that the
// command started is killed at once; for a gentle end use Signal first.
func Start(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	return (&Beginning{Command: c}).Start(ctx, p)
}

// Beginning is a sandbox that was begun before its policy was known. It takes about as long to make the namespaces
// as to find out what to do in them, and the one does not depend on the other.
type Beginning struct {
	Command *Command
	head    head // nil where nothing was begun
}

// Begin begins a sandbox for a command that may be set until Start. What is begun must be started or closed.
func Begin(c *Command) *Beginning {
	return &Beginning{Command: c, head: begin()}
}

// Start is like the function Start.
func (b *Beginning) Start(ctx context.Context, p *Policy) (*Process, error) {
	if b.head == nil || p.Tier == Off {
		b.Command.watch()
	}
	if p.Tier == Off {
		b.Close()
		forgo()
		return startOff(ctx, p, b.Command)
	}
	begun := b.head
	b.head = nil // it is startTier's now
	return startTier(ctx, p, b.Command, begun)
}

// Close ends what was begun and not started.
func (b *Beginning) Close() {
	if b.head != nil {
		b.head.abandon()
		b.head.close()
		b.head = nil
	}
}

// Tier is the tier that holds the process.
func (p *Process) Tier() Tier { return p.tier }

// Wait waits for the command to end and for its output to be copied. The error
// is about sesame's side; a command that failed has a Status and no error.
func (p *Process) Wait() (Status, error) { return p.wait() }

// Signal sends a signal to the command, not to what it started.
func (p *Process) Signal(sig os.Signal) error { return p.signal(sig) }

// Denials is what was refused so far, in the order of first refusal.
func (p *Process) Denials() []Denial { return p.denials() }

// status turns what exec.Cmd.Wait says into a Status.
func status(err error) (Status, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Status{}, nil
	case !errors.As(err, &exit):
		return Status{Code: -1}, fmt.Errorf("wait for the command: %w", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok {
		return statusOf(ws), nil
	}
	return Status{Code: exit.ExitCode()}, nil
}

func statusOf(ws syscall.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}
	}
	return Status{Code: ws.ExitStatus()}
}

// NoCommandError says that the sandbox works, or is off, but the command cannot be executed in it.
type NoCommandError struct {
	Code int // what a shell would exit with: 127 not found, 126 not executable
	Why  string
	Tier Tier
}

func (e *NoCommandError) Error() string { return e.Why }

func networkDenial(d gateway.Denial) Denial {
	return Denial{Kind: "network", Target: d.Target, Program: d.Program, Reason: d.Reason, Count: d.Count}
}

func networkDenials(g *gateway.Gateway) []Denial {
	var out []Denial
	for _, d := range g.Denials() {
		out = append(out, networkDenial(d))
	}
	return out
}
