package cmd

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// How long the doctor takes at most.
const (
	eachCheck = 5 * time.Second
	allChecks = 15 * time.Second
)

type doctorOptions struct {
	app  *app
	cmd  *cobra.Command
	json bool
	only []string

	// executable is the program that asks from inside the sandbox: this one.
	executable func() (string, error)
	limits     check.Limits
}

func newDoctorCmd(a *app, runF func(context.Context, *doctorOptions) error) *cobra.Command {
	opts := &doctorOptions{app: a, executable: os.Executable, limits: check.Limits{Each: eachCheck, All: allChecks}}
	if runF == nil {
		runF = doctorRun
	}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything and say what to do",
		Long: "Check what a turn needs: the configuration, the key, the service from this machine and from\n" +
			"inside the sandbox, Amp, and the sandbox itself. For what is not as it should be it says what\n" +
			"to do. It changes nothing. The exit code is 1 where a check failed, 4 where only the key did.",
		Example: "  sesame doctor\n  sesame doctor --verbose\n  sesame doctor --only key --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.json, "json", false, "print the checks as JSON, keyed by their id")
	cmd.Flags().StringArrayVar(&opts.only, "only", nil, "run only the check `ID`, or the group, and what it needs (repeatable)")
	binaryFlags(cmd)
	policyFlags(cmd)
	cmd.AddCommand(newProbeCmd(a))
	return cmd
}

// newProbeCmd is what the doctor starts inside the sandbox.
func newProbeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "probe URL",
		Short:  "Ask the service for a sign of life",
		Hidden: true,
		Args:   exactlyOne("a URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return amp.ReachInside(cmd.Context(), args[0], a.io.Out)
		},
	}
}

func doctorRun(ctx context.Context, o *doctorOptions) error {
	begun := time.Now()
	patient, cleanUp := o.patient()
	defer cleanUp()
	checks := patient.checks()
	if len(o.only) > 0 {
		var unknown []string
		if checks, unknown = check.Select(checks, o.only); len(unknown) > 0 {
			return unknownCheck(unknown[0], patient.checks())
		}
	}
	outcomes := check.Run(ctx, checks, o.limits)
	if err := ctx.Err(); err != nil {
		return err
	}
	screen := doctorScreen{
		outcomes: outcomes,
		took:     time.Since(begun),
		verbose:  patient.cfg.Verbose,
		quiet:    patient.cfg.Quiet,
		style:    o.app.screenStyle(),
	}
	var err error
	if o.json {
		err = screen.printJSON(o.app)
	} else {
		err = screen.print(o.app)
	}
	if err != nil {
		return err
	}
	return doctorStatus(outcomes)
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
	var known []string
	for _, c := range checks {
		known = append(known, c.ID)
	}
	err := fault.New(fault.Usage, "--only %s: no such check", id)
	if near := config.Nearest(id, known); near != "" {
		err = err.Hint("did you mean %s?", near)
	}
	return err.Hint("there are %s", strings.Join(known, ", "))
}
