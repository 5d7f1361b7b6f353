package cmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

type logoutOptions struct {
	app *app
	cmd *cobra.Command
	all bool
}

func newLogoutCmd(a *app, runF func(context.Context, *logoutOptions) error) *cobra.Command {
	opts := &logoutOptions{app: a}
	if runF == nil {
		runF = logoutRun
	}
	cmd := &cobra.Command{
		Use:     "logout",
		Short:   "Forget the stored key",
		Long:    "Remove the key that login stored for the service, from the keyring or the file.",
		Example: "  sesame logout\n  sesame logout --url https://amp.example.com/\n  sesame logout --all",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.all, "all", false, "forget the keys for all services")
	urlFlag(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return onlyOneOf(cmd, "all", "url") }
	return cmd
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
	urls := []string{cfg.Amp.URL}
	if o.all {
		stored, err := store.List()
		if err != nil {
			return err
		}
		urls = nil
		for _, s := range stored {
			urls = append(urls, s.URL)
		}
		if len(urls) == 0 {
			a.say("no key stored")
		}
	}
	var errs []error
	for _, url := range urls {
		switch place, err := store.Remove(url); {
		case err != nil:
			errs = append(errs, err)
		case place == "":
			a.say("no key stored for %s", url)
		default:
			a.say("logged out of %s, key removed from %s", url, place)
		}
	}
	if a.env.Get("AMP_API_KEY") != "" {
		a.warn("AMP_API_KEY is still set")
	}
	return errors.Join(errs...)
}
