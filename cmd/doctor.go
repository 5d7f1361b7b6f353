package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type doctorOptions struct {
	app  *app
	cmd  *cobra.Command
	json bool
}

func newDoctorCmd(a *app, runF func(context.Context, *doctorOptions) error) *cobra.Command {
	opts := &doctorOptions{app: a}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything and say what to do",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			if runF != nil {
				return runF(cmd.Context(), opts)
			}
			return doctorRun(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.json, "json", false, "print the checks as JSON, keyed by their id")
	binaryFlags(cmd)
	policyFlags(cmd)
	return cmd
}

func doctorRun(context.Context, *doctorOptions) error { return errNotYet }
