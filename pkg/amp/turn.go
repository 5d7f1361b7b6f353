package amp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

const (
	// DefaultGrace is how long Amp has to end by itself after a signal.
	DefaultGrace = 5 * time.Second
	// DefaultLinger is how long Amp may go on after its result, to upload its thread.
	DefaultLinger = 30 * time.Second

	killWait     = 5 * time.Second        // for a killed process to be gone
	pollInterval = 250 * time.Millisecond // between looks for the thread of a plain turn
	maxAttempts  = 4                      // starts of a turn that the build refuses before it began
)

var errTimeout = errors.New("the time is up")

// RedactingWriter passes on what is written to it without keys. Flush passes on
// what it holds back in case it is the beginning of a key.
type RedactingWriter interface {
	io.Writer
	Flush() error
}

// TurnOptions say what a turn is. Path, Launcher, Caps, Prompt, ServiceURL and
// Key must be there.
type TurnOptions struct {
	Launcher Launcher
	Path     string        // Amp's executable, as it is seen inside the sandbox
	Caps     *Capabilities // not changed; see Outcome.Learned
	Prompt   string
	Mode     ModeChoice
	ThreadID string // "" begins a thread

	Thinking     bool
	Labels       []string
	SettingsFile string   // of SessionSettings, as it is seen inside the sandbox
	MCPConfig    []string // each JSON or a file
	Args         []string // handed to Amp as they are

	Dir        string
	Env        []string // to which the driver adds Amp's own variables
	ServiceURL string
	Key        string // or what stands for it inside the sandbox

	Timeout time.Duration // of the whole turn; 0 is none
	Grace   time.Duration // DefaultGrace when zero
	Linger  time.Duration // DefaultLinger when zero

	// EventsFile and StderrFile are made with mode 0600 and get Amp's stdout and stderr.
	EventsFile, StderrFile string
	// Raw gets Amp's JSON lines as they come, and sesame's own; nil for none.
	Raw io.Writer
	// Redact stands before everything that leaves Amp: files, Raw, events and Outcome. Nil changes nothing.
	Redact func(io.Writer) RedactingWriter
	// Observer sees the events; nil for none.
	Observer Observer
	// Thread is told the thread's id the moment it is known, so that it can be
	// stored before anything else happens.
	Thread func(id string) error
	// Notice gets lines for people; nil for none.
	Notice func(line string)
	// ReadHome reads a file of Amp's home by its relative path. Turns without a
	// JSON stream need it to learn the thread's id. It must not follow links out of that home.
	ReadHome func(rel string) ([]byte, error)
	// CheckKey asks the service itself about the key after Amp said it is not
	// valid, which some builds say of a service in trouble. Nil takes Amp's word.
	CheckKey func(ctx context.Context) error
}

// Outcome is how a turn went. It is filled in as far as the turn came, also
// beside an error.
type Outcome struct {
	ThreadID string
	// Result is the last assistant message, also where the turn failed after it.
	Result string
	// IsError tells that Amp itself reported an error for the turn.
	IsError  bool
	NumTurns int
	// Duration is Amp's own count, or where it gave none the time it ran.
	Duration time.Duration
	// Usage is the sum over the assistant messages of the turn, each model call
	// being one; nil where none carried any. Amp gives no total, and no usage of subagents.
	Usage   *Usage
	Exit    sandbox.Status
	Tier    sandbox.Tier
	Denials []sandbox.Denial
	// Stderr are the last lines that Amp wrote there.
	Stderr []string
	// Plain tells that the build gave no JSON stream for this turn.
	Plain bool
	// Learned are better capabilities than those given, for Prober.Remember; nil if nothing was learned.
	Learned *Capabilities
	// OutputErr is the first failure to write to EventsFile, StderrFile or Raw, or
	// to store the thread. The turn goes on without.
	OutputErr error
}

// StatusOf is the word for how a turn ended, from the error of RunTurn:
// "success", "error", "timeout", "canceled" or "crashed".
func StatusOf(err error) string {
	switch fault.CodeOf(err) {
	case "":
		return "success"
	case fault.Timeout:
		return "timeout"
	case fault.Canceled:
		return "canceled"
	case fault.AmpCrashed:
		return "crashed"
	default:
		return "error"
	}
}

// RunTurn runs one turn to its end and says honestly how that was. Ending ctx
// cancels it: Amp is asked with SIGTERM to end and killed with all it started
// after the grace. Errors are of the codes turn_failed, amp_crashed, key_rejected,
// service_unreachable, mode_unavailable, session_not_found, timeout, canceled, usage,
// and those of the launcher.
func RunTurn(ctx context.Context, o TurnOptions) (Outcome, error) {
	if err := o.check(); err != nil {
		return Outcome{}, err
	}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, errTimeout)
		defer cancel()
	}
	logs, err := openLogs(&o)
	if err != nil {
		return Outcome{}, err
	}
	t := &turn{o: &o, caps: o.Caps, logs: logs}
	t.stopped = func() bool { return ctx.Err() != nil }
	t.out.ThreadID = o.ThreadID
	begun := time.Now()
	err = t.run(ctx)
	t.out.OutputErr = errors.Join(t.out.OutputErr, logs.close())
	if t.out.Duration == 0 {
		t.out.Duration = time.Since(begun)
	}
	return t.out, err
}

func (o *TurnOptions) check() error {
	if err := CheckPrompt(o.Prompt); err != nil {
		return err
	}
	switch {
	case o.ThreadID != "" && !ValidThread(o.ThreadID):
		return fault.New(fault.SessionNotFound, "%q is not an Amp thread", o.ThreadID)
	case o.Key == "":
		// Without a key every build waits for a login that nobody answers.
		return fault.New(fault.KeyMissing, "AMP_API_KEY not configured").
			Hint("set AMP_API_KEY, or store a key with sesame login")
	case o.Launcher == nil || o.Caps == nil || o.Path == "" || o.ServiceURL == "":
		return fault.New(fault.Internal, "a turn needs a launcher, a build and a service")
	}
	return nil
}

// turn is a turn under way. The decoder's goroutine writes out and result; run
// reads them when that goroutine is known to be done.
type turn struct {
	o    *TurnOptions
	caps *Capabilities
	logs *logs

	out    Outcome
	result *Result
	ended  chan struct{} // closed when the result is there
	plain  bool          // the build refused the stream in this turn

	// endedBefore tells that the result came before the turn was stopped.
	endedBefore bool
	stopped     func() bool
}

func (t *turn) run(ctx context.Context) error {
	shown := map[string]bool{}
	for attempt := 1; ; attempt++ {
		a := t.o.arguments(t.caps, t.plain)
		for _, line := range a.notices {
			if !shown[line] && t.o.Notice != nil {
				t.o.Notice(line)
			}
			shown[line] = true
		}
		text, err := t.start(ctx, a)
		if err != nil {
			return err
		}
		if attempt < maxAttempts && ctx.Err() == nil && t.learn() {
			continue
		}
		t.out.Plain = !a.stream
		if t.out.Plain {
			t.plainResult(text)
		}
		return t.judge(ctx)
	}
}

// start starts Amp once and follows it to its end. The text is the whole stdout
// of a plain turn.
func (t *turn) start(ctx context.Context, a arguments) (string, error) {
	t.ended = make(chan struct{})
	tail := &stderrTail{}
	stderr := t.logs.stderr(tail)
	var stdout *output
	var text *answer
	var before lastThreads
	if a.stream {
		stdout = t.logs.events(&Decoder{Event: t.event})
	} else {
		text = &answer{}
		stdout = t.logs.text(text)
		before = t.lastThreads()
	}
	// The launcher's context outlives ours by the grace.
	inner, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	proc, err := t.o.Launcher.Start(inner, &sandbox.Command{
		Args:   a.list,
		Dir:    t.o.Dir,
		Env:    t.o.environment(t.caps),
		Stdin:  strings.NewReader(t.o.Prompt),
		Stdout: stdout,
		Stderr: stderr,
	})
	if err != nil {
		return "", fmt.Errorf("start amp: %w", notStarted(a.list[0], err))
	}
	look := func() {
		if !a.stream && t.out.ThreadID == "" {
			t.thread(t.lastThreads().changed(before))
		}
	}
	status, err := t.supervise(ctx, proc, kill, look)
	// A process that could not be killed may still hold the streams.
	t.out.OutputErr = errors.Join(t.out.OutputErr, stdout.finish(), stderr.finish())
	t.out.Exit, t.out.Tier, t.out.Denials, t.out.Stderr = status, proc.Tier(), proc.Denials(), tail.Lines()
	if err != nil && ctx.Err() == nil && t.result == nil {
		return "", err
	}
	look()
	return text.String(), nil
}

// supervise waits for the end of the process, and brings it about when ctx ends
// or when Amp stays on after its result.
func (t *turn) supervise(ctx context.Context, proc *sandbox.Process, kill func(), look func()) (sandbox.Status, error) {
	type end struct {
		status sandbox.Status
		err    error
	}
	ends := make(chan end, 1)
	go func() {
		status, err := proc.Wait()
		ends <- end{status, err}
	}()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	var deadline <-chan time.Time
	canceled, ended, killed := ctx.Done(), t.ended, false
	stop := func() {
		canceled, ended = nil, nil
		wait := t.o.Grace
		if wait <= 0 {
			wait = DefaultGrace
		}
		if proc.Signal(terminate) != nil {
			wait = 0
		}
		deadline = time.After(wait)
	}
	var lingering <-chan time.Time
	for {
		select {
		case e := <-ends:
			return e.status, e.err
		case <-poll.C:
			look()
		case <-canceled:
			stop()
		case <-ended:
			ended = nil
			linger := t.o.Linger
			if linger <= 0 {
				linger = DefaultLinger
			}
			lingering = time.After(linger)
		case <-lingering:
			lingering = nil
			if canceled != nil {
				stop()
			}
		case <-deadline:
			if killed {
				return sandbox.Status{Code: -1}, errors.New("amp does not end, not even when killed")
			}
			killed = true
			kill()
			deadline = time.After(killWait)
		}
	}
}

// waitFor waits for the process; once ctx has ended, which kills it, for at most the delay.
func waitFor(ctx context.Context, proc *sandbox.Process, delay time.Duration) (sandbox.Status, error) {
	type end struct {
		status sandbox.Status
		err    error
	}
	ends := make(chan end, 1)
	go func() {
		status, err := proc.Wait()
		ends <- end{status, err}
	}()
	select {
	case e := <-ends:
		return e.status, e.err
	case <-ctx.Done():
	}
	select {
	case e := <-ends:
		return e.status, e.err
	case <-time.After(delay):
		return sandbox.Status{Code: -1}, errors.New("amp does not end, not even when killed")
	}
}

// event takes what the decoder found.
func (t *turn) event(e Event) {
	switch e := e.(type) {
	case *Init:
		t.thread(e.ThreadID)
	case *User:
		t.thread(e.ThreadID)
	case *Assistant:
		t.thread(e.ThreadID)
		t.assistant(e)
	case *Result:
		t.thread(e.ThreadID)
		if t.result == nil {
			close(t.ended)
			t.endedBefore = !t.stopped()
		}
		t.result = e
	case *Unknown:
		t.thread(e.ThreadID)
	}
	if t.o.Observer != nil {
		t.o.Observer.Event(e)
	}
}

func (t *turn) assistant(e *Assistant) {
	if e.Usage != nil {
		if t.out.Usage == nil {
			t.out.Usage = &Usage{}
		}
		t.out.Usage.add(e.Usage)
	}
	if e.Text != "" && !e.Subagent {
		t.out.Result = e.Text
	}
}

// thread notes the id of a new thread, once.
func (t *turn) thread(id string) {
	if id == "" || t.out.ThreadID != "" {
		return
	}
	t.out.ThreadID = id
	if t.o.Thread != nil {
		if err := t.o.Thread(id); err != nil {
			t.out.OutputErr = errors.Join(t.out.OutputErr, err)
		}
	}
}

// learn tells whether the build refused the way it was started before anything
// began, and what was learned from that makes another start worth while.
func (t *turn) learn() bool {
	if t.result != nil || t.out.Exit.Code == 0 || t.out.Exit.Signal != 0 {
		return false
	}
	said := strings.Join(t.out.Stderr, "\n")
	next := *t.caps
	if m := streamRefused().FindStringSubmatch(said); m != nil && !t.plain {
		t.plain = true
		if t.o.ThreadID == "" && !slices.Contains(next.StreamRefused, m[1]) {
			next.StreamRefused = append(slices.Clone(next.StreamRefused), m[1])
		}
	} else if m := unknownOption().FindStringSubmatch(said); m != nil && t.ours(m[1]) {
		next.FlagsRefused = append(slices.Clone(next.FlagsRefused), m[1])
	} else {
		return false
	}
	t.caps, t.out.Learned = &next, &next
	return true
}

// ours tells whether the option came from the driver and not from the user.
func (t *turn) ours(option string) bool {
	for _, arg := range t.o.Args {
		name, _, _ := strings.Cut(arg, "=")
		if name == option {
			return false
		}
	}
	known := []string{optAllowAll, optNoArchive, optSettings, optLabel, optMCPConfig, optThinking, optStream, optMode}
	return slices.Contains(known, option) && !t.caps.refused(option)
}
