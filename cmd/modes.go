package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type modesOptions struct {
	app  *app
	cmd  *cobra.Command
	json bool
}

func newModesCmd(a *app, runF func(context.Context, *modesOptions) error) *cobra.Command {
	opts := &modesOptions{app: a}
	if runF == nil {
		runF = modesRun
	}
	cmd := &cobra.Command{
		Use:   "modes",
		Short: "List the modes and what they become on the installed Amp",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	binaryFlags(cmd)
	return cmd
}

func modesRun(context.Context, *modesOptions) error { return errNotYet }
