package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type logoutOptions struct {
	app *app
	cmd *cobra.Command
}

func newLogoutCmd(a *app, runF func(context.Context, *logoutOptions) error) *cobra.Command {
	opts := &logoutOptions{app: a}
	if runF == nil {
		runF = logoutRun
	}
	return &cobra.Command{
		Use:   "logout",
		Short: "Forget the stored key",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
}

func logoutRun(_ context.Context, o *logoutOptions) error {
	a := o.app
	cfg, err := a.load(o.cmd, "")
	if err != nil {
		return err
	}
	store, err := a.store()
	if err != nil {
		return err
	}
	had, err := store.Remove(cfg.Amp.URL)
	if err != nil {
		return err
	}
	if had {
		a.say("logged out of %s, key removed from %s", cfg.Amp.URL, store)
	} else {
		a.say("no key stored for %s", cfg.Amp.URL)
	}
	if a.env.Get("AMP_API_KEY") != "" {
		a.warn("AMP_API_KEY is still set")
	}
	return nil
}
