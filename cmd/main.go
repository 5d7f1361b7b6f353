// Package cmd is the command line: commands, their flags, what they print and how
// they exit. Streams, environment and clock reach a command through its app.
package cmd

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"time"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// How long a keyring has to answer: with somebody there to unlock it, and with nobody.
const (
	keyringAttended   = 30 * time.Second
	keyringUnattended = 5 * time.Second
)

// Main runs the command line of args (args[0] is the program) against the process's
// own streams and environment, and returns the exit code.
func Main(args []string) int {
	if code, ok := sandbox.Keep(args); ok {
		return code
	}
	ctx, watch := watchSignals(context.Background())
	defer watch.stop()
	var begun *sandbox.Beginning
	if beginsSandbox(args[1:]) {
		// Watching takes several steps of two threads after each other. The sandbox goes first, which says when.
		begun = sandbox.Begin(&sandbox.Command{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Watch: watch.begin})
		defer begun.Close()
	} else {
		go watch.begin() // little waits for it
	}
	// net/http tells the log of servers that break its rules. What matters of that comes as an error.
	log.SetOutput(io.Discard)

	redactor := &config.Redactor{}
	streams := systemStreams(redactor, config.ParseEnv(os.Environ()))
	// What is held back for the redactor's sake comes out last.
	defer streams.Flush()

	cwd, err := os.Getwd()
	if err != nil {
		cwd = "" // a directory that was removed: only commands that need one fail
	}
	env := config.ParseEnv(os.Environ())
	patience := keyringUnattended
	if streams.CanPrompt() {
		patience = keyringAttended
	}
	a := &app{
		io:          streams,
		env:         env,
		cwd:         cwd,
		now:         time.Now,
		redactor:    redactor,
		checkKey:    askService(env),
		keyring:     config.SystemKeyring(env, patience),
		findBrowser: findBrowser,
		takeSignals: watch.take,
		awaitWatch:  watch.begin,
		begun:       begun,
	}
	return run(ctx, a, args[1:])
}

// run executes one command line and says how the process is to exit.
func run(ctx context.Context, a *app, args []string) int {
	a.args = args
	// Known before anything can print it.
	if key, err := config.NewKey(a.env.Get("AMP_API_KEY")); err == nil {
		a.redactor.Add(key)
	}
	root := newRootCmd(a)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	err = canceled(ctx, err)
	if command != nil && command.Annotations[reports] != "" && a.report != nil {
		err = a.explainedBy(err, explains(fault.CodeOf(err)))
		a.noteFailure(err)
		if printErr := a.finishReport(err); err == nil {
			err = printErr
		}
	}
	a.printError(err)
	return exitCode(ctx, err)
}

// canceled gives an error that is only the end of the context its code.
func canceled(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || fault.CodeOf(err) != fault.Internal || !errors.Is(err, context.Canceled) {
		return err
	}
	return &fault.Error{Code: fault.Canceled, Message: context.Cause(ctx).Error(), Err: err}
}
