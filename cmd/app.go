package cmd

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// app is what commands share: the world outside, which a test replaces, and the
// flags that every command has.
type app struct {
	io          *IOStreams
	env         config.Env
	cwd         string // "" when it is gone
	now         func() time.Time
	redactor    *config.Redactor
	checkKey    keyChecker
	keyring     config.Keyring // nil where there is none
	findBrowser func(config.Env) browser
	takeSignals func() <-chan os.Signal
	awaitWatch  func() // until signals are watched for

	begun *sandbox.Beginning // of the command sandbox, nil where that begins it itself

	args       []string // the command line, for errors that come before flags are parsed
	cd         string   // -C
	configFile string   // --config

	output config.Output // once the configuration is read
	quiet  bool          // likewise
	report *Report       // of the turn, when the command is one of turns
}

// account is whom a key belongs to.
type account struct{ ID, Email string }

// String names the account for people.
func (a account) String() string {
	if a.Email != "" {
		return a.Email
	}
	return a.ID
}

// keyChecker asks the service at url whether it takes the key. A refusal is a
// fault.KeyRejected, no answer a fault.ServiceUnreachable.
type keyChecker func(ctx context.Context, url string, key config.Key) (account, error)

func (a *app) dirs() (config.Dirs, error) { return config.DirsOf(a.env) }

// load reads the configuration for a command. The workspace is "" for commands that
// do not work in one: then its file does not count.
func (a *app) load(cmd *cobra.Command, workspace string) (*config.Config, error) {
	dirs, err := a.dirs()
	if err != nil {
		return nil, err
	}
	file := a.configFile
	if file != "" {
		if file, err = a.absolute(file); err != nil {
			return nil, err
		}
	}
	cfg, err := config.Load(config.Options{
		Env:        a.env,
		Dirs:       dirs,
		ConfigFile: file,
		Workspace:  workspace,
		Dir:        a.cwd,
		Flags:      flagsOf(cmd),
	})
	a.output, a.quiet = cfg.Output, cfg.Quiet
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		a.warn("%s", w)
	}
	return cfg, nil
}

// store is where keys are kept.
func (a *app) store() (config.KeyStore, error) {
	dirs, err := a.dirs()
	if err != nil {
		return config.KeyStore{}, err
	}
	return config.KeyStore{Path: dirs.Credentials(), Keyring: a.keyring}, nil
}

// findKey finds the key for the configured service and keeps it out of all output
// from here on.
func (a *app) findKey(cfg *config.Config) (config.Key, error) {
	store, err := a.store()
	if err != nil {
		return config.Key{}, err
	}
	key, _, err := config.FindKey(a.env, store, cfg.Amp.URL)
	if err == nil {
		a.redactor.Add(key)
	}
	return key, err
}
