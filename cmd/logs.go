package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

type logsOptions struct {
	app     *app
	cmd     *cobra.Command
	session string // "" for the newest of the workspace
	turn    int    // 0 for the last
	events  bool
	follow  bool
}

// followPause is how long a log that has ended for now is left alone.
const followPause = 250 * time.Millisecond

func newLogsCmd(a *app, runF func(context.Context, *logsOptions) error) *cobra.Command {
	opts := &logsOptions{app: a}
	if runF == nil {
		runF = logsRun
	}
	cmd := &cobra.Command{
		Use:   "logs [SESSION]",
		Short: "Show what Amp wrote to stderr in a session",
		Long: "Show what Amp wrote to stderr in the last turn of a session: of the one that is named, or\n" +
			"of the last used one of this workspace.",
		Example: "  sesame logs\n" +
			"  sesame logs --follow --events 3f2a | jq .",
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.cmd = cmd
			if len(args) > 0 {
				opts.session = args[0]
			}
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.events, "events", false, "show Amp's JSON stream instead")
	cmd.Flags().BoolVarP(&opts.follow, "follow", "f", false, "go on until the turn ends")
	cmd.Flags().IntVar(&opts.turn, "turn", 0, "show turn `N` instead of the last one")
	return cmd
}

func logsRun(ctx context.Context, o *logsOptions) error {
	a := o.app
	dirs, err := a.dirs()
	if err != nil {
		return err
	}
	if _, err := a.load(o.cmd, ""); err != nil {
		return err
	}
	store := session.NewStore(dirs.State, a.now)
	id := o.session
	if id == "" {
		workspace, err := a.workspace(dirs)
		if err != nil {
			return err
		}
		if id, err = lastUsed(store, workspace); err != nil {
			return err
		}
	}
	e, err := store.Show(id)
	if err != nil {
		return err
	}
	n, err := o.turnOf(e)
	if err != nil {
		return err
	}
	files := store.Files(e.ID, n)
	path := files.Stderr
	if o.events {
		path = files.Events
	}
	log := &logFile{path: path, to: a.io.Out}
	defer log.close()
	if a.io.OutTerminal {
		log.to = &harmless{to: a.io.Out}
	}
	for {
		// Before the reading, so that what the turn wrote last is not missed.
		over := !o.follow || turnOver(store, e.ID, n)
		if err := log.copy(); err != nil {
			return err
		}
		if over {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followPause):
		}
	}
	if log.copied == 0 {
		a.say("turn %d of session %s wrote nothing there", n, e.ID)
	}
	return nil
}

// lastUsed is the id of the session of the workspace that was used last, also of one
// that cannot be continued: its log is the one that is wanted most.
func lastUsed(store *session.Store, workspace string) (string, error) {
	entries, _, err := store.List()
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Workspace == workspace {
			return e.ID, nil
		}
	}
	return "", fault.New(fault.SessionNotFound, "there is no session of %s", workspace).
		Hint("`sesame sessions` lists those of other workspaces; `sesame logs ID` shows theirs")
}

// turnOf is the number of the turn that is meant.
func (o *logsOptions) turnOf(e session.Entry) (int, error) {
	if len(e.Turns) == 0 {
		return 0, fault.New(fault.SessionNotFound, "session %s has no turn", e.ID)
	}
	last := e.Turns[len(e.Turns)-1].N
	if !o.cmd.Flags().Changed("turn") {
		return last, nil
	}
	for _, t := range e.Turns {
		if t.N == o.turn {
			return t.N, nil
		}
	}
	return 0, fault.New(fault.Usage, "--turn: session %s has no turn %d", e.ID, o.turn).
		Hint("its last one is %d", last)
}

// turnOver tells whether nothing more can come: the turn has ended, nobody runs it, or
// the session was removed.
func turnOver(store *session.Store, id string, n int) bool {
	e, err := store.Show(id)
	if err != nil || !e.InUse {
		return true
	}
	for _, t := range e.Turns {
		if t.N == n {
			return t.Status != session.Running
		}
	}
	return true
}

// logFile is a log that may grow, and may not be there yet.
type logFile struct {
	path   string
	to     io.Writer
	file   *os.File
	copied int64
}

// copy passes on what has come since the last time.
func (l *logFile) copy() error {
	if l.file == nil {
		f, err := os.Open(l.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fault.New(fault.Internal, "cannot read the log: %w", err)
		}
		l.file = f
	}
	n, err := io.Copy(l.to, l.file)
	l.copied += n
	if err != nil {
		return fmt.Errorf("show the log: %w", err)
	}
	return nil
}

func (l *logFile) close() {
	if l.file != nil {
		_ = l.file.Close() // it was only read
	}
}

const joiner = '\u200d' // makes one picture of several

// harmless keeps a log from talking to the terminal: control characters become text.
type harmless struct {
	to   io.Writer
	rest []byte // the beginning of a character
}

// Write never reports fewer bytes than it was given without an error.
func (h *harmless) Write(p []byte) (int, error) {
	data := append(h.rest, p...)
	out := bufio.NewWriter(h.to)
	for len(data) > 0 && utf8.FullRune(data) {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(out, "\\x%02x", data[0])
		case r == '\n' || r == '\t' || r == joiner || unicode.IsGraphic(r):
			_, _ = out.Write(data[:size]) // an error comes back from Flush
		default: // also what turns the direction of writing round
			fmt.Fprintf(out, "\\x%02x", r)
		}
		data = data[size:]
	}
	h.rest = append([]byte(nil), data...)
	if err := out.Flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}
