//go:build !linux && !darwin

package sandbox

import (
	"context"
	"runtime"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func startTier(context.Context, *Policy, *Command, head) (*Process, error) {
	e := fault.New(fault.SandboxUnavailable, "there is no sandbox on %s", runtime.GOOS)
	if runtime.GOOS == "windows" {
		e = e.Hint("run sesame in WSL2, which has Linux's: https://learn.microsoft.com/windows/wsl/install")
	}
	return nil, e.Hint("or, in a machine you can afford to lose: --sandbox off")
}

// Keep is for systems that have a keeper.
func Keep([]string) (code int, keeper bool) { return 0, false }

// LandlockVersion is the version of this kernel's Landlock: there is none.
func LandlockVersion() int { return 0 }
