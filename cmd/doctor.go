package cmd

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// How long the doctor takes at most, and how often it looks again with --watch.
const (
	eachCheck  = 5 * time.Second
	allChecks  = 15 * time.Second
	watchPause = 5 * time.Second
)

type doctorOptions struct {
	app     *app
	cmd     *cobra.Command
	json    bool
	only    []string
	offline bool
	probe   bool
	watch   bool
	fix     bool

	// executable is the program that asks from inside the sandbox: this one.
	executable func() (string, error)
	limits     check.Limits
	resolver   *net.Resolver  // nil: the system's
	rootCAs    *x509.CertPool // nil: the system's
	pause      time.Duration

	verbose bool // by the configuration, once it was read
}

func newDoctorCmd(a *app, runF func(context.Context, *doctorOptions) error) *cobra.Command {
	opts := &doctorOptions{app: a, executable: os.Executable, limits: check.Limits{Each: eachCheck, All: allChecks}, pause: watchPause}
	if runF == nil {
		runF = doctorRun
	}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything and say what to do",
		Long: "Check what a turn needs: the environment, the key, each step of the way to the service from this\n" +
			"machine and from inside the sandbox, Amp and its modes, the sandbox itself by attacking it, and\n" +
			"the sessions. For what is not as it should be it says what to do. It changes nothing without\n" +
			"--fix. The exit code is 1 where a check failed, 4 where only the key did.",
		Example: "  sesame doctor\n  sesame doctor --offline\n  sesame doctor --only key --json\n  sesame doctor --fix\n  sesame doctor --probe",
		Args:    noArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			for _, pair := range [][]string{{"watch", "json"}, {"watch", "fix"}, {"watch", "probe"}, {"offline", "fix"}, {"offline", "probe"}} {
				if err := onlyOneOf(cmd, pair...); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.json, "json", false, "print the checks as JSON, keyed by their id")
	repeatable(f, &opts.only, "only", "run only the check `ID`, or the group, and what it needs (repeatable)")
	f.BoolVar(&opts.offline, "offline", false, "ask no network, and be quick")
	f.BoolVar(&opts.probe, "probe", false, "also ask each mode for one short real turn, which may cost")
	f.BoolVar(&opts.watch, "watch", false, "look again every few seconds and show what changed")
	f.BoolVar(&opts.fix, "fix", false, "do what is safe to do about it, and say what was done")
	binaryFlags(cmd)
	policyFlags(cmd)
	cmd.AddCommand(newRouteCmd(a), newReachCmd(a), newAttackCmd(a))
	return cmd
}

// newRouteCmd is what the doctor starts inside the sandbox to go the way to the service.
func newRouteCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "route URL [THREAD]",
		Short:  "Go the way to the service",
		Hidden: true,
		Args:   cobra.MatchAll(atLeastOne("a URL"), atMost(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return amp.RouteInside(cmd.Context(), args[0], append(args, "")[1], a.io.Out)
		},
	}
}

// newReachCmd is what the doctor starts inside the sandbox to reach a host that it may or may not.
func newReachCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "reach URL [ADDRESS...]",
		Short:  "Try to get an answer of a host",
		Hidden: true,
		Args:   atLeastOne("a URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return sandbox.Reach(cmd.Context(), args[0], args[1:], a.io.Out)
		},
	}
}

// newAttackCmd is what the doctor starts inside the sandbox to attack it.
func newAttackCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "attack",
		Short:  "Try what the sandbox must refuse",
		Hidden: true,
		Args:   noArgs,
		RunE:   func(*cobra.Command, []string) error { return sandbox.Attack(a.io.In, a.io.Out) },
	}
}

func doctorRun(ctx context.Context, o *doctorOptions) error {
	if o.probe {
		o.app.warn("--probe asks each mode for one short real turn: that may cost")
	}
	outcomes, took, err := o.examine(ctx)
	if err != nil {
		return err
	}
	var done []string
	if o.fix {
		if done = o.mend(ctx, outcomes); len(done) > 0 {
			if outcomes, took, err = o.examine(ctx); err != nil {
				return err
			}
		}
	}
	if err := o.show(outcomes, took, done); err != nil {
		return err
	}
	if o.watch {
		return o.watchOver(ctx, outcomes)
	}
	return doctorStatus(outcomes)
}

// examine runs the checks that are wanted.
func (o *doctorOptions) examine(ctx context.Context) ([]check.Outcome, time.Duration, error) {
	begun := time.Now()
	patient, cleanUp := o.patient()
	defer cleanUp()
	o.verbose = patient.cfg.Verbose
	checks := patient.checks()
	if o.probe {
		checks = append(checks, patient.turnChecks()...)
	}
	if len(o.only) > 0 {
		all := checks
		var unknown []string
		if checks, unknown = check.Select(all, o.only); len(unknown) > 0 {
			return nil, 0, unknownCheck(unknown[0], all)
		}
	}
	outcomes := check.Run(ctx, checks, o.limits)
	return lead(outcomes), time.Since(begun), ctx.Err()
}

// lead puts a last turn that failed before all else.
func lead(outcomes []check.Outcome) []check.Outcome {
	for i, o := range outcomes {
		if o.ID == session.CheckLastID && o.Status == check.Warn {
			rest := append(outcomes[:i:i], outcomes[i+1:]...)
			o.Remedy = append(likelyCause(o, rest), o.Remedy...)
			return append([]check.Outcome{o}, rest...)
		}
	}
	return outcomes
}

// likelyCause of a last turn that does not tell its own is what fails now.
func likelyCause(last check.Outcome, others []check.Outcome) []string {
	if slices.ContainsFunc(last.Remedy, func(line string) bool { return strings.HasPrefix(line, session.LikelyCause) }) {
		return nil
	}
	for _, o := range others {
		if o.Status == check.Fail {
			return []string{session.LikelyCause + "see " + o.ID + " below, which fails now"}
		}
	}
	return nil
}

// mend carries out what is safe, and says what became of it.
func (o *doctorOptions) mend(ctx context.Context, outcomes []check.Outcome) []string {
	var done []string
	for _, outcome := range outcomes {
		fix := outcome.Fix
		if fix == nil || outcome.Status != check.Fail && outcome.Status != check.Warn {
			continue
		}
		line := fmt.Sprintf("%s: %s", outcome.ID, fix.Does)
		if err := fix.Do(ctx); err != nil {
			line = fmt.Sprintf("%s: not mended: %v", outcome.ID, err)
		}
		done = append(done, line)
	}
	return done
}

func (o *doctorOptions) show(outcomes []check.Outcome, took time.Duration, done []string) error {
	screen := doctorScreen{
		outcomes: outcomes,
		took:     took,
		done:     done,
		verbose:  o.verbose,
		quiet:    o.app.quiet,
		style:    o.app.screenStyle(),
	}
	if o.json {
		return screen.printJSON(o.app)
	}
	return screen.print(o.app)
}

// watchOver looks again until it is stopped, and shows what changed.
func (o *doctorOptions) watchOver(ctx context.Context, before []check.Outcome) error {
	tick := time.NewTicker(o.pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, took, err := o.examine(ctx)
		if err != nil {
			return err
		}
		if changes := changed(before, now); len(changes) > 0 {
			if _, err := fmt.Fprintf(o.app.io.Out, "\n%s\n", o.app.now().Format(time.TimeOnly)); err != nil {
				return err
			}
			if err := o.show(changes, took, nil); err != nil {
				return err
			}
			o.app.io.Flush()
		}
		before = now
	}
}

// changed are the outcomes that were not so before.
func changed(before, now []check.Outcome) []check.Outcome {
	was := map[string]check.Outcome{}
	for _, o := range before {
		was[o.ID] = o
	}
	var changes []check.Outcome
	for _, o := range now {
		if b, ok := was[o.ID]; !ok || b.Status != o.Status || o.Status != check.OK && o.ID != session.CheckLastID && b.Summary != o.Summary {
			changes = append(changes, o)
		}
	}
	return changes
}

// doctorStatus is how the doctor exits.
func doctorStatus(outcomes []check.Outcome) error {
	if check.Worst(outcomes) != check.Fail {
		return nil
	}
	for _, o := range outcomes {
		// Whatever keeps a key from being found, the key is what is missing.
		ofKey := o.ID == config.CheckKeyID || o.Code == fault.KeyRejected
		if o.Status == check.Fail && !ofKey {
			return exitStatus(exitOf(fault.Internal))
		}
	}
	return exitStatus(exitOf(fault.KeyMissing))
}

func unknownCheck(id string, checks []check.Check) error {
	var known, groups []string
	for _, c := range checks {
		known = append(known, c.ID)
		if group, _, _ := strings.Cut(c.ID, "."); !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	known = append(known, groups...)
	err := fault.New(fault.Usage, "--only %s: no such check", id)
	if near := config.Nearest(id, known); near != "" {
		err = err.Hint("did you mean %s?", near)
	}
	return err.Hint("there are the groups %s; `sesame doctor --offline --json` has the ids of the checks in them", strings.Join(groups, ", "))
}
