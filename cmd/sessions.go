package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type sessionsOptions struct {
	app     *app
	cmd     *cobra.Command
	action  string // list, show, rm, prune
	session string // show, rm: the id or its beginning
	json    bool
}

func newSessionsCmd(a *app, runF func(context.Context, *sessionsOptions) error) *cobra.Command {
	opts := &sessionsOptions{app: a}
	if runF == nil {
		runF = sessionsRun
	}
	sub := func(use, short string, args cobra.PositionalArgs) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: args,
			RunE: func(cmd *cobra.Command, args []string) error {
				opts.cmd, opts.action = cmd, cmd.Name()
				if len(args) > 0 {
					opts.session = args[0]
				}
				return runF(cmd.Context(), opts)
			},
		}
	}
	list := sub("list", "List the sessions, the newest first", noArgs)
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List, show and remove sessions",
		Args:  list.Args,
		// Without a command it lists.
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.cmd, opts.action = cmd, "list"
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return nil
	}
	cmd.PersistentFlags().BoolVar(&opts.json, "json", false, "print JSON")
	cmd.AddCommand(
		list,
		sub("show ID", "Show a session", exactly(1, "the id of a session")),
		sub("rm ID", "Remove a session", exactly(1, "the id of a session")),
		sub("prune", "Remove the sessions whose workspace is gone", noArgs),
	)
	return cmd
}

func sessionsRun(context.Context, *sessionsOptions) error { return errNotYet }
