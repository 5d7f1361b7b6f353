package cmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

type loginOptions struct {
	app       *app
	cmd       *cobra.Command
	withToken bool
}

func newLoginCmd(a *app, runF func(context.Context, *loginOptions) error) *cobra.Command {
	opts := &loginOptions{app: a}
	if runF == nil {
		runF = loginRun
	}
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Store the key of the Amp service",
		Long: "Ask for the key of the Amp service without showing it, check it with the service, and\n" +
			"store it for this user. A key in AMP_API_KEY wins over the stored one.",
		Example: "  sesame login\n  sesame login --with-token < key.txt",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.withToken, "with-token", false, "read the key from standard input")
	return cmd
}

func loginRun(ctx context.Context, o *loginOptions) error {
	a := o.app
	cfg, err := a.load(o.cmd, "")
	if err != nil {
		return err
	}
	store, err := a.store()
	if err != nil {
		return err
	}
	// A store that cannot be used is told before the user goes looking for the key.
	if _, _, err := store.Load(cfg.Amp.URL); err != nil {
		return err
	}
	key, err := o.readKey(ctx, cfg.Amp.URL)
	if err != nil {
		return err
	}
	a.redactor.Add(key)
	who, err := a.checkKey(ctx, cfg.Amp.URL, key)
	if err != nil {
		return fmt.Errorf("nothing stored: %w", err)
	}
	if err := store.Save(cfg.Amp.URL, config.Credential{Key: key, Account: who.String(), Saved: a.now()}); err != nil {
		return err
	}
	a.say("logged in to %s as %s, key stored in %s", cfg.Amp.URL, who, store)
	if other, err := config.NewKey(a.env.Get("AMP_API_KEY")); err == nil && other != key {
		a.warn("AMP_API_KEY is set to another key and wins over the stored one")
	}
	return nil
}

// maxPasted is far more than a key is long.
const maxPasted = 64 << 10

func (o *loginOptions) readKey(ctx context.Context, url string) (config.Key, error) {
	streams := o.app.io
	var text string
	var err error
	switch {
	case o.withToken:
		var data []byte
		data, err = readAll(ctx, streams.In, maxPasted)
		text = string(data)
	case streams.CanPrompt():
		if url == config.DefaultURL {
			o.app.say("keys are made at %ssettings", url)
		}
		text, err = streams.AskSecret(ctx, "key for "+url+" (not shown): ")
	default:
		return config.Key{}, fault.New(fault.Usage, "no terminal to ask for the key on").
			Hint("pipe the key into `sesame login --with-token`, or set AMP_API_KEY")
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return config.Key{}, err
		}
		return config.Key{}, fault.New(fault.Usage, "read the key: %w", err)
	}
	key, err := config.PastedKey(text)
	if err != nil {
		return config.Key{}, fault.New(fault.Usage, "%w", err).Hint("the key is one word, as the service shows it")
	}
	return key, nil
}
