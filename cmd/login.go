package cmd

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// loginTime is how long a login waits for its user.
const loginTime = 10 * time.Minute

type loginOptions struct {
	app       *app
	cmd       *cobra.Command
	withToken bool
	paste     bool
	noCheck   bool
	status    bool
	limit     time.Duration
}

func newLoginCmd(a *app, runF func(context.Context, *loginOptions) error) *cobra.Command {
	opts := &loginOptions{app: a, limit: loginTime}
	if runF == nil {
		runF = loginRun
	}
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Store the key of the Amp service",
		Long: "Get the key of the Amp service, check it with the service, and store it for this user: in the\n" +
			"system's keyring where one answers, else in a file that nobody else may read. The key comes\n" +
			"from the service's page in your browser, or is pasted here without being shown. A key in\n" +
			"AMP_API_KEY wins over the stored one. Each service has a key of its own.",
		Example: "  sesame login\n  sesame login --paste\n  sesame login --with-token < key.txt\n" +
			"  sesame login --url https://amp.example.com/\n  sesame login --status",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.withToken, "with-token", false, "read the key from standard input")
	f.BoolVar(&opts.paste, "paste", false, "ask for the key here and open no browser")
	f.BoolVar(&opts.noCheck, "no-check", false, "store the key without asking the service about it")
	f.BoolVar(&opts.status, "status", false, "show which keys there are, and whether the service takes this one")
	urlFlag(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return onlyOneOf(cmd, "with-token", "paste", "status") }
	return cmd
}

// onlyOneOf refuses flags that say different things.
func onlyOneOf(cmd *cobra.Command, names ...string) error {
	first := ""
	for _, name := range names {
		switch {
		case !cmd.Flags().Changed(name):
		case first != "":
			return fault.New(fault.Usage, "--%s and --%s: give one of them", first, name)
		default:
			first = name
		}
	}
	return nil
}

// urlFlag names the service for commands about its key.
func urlFlag(cmd *cobra.Command) {
	flagSet{cmd.Flags()}.text("url", "", "amp.url", "mean the service at `URL`")
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
	if o.status {
		return o.showStatus(ctx, cfg.Amp.URL, store)
	}
	// A store that cannot be used is told before the user goes looking for the key.
	if _, err := store.List(); err != nil {
		return err
	}
	key, err := o.getKey(ctx, cfg.Amp.URL)
	if err != nil {
		return err
	}
	a.redactor.Add(key)
	who := account{}
	if !o.noCheck {
		if who, err = a.checkKey(ctx, cfg.Amp.URL, key); err != nil {
			return notStored(err)
		}
	}
	place, declined, err := store.Save(cfg.Amp.URL, config.Credential{Key: key, Account: who.String(), Saved: a.now()})
	if err != nil {
		return err
	}
	if declined != nil {
		a.say("%s did not take the key: %v", store.Keyring.Name(), declined)
	}
	if o.noCheck {
		a.say("key for %s stored in %s; the service was not asked about it", cfg.Amp.URL, place)
	} else {
		a.say("logged in to %s as %s, key stored in %s", cfg.Amp.URL, who, place)
	}
	if other, err := config.NewKey(a.env.Get("AMP_API_KEY")); err == nil && other != key {
		a.warn("AMP_API_KEY is set to another key and wins over the stored one")
	}
	return nil
}

// notStored says of a key that the service did not confirm what became of it.
func notStored(err error) error {
	stored := &fault.Error{Code: fault.CodeOf(err), Message: "nothing stored: " + err.Error(), Err: err}
	if stored.Code == fault.ServiceUnreachable {
		stored = stored.Hint("`sesame login --no-check` stores the key without asking the service")
	}
	return stored
}

// maxPasted is far more than a key is long.
const maxPasted = 64 << 10

func (o *loginOptions) getKey(ctx context.Context, url string) (config.Key, error) {
	text, err := o.keyText(ctx, url)
	switch {
	case errors.Is(err, context.Canceled), fault.CodeOf(err) != fault.Internal && err != nil:
		return config.Key{}, err
	case err != nil:
		return config.Key{}, fault.New(fault.Usage, "read the key: %w", err)
	}
	key, err := config.PastedKey(text)
	if err != nil {
		return config.Key{}, fault.New(fault.Usage, "%w", err).Hint("the key is one word, as the service shows it")
	}
	return key, nil
}

// keyText is the key as somebody or something wrote it.
func (o *loginOptions) keyText(ctx context.Context, url string) (string, error) {
	a := o.app
	if o.withToken {
		data, err := readAll(ctx, a.io.In, maxPasted)
		return string(data), err
	}
	if !a.io.CanPrompt() {
		return "", fault.New(fault.Usage, "no terminal to ask for the key on").
			Hint("pipe the key into `sesame login --with-token`, or set AMP_API_KEY")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fault.New(fault.Timeout, "nobody logged in within %s", o.limit).
		Hint("run `sesame login` again, or `sesame login --paste`"))
	defer cancel()
	var text string
	var err error
	if open := a.findBrowser(a.env); open != nil && !o.paste {
		text, err = o.fromBrowser(ctx, url, open)
	} else {
		a.say("keys are made at %ssettings", url)
		text, err = a.io.AskSecret(ctx, "key for "+url+" (not shown): ")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return text, err
}

// fromBrowser takes the key that the browser brings, or one that is pasted meanwhile: the
// page may be open on another machine.
func (o *loginOptions) fromBrowser(ctx context.Context, url string, open browser) (string, error) {
	a := o.app
	ask := func(ctx context.Context, question string) (string, error) { return a.io.AskSecret(ctx, question) }
	login, err := amp.StartLogin(ctx, url)
	if err != nil {
		a.warn("no login by the browser: %v", err)
		a.say("keys are made at %ssettings", url)
		return ask(ctx, "key for "+url+" (not shown): ")
	}
	// A browser that keeps its connection open is no fault of the login.
	defer func() { _ = login.Close() }()
	if err := open(ctx, login.URL()); err != nil {
		a.say("no browser could be opened (%v)", err)
	}
	a.line("sesame", "log in here if no page opened: "+login.URL())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		text string
		err  error
	}
	brought, pasted := make(chan answer, 1), make(chan answer, 1)
	go func() {
		text, err := login.Wait(ctx)
		brought <- answer{text, err}
	}()
	go func() {
		text, err := ask(ctx, "waiting for the browser; or paste the key for "+url+" (not shown): ")
		pasted <- answer{text, err}
	}()
	select {
	case got := <-brought:
		cancel()
		<-pasted // the terminal has its echo back
		return got.text, got.err
	case got := <-pasted:
		return got.text, got.err
	}
}
