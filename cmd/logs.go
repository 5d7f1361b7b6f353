package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type logsOptions struct {
	app     *app
	cmd     *cobra.Command
	session string // "" for the newest of the workspace
	events  bool
	follow  bool
}

func newLogsCmd(a *app, runF func(context.Context, *logsOptions) error) *cobra.Command {
	opts := &logsOptions{app: a}
	if runF == nil {
		runF = logsRun
	}
	cmd := &cobra.Command{
		Use:   "logs [SESSION]",
		Short: "Show what Amp wrote to stderr in a session",
		Args:  atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.cmd = cmd
			if len(args) > 0 {
				opts.session = args[0]
			}
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.events, "events", false, "show Amp's JSON stream instead")
	cmd.Flags().BoolVarP(&opts.follow, "follow", "f", false, "go on while the session is in use")
	return cmd
}

func logsRun(context.Context, *logsOptions) error { return errNotYet }
