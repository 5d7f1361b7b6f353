package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

func newContinueCmd(a *app, runF func(context.Context, *turnOptions) error) *cobra.Command {
	if runF == nil {
		runF = continueRun
	}
	cmd, opts := newTurnCmd(a, &cobra.Command{
		Use:   "continue [PROMPT...]",
		Short: "Run the next turn of a session",
		Long: "Run the next turn of a session: the newest one of this workspace, or the one that\n" +
			"--session names. The prompt is given as for `sesame run`.",
		Example: "  sesame continue \"now write the changelog\"\n" +
			"  sesame continue --session 3f2a --prompt-file next.md",
	}, runF)
	cmd.Flags().StringVar(&opts.session, "session", "", "continue the session `ID` (its beginning is enough)")
	return cmd
}

func continueRun(ctx context.Context, o *turnOptions) error {
	_, err := o.resolve(ctx)
	if err != nil {
		return err
	}
	return errNotYet
}
