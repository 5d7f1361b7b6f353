package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// CheckTierID is the check that others need which start something in the sandbox.
const CheckTierID = "sandbox.tier"

// lastResort is the hint that belongs to every sandbox that cannot be had.
const lastResort = "or, in a machine you can afford to lose: `--sandbox off`"

// CheckTier tells whether the policy can be carried out here, by really starting a
// program under it, and which tier does so. Where none does, it says why and what would
// help. env is the environment inside; program is the path of this executable.
func CheckTier(p *Policy, env []string, program string, needs ...string) check.Check {
	return check.Check{
		ID: CheckTierID, Group: "sandbox", Title: "tier", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			if p.Tier == Off {
				return check.Warned("off: Amp would have all your rights, as --sandbox or sandbox.tier says").
					Hint("leave it out, and the strongest sandbox that works here is taken")
			}
			kernel := readKernel("/", program)
			tier, err := try(ctx, p, env)
			if err == nil && len(Weaknesses(tier, LandlockVersion())) > 0 {
				return kernel.weaker(ctx, p, env)
			}
			if err == nil {
				r := check.Passed("%s (%s)", tier, kernel.basis(p))
				r.Details = kernel.details()
				return r
			}
			r := check.Failed(err)
			// A rule that makes no sense says so itself.
			if fault.CodeOf(err) == fault.SandboxUnavailable {
				r = kernel.explain(ctx, p, env, err)
				r.Details = append(r.Details, kernel.details()...)
			}
			return r
		},
	}
}

// TierHere is the tier that carries the policy out here, found by starting a program that does nothing.
func TierHere(ctx context.Context, p *Policy, env []string) (Tier, error) { return try(ctx, p, env) }

// try starts a program that does nothing under the policy.
func try(ctx context.Context, policy *Policy, env []string) (Tier, error) {
	p := *policy
	// It is to leave no traces and to say nothing.
	p.HomeState, p.GuardState, p.Notice, p.Denied, p.own = "", "", nil, nil, true
	var errs bytes.Buffer
	process, err := Start(ctx, &p, &Command{Args: []string{"true"}, Env: env, Stdin: strings.NewReader(""), Stdout: &errs, Stderr: &errs})
	var none *NoCommandError
	switch {
	case errors.As(err, &none):
		// The sandbox was made; that there is no such program in it is no fault of its.
		return none.Tier, nil
	case err != nil && ctx.Err() != nil:
		return "", fault.New(fault.SandboxUnavailable, "the sandbox was not made in time")
	case err != nil:
		return "", err
	}
	status, err := process.Wait()
	switch {
	case ctx.Err() != nil:
		return "", fault.New(fault.SandboxUnavailable, "a program in the sandbox did not end in time")
	case err != nil:
		return "", err
	case status.Code != 0:
		return "", fault.New(fault.SandboxUnavailable, "a program that does nothing failed in the sandbox: %s",
			strings.TrimSpace(fmt.Sprintf("status %d %s", status.Code, errs.String())))
	}
	return process.Tier(), nil
}
