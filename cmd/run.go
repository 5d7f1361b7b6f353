package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

func newRunCmd(a *app, runF func(context.Context, *turnOptions) error) *cobra.Command {
	if runF == nil {
		runF = runRun
	}
	cmd, _ := newTurnCmd(a, &cobra.Command{
		Use:   "run [PROMPT...]",
		Short: "Run one turn in a new session",
		Long: "Run one turn of Amp in a new session, in a sandbox, and print its answer.\n\n" +
			"The prompt is the arguments, or --prompt-file, or, without either, standard input when\n" +
			"it is no terminal. `-` as the last argument appends standard input.",
		Example: "  sesame run \"fix the failing test\"\n" +
			"  git diff | sesame run \"review this\" -\n" +
			"  sesame run -m deep --timeout 30m --prompt-file task.md -o json",
	}, runF)
	return cmd
}

func runRun(ctx context.Context, o *turnOptions) error {
	t, err := o.resolve(ctx)
	if err != nil {
		return err
	}
	return t.execute(ctx, nil)
}
