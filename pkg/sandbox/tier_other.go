//go:build !linux

package sandbox

import (
	"context"
	"runtime"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func startTier(context.Context, *Policy, *Command) (*Process, error) {
	return nil, fault.New(fault.SandboxUnavailable, "no sandbox tier for %s yet", runtime.GOOS).
		Hint("use Linux (on Windows: WSL2), or --sandbox off inside a machine you can afford to lose")
}

// LandlockVersion is the version of this kernel's Landlock: there is none.
func LandlockVersion() int { return 0 }
