package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config/fault"
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
	filledText(cmd.Flags(), &opts.session, "session", "", "continue the session `ID` (its beginning is enough)")
	return cmd
}

func continueRun(ctx context.Context, o *turnOptions) error {
	a := o.app
	dirs, err := a.dirs()
	if err != nil {
		return err
	}
	store := session.NewStore(dirs.State, a.now)
	if o.session != "" {
		// The session says where it works; -C may only agree.
		entry, err := store.Show(o.session)
		if err != nil {
			return err
		}
		if a.cd == "" {
			a.cd = entry.Workspace
		}
	}
	t, err := o.resolve(ctx)
	if err != nil {
		return err
	}
	name := o.session
	if name == "" {
		entry, err := store.Newest(t.workspace)
		if err != nil {
			return err
		}
		name = entry.ID
	}
	s, err := store.OpenByName(name)
	if err != nil {
		return err
	}
	defer s.Close() // it only gives the lock back
	record := s.Record()
	a.report.SessionID, a.report.ThreadID = record.ID, record.ThreadID
	switch {
	case record.Workspace != t.workspace:
		return fault.New(fault.Usage, "session %s belongs to the workspace %s, not to %s", record.ID, record.Workspace, t.workspace).
			Hint("leave -C out")
	case record.ServiceURL != t.config.Amp.URL:
		return fault.New(fault.Usage, "session %s belongs to the service %s, not to %s", record.ID, record.ServiceURL, t.config.Amp.URL).
			Hint("set AMP_URL to the session's service, or begin a new session with sesame run")
	case record.ThreadID == "":
		return fault.New(fault.SessionNotFound, "session %s cannot be continued: its first turn ended before Amp named the thread", record.ID).
			Hint("begin a new session with sesame run")
	}
	if err := t.keepTo(record); err != nil {
		return err
	}
	return t.execute(ctx, s)
}
