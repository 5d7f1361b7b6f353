// Package amp drives an Amp build that it knows nothing about beforehand: it
// probes what the build can do, translates modes, starts turns through a
// launcher, decodes what Amp says and tells honestly how a turn ended.
package amp

import (
	"context"

	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// Launcher starts Amp, in practice inside a sandbox. When ctx ends, everything
// that the command started is killed at once.
type Launcher interface {
	Start(ctx context.Context, c *sandbox.Command) (*sandbox.Process, error)
}

// LauncherFunc is a function as a Launcher.
type LauncherFunc func(ctx context.Context, c *sandbox.Command) (*sandbox.Process, error)

// Start calls f.
func (f LauncherFunc) Start(ctx context.Context, c *sandbox.Command) (*sandbox.Process, error) {
	return f(ctx, c)
}

// InPolicy is the Launcher that starts Amp under the policy.
func InPolicy(p *sandbox.Policy) Launcher {
	return LauncherFunc(func(ctx context.Context, c *sandbox.Command) (*sandbox.Process, error) {
		return sandbox.Start(ctx, p, c)
	})
}
