package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// settingsInside is where Amp finds the settings that sesame made for the session.
const settingsInside = sandbox.PrivateDir + "/settings.json"

// execute runs the turn, in session s or, if that is nil, in a new one, and prints its answer.
func (t *turn) execute(ctx context.Context, s *session.Session) error {
	a := t.app
	begun := a.now()
	file, err := openOutput(t.config.OutputFile)
	if err != nil {
		return err
	}
	defer file.close()
	binary, caps, mode, err := t.prepare(ctx)
	if err != nil {
		return err
	}
	defer a.useAmp(t.config, t.dirs, binary)()
	defer a.refreshAmp(ctx, t.config, t.dirs, binary)()
	settings, err := amp.SessionSettings(a.userSettings(t.dirs), mode)
	if err != nil {
		return err
	}
	t.policy.Files = append(t.policy.Files, sandbox.File{Path: settingsInside, Data: settings})
	if t.servers != nil {
		t.policy.Files = append(t.policy.Files, sandbox.File{Path: serversInside, Data: t.servers})
	}
	if s == nil {
		if s, err = t.newSession(binary, caps, mode); err != nil {
			return err
		}
		defer s.Close() // it only gives the lock back
	} else {
		mode = t.keptMode(s.Record(), caps, mode)
		if err := s.Update(func(r *session.Record) { t.describe(r, binary, caps, mode) }); err != nil {
			return err
		}
	}
	out, err := t.inSession(ctx, s, binary, caps, mode, begun)
	if learned := out.Learned; learned != nil {
		if err := t.prober().Remember(binary.Path, learned); err != nil {
			a.warn("%v", err)
		}
	}
	if out.OutputErr != nil {
		a.warn("not all of the turn could be written down: %v", out.OutputErr)
	}
	a.tellDenials(out.Denials)
	if err != nil {
		return err
	}
	return t.answer(out.Result, file)
}

// prepare gets the build and finds out what it can do.
func (t *turn) prepare(ctx context.Context) (binary bootstrap.Binary, caps *amp.Capabilities, mode amp.ModeChoice, err error) {
	a := t.app
	if d := t.config.Timeout; d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
		defer func() {
			if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				err = fault.New(fault.Timeout, "the turn did not begin in time: %w", err).Hint("allow more with --timeout")
			}
		}()
	}
	if binary, err = a.ensureAmp(ctx, t.config, t.dirs); err != nil {
		return binary, nil, mode, err
	}
	// As the host has it: what an earlier turn made of it in its own home is not what runs.
	if root := programRoot(binary.Path, t.policy); root != "" {
		t.policy.AllowRead = append(t.policy.AllowRead, root)
	}
	if t.ripgrep = a.ripgrep(ctx, t.config, t.dirs); t.ripgrep != "" {
		t.policy.AllowRead = append(t.policy.AllowRead, filepath.Dir(t.ripgrep))
	}
	if caps, err = t.prober().Probe(ctx, binary.Path); err != nil {
		return binary, nil, mode, err
	}
	a.report.AmpVersion = caps.Version
	if mode, err = amp.Translate(t.config.Mode, caps, t.config.Amp.Modes); err != nil {
		return binary, caps, mode, err
	}
	a.report.AmpMode = mode.AmpMode
	// Who named no mode has nothing translated.
	if mode.Notice != "" && (t.config.Verbose || t.config.Origin("mode").Layer != config.LayerDefault) {
		a.say("%s", mode.Notice)
	}
	return binary, caps, mode, nil
}

// keptMode is the mode that a later turn really has: with some builds a thread keeps its first one.
func (t *turn) keptMode(r session.Record, caps *amp.Capabilities, mode amp.ModeChoice) amp.ModeChoice {
	if !caps.KeepsMode() || r.AmpMode == "" || r.AmpMode == mode.AmpMode {
		return mode
	}
	t.app.warn("with Amp %s a session keeps its mode: this turn is %s, not %s", caps.Version, r.Mode, mode.Mode)
	t.app.report.Mode, t.app.report.AmpMode = r.Mode, r.AmpMode
	return amp.ModeChoice{Mode: r.Mode, AmpMode: r.AmpMode}
}

// programRoot is the directory that a build consists of: its own, or the outermost
// node_modules that it is in. "" says that the build is shown inside anyway and cannot be told from its surroundings.
func programRoot(path string, p *sandbox.Policy) string {
	if within(path, p.Workspace) {
		return ""
	}
	if before, _, ok := strings.Cut(path, "/node_modules/"); ok {
		return before + "/node_modules"
	}
	dir := filepath.Dir(path)
	if p.Home != "" && within(p.Home, dir) || filepath.Dir(dir) == dir {
		return path
	}
	return dir
}

// prober asks builds what they can do, in a sandbox without network and home.
func (t *turn) prober() *amp.Prober {
	policy := *t.policy
	policy.AllowHosts, policy.HomeState, policy.GuardState, policy.Files = nil, "", "", nil
	policy.Notice, policy.Denied = nil, nil
	return &amp.Prober{
		Launcher: amp.InPolicy(&policy),
		Env:      sandbox.Environment(t.app.env.List(), policy.HomeInside(), nil),
		CacheDir: filepath.Join(t.dirs.Cache, "capabilities"),
	}
}

// userSettings is the user's own settings file of Amp, "" where there is none.
func (a *app) userSettings(dirs config.Dirs) string {
	if file := a.env.Get("AMP_SETTINGS_FILE"); file != "" {
		return file
	}
	dir := a.env.Get("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(dirs.Home, ".config")
	}
	return amp.UserSettings(filepath.Join(dir, "amp"))
}

// newSession makes the session that the turn is the first of.
func (t *turn) newSession(binary bootstrap.Binary, caps *amp.Capabilities, mode amp.ModeChoice) (*session.Session, error) {
	record := session.Record{Workspace: t.workspace, ServiceURL: t.config.Amp.URL, Labels: t.config.Labels}
	t.describe(&record, binary, caps, mode)
	s, err := session.NewStore(t.dirs.State, t.app.now).Create(record)
	if err != nil {
		return nil, err
	}
	t.app.report.SessionID = s.Record().ID
	return s, nil
}

// describe notes how the turn runs.
func (t *turn) describe(r *session.Record, binary bootstrap.Binary, caps *amp.Capabilities, mode amp.ModeChoice) {
	r.Mode, r.AmpMode = mode.Mode, mode.AmpMode
	r.AmpVersion, r.AmpPath = caps.Version, binary.Path
	r.Policy = heldBy(bounds(t.config).encode(), heldTier(r.Policy))
}

// inSession runs Amp for one turn of the session and notes how that went.
func (t *turn) inSession(ctx context.Context, s *session.Session, binary bootstrap.Binary, caps *amp.Capabilities, mode amp.ModeChoice, begun time.Time) (amp.Outcome, error) {
	a := t.app
	env, key, err := a.insideEnv(t.config, t.policy, t.key)
	if err != nil {
		return amp.Outcome{}, err
	}
	if t.ripgrep != "" {
		env = append(env, "AMP_RIPGREP_PATH="+t.ripgrep)
	}
	note, files, err := s.BeginTurn(mode.Mode)
	if err != nil {
		return amp.Outcome{}, err
	}
	a.report.Logs = ReportLogs{Stderr: files.Stderr, Events: files.Events}
	o := amp.TurnOptions{
		Launcher: amp.InPolicy(t.policy), Path: binary.Path, Caps: caps,
		Prompt: t.prompt, Mode: mode, ThreadID: s.Record().ThreadID,
		Thinking: t.config.ShowThinking, Labels: t.config.Labels,
		SettingsFile: settingsInside, Args: t.config.Amp.Args,
		Dir: t.workspace, Env: env, ServiceURL: t.config.Amp.URL, Key: key.Reveal(),
		EventsFile: files.Events, StderrFile: files.Stderr,
		Redact:   func(w io.Writer) amp.RedactingWriter { return a.redactor.Writer(w) },
		Observer: &display{app: a, thinking: t.config.ShowThinking},
		Thread: func(id string) error {
			a.report.ThreadID = id
			return s.SetThread(id)
		},
		Notice:   func(line string) { a.say("%s", line) },
		ReadHome: t.readHome,
		CheckKey: func(ctx context.Context) error {
			_, err := a.checkKey(ctx, t.config.Amp.URL, t.key)
			return err
		},
	}
	if t.servers != nil {
		o.MCPConfig = []string{serversInside}
	}
	if a.output == config.StreamJSON {
		o.Raw = a.io.Out
	}
	if d := t.config.Timeout; d > 0 {
		// What fetching took is part of it.
		o.Timeout = max(d-a.now().Sub(begun), time.Millisecond)
	}
	out, err := amp.RunTurn(ctx, o)
	if fault.CodeOf(err) == fault.AmpCrashed && out.Exit.Signal == 0 {
		// Builds have many words for a service that does not answer: the service itself tells better.
		why := o.CheckKey(ctx)
		if code := fault.CodeOf(why); code == fault.ServiceUnreachable || code == fault.KeyRejected {
			err = why
		}
	}
	if fault.CodeOf(err) == fault.SandboxUnavailable && t.policy.Tier != sandbox.Tier(t.config.Sandbox.Tier) {
		err = fault.New(fault.SandboxUnavailable, "the session was begun in a sandbox of the tier %s: %w", t.policy.Tier, err).
			Hint("--sandbox %s goes on with what this machine has", t.config.Sandbox.Tier)
	}
	if out.Tier != "" {
		if err := s.Update(func(r *session.Record) { r.Policy = heldBy(r.Policy, out.Tier) }); err != nil {
			a.warn("%v", err)
		}
	}
	t.noteOutcome(&note, out, err)
	if endErr := s.EndTurn(note); endErr != nil {
		a.warn("%v", endErr)
	}
	return out, err
}

func (t *turn) noteOutcome(note *session.Turn, out amp.Outcome, err error) {
	note.Status = session.Status(amp.StatusOf(err))
	note.NumTurns, note.DurationMS = out.NumTurns, out.Duration.Milliseconds()
	if err != nil {
		note.ErrorCode, note.Error = string(fault.CodeOf(err)), t.app.redactor.String(err.Error())
	}
	r := t.app.report
	if out.ThreadID != "" {
		r.ThreadID = out.ThreadID
	}
	r.Result, r.NumTurns, r.DurationMS = out.Result, out.NumTurns, out.Duration.Milliseconds()
	if out.Usage != nil {
		r.Usage = out.Usage
	}
	r.Sandbox.Tier = out.Tier
	r.Sandbox.Denials = append(r.Sandbox.Denials, out.Denials...)
}

// maxHomeFile bounds what is read of the sandbox's home: what is in there Amp's tools may have written.
const maxHomeFile = 1 << 20

// readHome reads a file that Amp wrote in its home: the newest, where several tiers have had one. A link there leads nowhere else.
func (t *turn) readHome(rel string) ([]byte, error) {
	dirs := t.policy.HomeChanges()
	if t.policy.Tier == sandbox.Off {
		dirs = []string{t.dirs.Home}
	}
	var newest time.Time
	var data []byte
	err := fs.ErrNotExist
	for _, dir := range dirs {
		text, written, readErr := readIn(dir, rel)
		switch {
		case errors.Is(readErr, fs.ErrNotExist):
		case readErr != nil:
			return nil, readErr
		case err != nil || written.After(newest):
			data, newest, err = text, written, nil
		}
	}
	return data, err
}

// readIn reads a file below a directory and tells when it was written.
func readIn(dir, rel string) ([]byte, time.Time, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer root.Close()
	// Not blocking: it could be a pipe by now.
	f, err := root.OpenFile(rel, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, time.Time{}, fmt.Errorf("%s: not a file", rel)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxHomeFile))
	return data, info.ModTime(), err
}

// answer prints the last message and writes it to the file of -O.
func (t *turn) answer(text string, file *outputFile) error {
	a := t.app
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	var err error
	// The file comes first: whoever reads standard output may have gone, and a write to it ends us then.
	if file != nil {
		if werr := file.write(a.redactor.String(text)); werr != nil {
			err = fault.New(fault.Internal, "--output-file: %w", werr)
		}
	}
	if a.output == config.Text {
		if _, werr := io.WriteString(a.io.Out, text); werr != nil {
			err = errors.Join(err, fmt.Errorf("write the answer: %w", werr))
		}
	}
	return err
}
