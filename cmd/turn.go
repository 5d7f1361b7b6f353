package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// turnOptions are what run and continue are told.
type turnOptions struct {
	app        *app
	cmd        *cobra.Command
	args       []string
	promptFile string
	session    string // continue: the session's id or the beginning of one
}

// turn is what a turn needs, all of it checked, nothing changed yet.
type turn struct {
	app       *app
	config    *config.Config
	dirs      config.Dirs
	workspace string
	prompt    string
	key       config.Key
	policy    *sandbox.Policy
	ripgrep   string // for Amp, where the host has none; "" otherwise
	servers   []byte // of MCP, as JSON; nil for none
}

// newTurnCmd makes what run and continue have in common.
func newTurnCmd(a *app, cmd *cobra.Command, run func(context.Context, *turnOptions) error) (*cobra.Command, *turnOptions) {
	opts := &turnOptions{app: a, cmd: cmd}
	cmd.Annotations = map[string]string{reports: "yes"}
	filledText(cmd.Flags(), &opts.promptFile, "prompt-file", "", "read the prompt from `FILE`")
	turnFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.report = newReport()
		opts.args = args
		return run(cmd.Context(), opts)
	}
	return cmd, opts
}

// resolve reads and checks all that the turn depends on, the quick things first and
// standard input last.
func (o *turnOptions) resolve(ctx context.Context) (*turn, error) {
	a := o.app
	dirs, err := a.dirs()
	if err != nil {
		return nil, a.explainedBy(err, "config.dirs")
	}
	workspace, err := a.workspace(dirs)
	if err != nil {
		return nil, a.explainedBy(err, "config.workspace")
	}
	a.report.Workspace = workspace
	cfg, err := a.load(o.cmd, workspace)
	if err != nil {
		return nil, a.explainedBy(err, config.CheckFilesID)
	}
	a.report.Mode = cfg.Mode
	key, keyErr := a.findKey(cfg)
	if keyErr != nil && readsInput(o.args, o.promptFile) {
		return nil, keyErr // without a key nothing is waited for
	}
	policy, err := a.newPolicy(cfg, dirs, workspace)
	if err == nil {
		err = policy.Check()
	}
	if err != nil {
		return nil, a.explainedBy(err, sandbox.CheckTierID)
	}
	servers, err := readServers(ctx, cfg)
	if err != nil {
		return nil, a.explainedBy(err, config.CheckFilesID)
	}
	prompt, err := a.prompt(ctx, o.args, o.promptFile)
	if err != nil {
		return nil, err
	}
	if err := amp.CheckPrompt(prompt); err != nil {
		return nil, err // now, before there is a session
	}
	if keyErr != nil {
		return nil, keyErr
	}
	return &turn{app: a, config: cfg, dirs: dirs, workspace: workspace, prompt: prompt, key: key, policy: policy, servers: servers}, nil
}
