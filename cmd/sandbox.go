package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

type sandboxOptions struct {
	app     *app
	cmd     *cobra.Command
	args    []string
	explain bool
	paths   []string // --explain-path
	hosts   []string // --explain-host
}

func newSandboxCmd(a *app, runF func(context.Context, *sandboxOptions) error) *cobra.Command {
	opts := &sandboxOptions{app: a}
	cmd := &cobra.Command{
		Use:   "sandbox [flags] -- COMMAND...",
		Short: "Run any command under the policy of `run`",
		Example: "  sesame sandbox -- npm test\n" +
			"  sesame sandbox --allow-host registry.example.com -- npm ci\n" +
			"  sesame sandbox --explain",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !opts.explains() {
				return fault.New(fault.Usage, "sesame sandbox: needs a command").
					Hint("such as `sesame sandbox -- ls -la`, or --explain to see the policy")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.cmd, opts.args = cmd, args
			if runF != nil {
				return runF(cmd.Context(), opts)
			}
			return sandboxRun(cmd.Context(), opts)
		},
	}
	// What follows the command's name is the command's.
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVar(&opts.explain, "explain", false, "print the policy instead of running a command")
	repeatable(cmd.Flags(), &opts.paths, "explain-path", "say what may be done with `PATH`, by which rule, and which flag changes it (repeatable)")
	repeatable(cmd.Flags(), &opts.hosts, "explain-host", "say whether `HOST:PORT` can be reached, likewise (repeatable)")
	outputFlag(cmd, string(config.Text), string(config.JSON))
	policyFlags(cmd)
	return cmd
}

func sandboxRun(ctx context.Context, o *sandboxOptions) error {
	a := o.app
	dirs, err := a.dirs()
	if err != nil {
		return err
	}
	workspace, err := a.workspace(dirs)
	if err != nil {
		return err
	}
	cfg, err := a.load(o.cmd, workspace)
	if err != nil {
		return err
	}
	policy, err := a.newPolicy(cfg, dirs, workspace)
	if err != nil {
		return err
	}
	if len(o.paths)+len(o.hosts) > 0 {
		return o.verdicts(ctx, cfg, policy)
	}
	env, err := a.commandEnv(cfg, policy)
	if err != nil {
		return err
	}
	if o.explain {
		// A tier that cannot be had is for a command to fail with: here it is the policy that counts.
		tier, err := sandbox.TierHere(ctx, policy, env)
		if err != nil {
			a.warn("%v", err)
		}
		return o.policy(cfg, policy, tier, env)
	}
	begun := a.begun
	if begun == nil {
		begun = &sandbox.Beginning{Command: &sandbox.Command{Stdin: a.io.RawIn, Stdout: a.io.RawOut, Stderr: a.io.RawErr}}
	}
	c := begun.Command
	c.Args, c.Env, c.Terminal = o.args, env, a.io.InTerminal
	return a.inSandbox(ctx, policy, begun)
}

// beginsSandbox tells a command line that will most likely run something in a sandbox with namespaces. Main begins that
// one before it knows any more: reading the command line and the configuration takes about as long as making namespaces.
func beginsSandbox(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return firstWord(args) == "sandbox" && !slices.ContainsFunc(args, func(arg string) bool {
		return strings.HasPrefix(arg, "--explain") || arg == "--help" || arg == "-h" ||
			strings.HasSuffix(arg, string(sandbox.Landlock)) || strings.HasSuffix(arg, string(sandbox.Off))
	})
}

// commandEnv is the environment that Amp would have in a turn: with what stands for the key, if there is one.
func (a *app) commandEnv(cfg *config.Config, policy *sandbox.Policy) ([]string, error) {
	key, err := a.findKey(cfg)
	if err != nil && fault.CodeOf(err) != fault.KeyMissing {
		return nil, err
	}
	env, inside, err := a.insideEnv(cfg, policy, key)
	if err != nil || inside.IsZero() {
		return env, err
	}
	return append(env, "AMP_API_KEY="+inside.Reveal(), "AMP_URL="+cfg.Amp.URL), nil
}

// inSandbox runs a command with our streams and signals, and ends as it ended.
func (a *app) inSandbox(ctx context.Context, policy *sandbox.Policy, begun *sandbox.Beginning) error {
	defer a.io.keepTerminal()()
	process, err := begun.Start(ctx, policy)
	if no, ok := errors.AsType[*sandbox.NoCommandError](err); ok {
		a.line("sesame", no.Error())
		return exitStatus(no.Code) // as a shell would
	}
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func(signals <-chan os.Signal) {
		for {
			select {
			case s := <-signals:
				// At a terminal the command gets ctrl-c by itself.
				if s != os.Interrupt || !a.io.InTerminal || process.Detached() {
					_ = process.Signal(s) // it may just have ended
				}
			case <-ended:
				return
			}
		}
	}(a.takeSignals())
	status, err := process.Wait()
	a.tellDenials(process.Denials())
	switch {
	case err != nil:
		return err
	case status.Code != 0 && ctx.Err() != nil: // a signal came before they were the command's, and it was killed
		return ctx.Err()
	case status.Code != 0:
		return exitStatus(status.Code)
	}
	return nil
}

// tellDenials shows what the sandbox refused and how it would be allowed.
func (a *app) tellDenials(denials []sandbox.Denial) {
	for _, d := range denials {
		times := ""
		if d.Count > 1 {
			times = fmt.Sprintf(", %d times", d.Count)
		}
		// Without a port a rule means the web's, and public addresses only.
		rule := strings.TrimSuffix(strings.TrimSuffix(d.Target, ":443"), ":80")
		_, err := gateway.ParseRule(rule)
		switch {
		case d.Reason != "":
			a.say("%s%s: %s", describe(d), times, d.Reason)
		case err != nil: // whoever chose this target may want it pasted into a shell
			a.say("%s%s", describe(d), times)
		default:
			a.say("%s%s (allow it with --allow-host %s)", describe(d), times, rule)
		}
	}
}

// describe says what was refused to whom.
func describe(d sandbox.Denial) string {
	if d.Program == "" {
		return fmt.Sprintf("sandbox refused %s to %s", d.Kind, d.Target)
	}
	return fmt.Sprintf("sandbox refused %s to %s, asked for by %s", d.Kind, d.Target, d.Program)
}
