package sandbox

import (
	"context"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func startTier(ctx context.Context, p *Policy, c *Command, _ head) (*Process, error) {
	switch p.Tier {
	case "", Auto, Seatbelt:
		return startSeatbelt(ctx, p, c)
	}
	return nil, fault.New(fault.SandboxUnavailable, "the sandbox tier %s is not for macOS", p.Tier).
		Hint("use --sandbox auto or --sandbox seatbelt")
}

// LandlockVersion is the version of this kernel's Landlock: there is none.
func LandlockVersion() int { return 0 }
