package cmd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

type sessionsOptions struct {
	app      *app
	cmd      *cobra.Command
	sessions []string // show, rm: what people typed for them
	json     bool

	olderThan string // prune
	keep      int    // prune
	dryRun    bool   // prune
}

// sessionsAction is what a command below `sesame sessions` does.
type sessionsAction func(context.Context, *sessionsOptions, *session.Store, config.Dirs) error

func newSessionsCmd(a *app, runF func(context.Context, *sessionsOptions) error) *cobra.Command {
	opts := &sessionsOptions{app: a}
	runE := func(action sessionsAction) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			opts.cmd, opts.sessions = cmd, args
			if runF != nil {
				return runF(cmd.Context(), opts)
			}
			return opts.run(cmd.Context(), action)
		}
	}
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List, show and remove sessions",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		// Without a command it lists.
		RunE: runE(sessionsList),
	}
	list := &cobra.Command{Use: "list", Short: "List the sessions, the last used first", Args: noArgs, RunE: runE(sessionsList)}
	show := &cobra.Command{Use: "show ID", Short: "Show a session", Args: exactlyOne("the id of a session"), RunE: runE(sessionsShow)}
	for _, c := range []*cobra.Command{cmd, list, show} {
		c.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	}
	prune := &cobra.Command{
		Use:   "prune",
		Short: "Remove the sessions that have not been used for long",
		Long: "Remove the sessions that have not been used for 30 days, or for --older-than; with --keep\n" +
			"alone, all but the last used of each workspace. Sessions in use stay. What the sandbox kept\n" +
			"of the home directory goes with the last session of its workspace.\n" +
			"What it takes is told by `sesame sessions show`, and by --dry-run.",
		Example: "  sesame sessions prune\n" +
			"  sesame sessions prune --older-than 7d --keep 3",
		Args: noArgs,
		RunE: runE(sessionsPrune),
	}
	prune.Flags().StringVar(&opts.olderThan, "older-than", pruneAge, "remove what was not used for `DURATION`, such as 12h or 7d")
	prune.Flags().IntVar(&opts.keep, "keep", 0, "spare the last used `N` sessions of each workspace")
	prune.Flags().BoolVar(&opts.dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	cmd.AddCommand(
		list,
		show,
		&cobra.Command{
			Use: "rm ID...", Short: "Remove sessions", RunE: runE(sessionsRemove),
			Args: func(cmd *cobra.Command, args []string) error {
				return exactlyOne("the id of a session")(cmd, args[:min(1, len(args))])
			},
		},
		prune,
	)
	return cmd
}

func (o *sessionsOptions) run(ctx context.Context, action sessionsAction) error {
	dirs, err := o.app.dirs()
	if err != nil {
		return err
	}
	if _, err := o.app.load(o.cmd, ""); err != nil {
		return err
	}
	return action(ctx, o, session.NewStore(dirs.State, o.app.now), dirs)
}

// brokenSession is one that cannot be read, as --json shows it.
type brokenSession struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

func sessionsList(_ context.Context, o *sessionsOptions, store *session.Store, dirs config.Dirs) error {
	a := o.app
	entries, broken, err := store.List()
	if err != nil {
		return err
	}
	for _, b := range broken {
		a.warn("%s", b.Err)
		for _, hint := range fault.HintsOf(b.Err) {
			a.line("hint", hint)
		}
	}
	if o.json {
		list := struct {
			SchemaVersion int             `json:"schema_version"`
			Sessions      []session.Entry `json:"sessions"`
			Broken        []brokenSession `json:"broken"`
		}{1, entries, []brokenSession{}}
		if entries == nil {
			list.Sessions = []session.Entry{}
		}
		for i := range list.Sessions {
			withTurns(&list.Sessions[i])
		}
		for _, b := range broken {
			list.Broken = append(list.Broken, brokenSession{b.ID, b.Err.Error()})
		}
		return printJSON(a.io.Out, list)
	}
	if len(entries) == 0 {
		a.say("no sessions")
		return nil
	}
	t := table{{"ID", "USED", "WORKSPACE", "MODE", "STATUS", "TURNS", "LABELS"}}
	for _, e := range entries {
		t = append(t, []string{
			e.ID, a.when(e.Updated), a.place(e.Workspace, dirs), e.Mode, statusText(e),
			fmt.Sprint(len(e.Turns)), amp.OneLine(strings.Join(e.Labels, ", "), labelsWidth),
		})
	}
	return t.print(a.io.Out)
}

// withTurns makes no turns an empty list for those who read JSON.
func withTurns(e *session.Entry) {
	if e.Turns == nil {
		e.Turns = []session.Turn{}
	}
}

const labelsWidth = 40 // columns of a session's labels in the list

// statusText is how a session stands. One that somebody has open is in use even
// between turns.
func statusText(e session.Entry) string {
	switch status := e.Status(); {
	case e.InUse && status != session.Running:
		return "in use"
	case status == "":
		return "-"
	default:
		return string(status)
	}
}

// place is a path as people want to see it: on a terminal with ~ for the home.
func (a *app) place(path string, dirs config.Dirs) string {
	if home := resolved(dirs.Home); a.io.OutTerminal && home != "" && within(path, home) {
		return "~" + strings.TrimPrefix(path, home)
	}
	return path
}

// sessionDetails is a session as `show --json` prints it.
type sessionDetails struct {
	session.Entry
	Dir       string `json:"dir"`
	DiskBytes int64  `json:"disk_bytes"` // what its files hold
	HomeBytes int64  `json:"home_bytes"` // what is kept of the home for its workspace, which other sessions may share
}

func sessionsShow(_ context.Context, o *sessionsOptions, store *session.Store, dirs config.Dirs) error {
	a := o.app
	e, err := store.Show(o.sessions[0])
	if err != nil {
		return err
	}
	if o.json {
		withTurns(&e)
		return printJSON(a.io.Out, sessionDetails{e, store.Dir(e.ID), diskUse(store.Dir(e.ID)), homeUse(dirs, e.Workspace)})
	}
	var facts table
	fact := func(name, value string) {
		if value != "" {
			facts = append(facts, []string{name + ":", value})
		}
	}
	mode := e.Mode
	if e.AmpMode != "" && e.AmpMode != e.Mode {
		mode += " (" + e.AmpMode + " on this Amp)"
	}
	fact("session", e.ID)
	fact("status", statusText(e))
	fact("workspace", e.Workspace+gone(e.Workspace))
	fact("mode", mode)
	fact("thread", e.ThreadID)
	fact("amp", e.AmpVersion)
	fact("amp file", e.AmpPath)
	fact("service", e.ServiceURL)
	fact("labels", strings.Join(e.Labels, ", "))
	fact("begun", a.when(e.Created))
	fact("used", a.when(e.Updated))
	fact("files", a.place(store.Dir(e.ID), dirs)+", "+bytesText(diskUse(store.Dir(e.ID))))
	if kept := homeUse(dirs, e.Workspace); kept > 0 {
		fact("home", bytesText(kept)+" kept for this workspace")
	}
	if err := facts.print(a.io.Out); err != nil || len(e.Turns) == 0 {
		return err
	}
	turns := table{{"TURN", "BEGUN", "MODE", "STATUS", "TOOK", "ERROR"}}
	for _, t := range e.Turns {
		took := ""
		if t.DurationMS > 0 {
			took = (time.Duration(t.DurationMS) * time.Millisecond).Round(100 * time.Millisecond).String()
		}
		problem := t.Error
		if problem == "" {
			problem = t.ErrorCode
		}
		turns = append(turns, []string{fmt.Sprint(t.N), a.when(t.Started), t.Mode, string(t.Status), took, problem})
	}
	if err := a.answer("\n"); err != nil {
		return err
	}
	return turns.print(a.io.Out)
}

// gone says that a workspace is not there any more.
func gone(workspace string) string {
	if _, err := os.Stat(workspace); os.IsNotExist(err) {
		return " (gone)"
	}
	return ""
}
