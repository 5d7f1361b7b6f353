package amp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/config/regex"
)

// crashed are the guide's words, so that a search finds them.
const crashed = "Amp process exited unexpectedly"

const keyCheckTimeout = 15 * time.Second

// What builds say on stderr, seen in builds of January to September 2026.
var (
	streamRefused = regex.Lazy(`Stream JSON mode is not permitted with '([^']*)' mode`)
	unknownOption = regex.Lazy(`unknown option '(--[\w-]+)`)
	modeRefused   = regex.Lazy(`Execute mode is not permitted (?:with --mode|for threads in) '([^']*)'|option '-m, --mode <value>' argument '([^']*)' is invalid`)
	keyRefused    = regex.Lazy(`Invalid or missing API key|Not logged in\. Run|Access token expired|Session expired and could not be refreshed`)
	noService     = regex.Lazy(`Couldn't connect to the Amp server|Cannot reach Amp servers|Network timeout\. Check`)
	serviceFailed = regex.Lazy(`getUserInfo error:|Amp server returned an error`)
	noThread      = regex.Lazy(`Thread \S*T-[0-9A-Za-z-]+ does not exist|Invalid thread ID`)
	threadRefused = regex.Lazy(`This thread is archived and cannot be continued|Cannot resume thread created by another user`)
	promptRefused = regex.Lazy(`(?:Stdin input too large|Execute mode input is too large)[^\n]*`)
	userCanceled  = regex.Lazy(`^User cancelled`)
	statusBefore  = regex.Lazy(`^\d{3} \{`)
	outOfCredit   = regex.Lazy(`(?i)\b(?:credits?|balance|payment|billing|quota|402)\b`)
)

// judge turns the end of Amp into the end of the turn.
func (t *turn) judge(ctx context.Context) error {
	r := t.result
	if r != nil {
		t.out.IsError, t.out.NumTurns, t.out.Duration = r.IsError, r.NumTurns, r.Duration
		if !r.IsError {
			t.out.Result = r.Text
		}
	}
	// A turn that was stopped did not succeed, whatever Amp makes of the signal;
	// one that ended well just before did.
	if ctx.Err() != nil && (r == nil || r.IsError || !t.endedBefore) {
		return stopped(ctx)
	}
	switch {
	case r == nil:
		return t.noResult(ctx)
	case !r.IsError:
		return nil
	case userCanceled().MatchString(r.Text):
		return fault.New(fault.Canceled, "the turn was canceled")
	}
	return fault.New(fault.TurnFailed, "amp reports an error: %s", providerMessage(r.Text))
}

func failureText(text string) string {
	if text = OneLine(text, tailWidth); text == "" {
		return "it does not say which"
	}
	return text
}

func stopped(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, errTimeout) || errors.Is(cause, context.DeadlineExceeded) {
		return fault.New(fault.Timeout, "the turn did not end in time: %w", cause).
			Hint("allow more with --timeout; sesame continue goes on with what was done")
	}
	return fault.New(fault.Canceled, "the turn was canceled: %w", cause)
}

// noResult explains a process that ended without a result.
func (t *turn) noResult(ctx context.Context) error {
	said := strings.Join(t.out.Stderr, "\n")
	switch {
	case keyRefused().MatchString(said):
		return t.keyRefused(ctx)
	case noService().MatchString(said):
		return fault.New(fault.ServiceUnreachable, "amp cannot reach the service at %s", t.o.ServiceURL).
			Hint("check the network and the service with sesame doctor")
	case serviceFailed().MatchString(said):
		return fault.New(fault.ServiceUnreachable, "the service at %s does not answer amp properly: %s", t.o.ServiceURL, failureText(errorLine(t.out.Stderr))).
			Hint("try again in a moment; sesame doctor shows how the service is")
	case modeRefused().MatchString(said):
		m := modeRefused().FindStringSubmatch(said)
		return unavailable(m[1]+m[2], t.caps)
	case streamRefused().MatchString(said):
		return unavailable(t.o.Mode.AmpMode, t.caps)
	case promptRefused().MatchString(said):
		return fault.New(fault.Usage, "amp takes no prompt of this length: %s", promptRefused().FindString(said)).
			Hint("put the text in a file of the workspace and name the file in the prompt")
	case unknownOption().MatchString(said):
		return fault.New(fault.Usage, "%s has no option %s", t.caps.name(), unknownOption().FindStringSubmatch(said)[1]).
			Hint("what is given with --amp-arg goes to Amp as it is; see its own --help")
	case noThread().MatchString(said) && t.o.ThreadID != "":
		return fault.New(fault.SessionNotFound, "the service has no thread %s", t.o.ThreadID).
			Hint("was it made with another account or service? begin a new session with sesame run")
	case threadRefused().MatchString(said):
		return fault.New(fault.TurnFailed, "amp does not continue the thread: %s", threadRefused().FindString(said)).
			Hint("begin a new session with sesame run")
	}
	if text := serviceRefusal(errorLine(t.out.Stderr)); text != "" && t.out.Exit.Code == 1 {
		return fault.New(fault.TurnFailed, "the service refuses the turn: %s", text)
	}
	return t.crash()
}

// keyRefused finds out whether it is the key: builds to March say so of every
// answer that they cannot use.
func (t *turn) keyRefused(ctx context.Context) error {
	rejected := fault.New(fault.KeyRejected, "the service rejected the key").
		Hint("get a valid one at the service's settings page and store it with sesame login, or set AMP_API_KEY")
	if t.o.CheckKey == nil {
		return rejected
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyCheckTimeout)
	defer cancel()
	err := t.o.CheckKey(ctx)
	if err == nil {
		return fault.New(fault.ServiceUnreachable, "amp says that the key is not valid, but the service accepts it: it did not answer amp properly").
			Hint("try again; if it stays so, see sesame doctor and sesame logs")
	}
	if fault.CodeOf(err) == fault.ServiceUnreachable {
		return err
	}
	return rejected
}

// crash is the error for what cannot be explained: the guide's message, the last
// lines of stderr, and the guide's advice.
func (t *turn) crash() error {
	how := fmt.Sprintf("status %d", t.out.Exit.Code)
	if t.out.Exit.Signal != 0 {
		how = fmt.Sprintf("signal %d, %s", int(t.out.Exit.Signal), t.out.Exit.Signal)
	}
	last := t.out.Stderr[max(0, len(t.out.Stderr)-lastLines):]
	said := "it wrote nothing to stderr"
	if len(last) > 0 {
		said = "its last words: " + OneLine(strings.Join(last, " | "), tailWidth)
	}
	e := fault.New(fault.AmpCrashed, "%s (%s); %s", crashed, how, said)
	if t.o.StderrFile != "" {
		e = e.Hint("see what it wrote to stderr: sesame logs, or %s", t.o.StderrFile)
	} else {
		e = e.Hint("see what it wrote to stderr: sesame logs")
	}
	return e.Hint("check that the key is valid: sesame doctor, or log in at ampcode.com").
		Hint("check that the sandbox has network access to ampcode.com: sesame doctor")
}

// serviceRefusal is the service's own message in the line behind "Error: ", which
// the native builds show as the JSON that came; "" where the line is Amp's own.
func serviceRefusal(line string) string {
	if line == "" || strings.HasPrefix(line, "Unexpected error inside Amp CLI") {
		return ""
	}
	if statusBefore().MatchString(line) {
		_, line, _ = strings.Cut(line, " ")
	}
	if strings.HasPrefix(line, "{") {
		var body struct {
			Message string          `json:"message"`
			Error   json.RawMessage `json:"error"`
		}
		if lenient([]byte(line), &body) == nil {
			return failureText(cmp.Or(body.Message, contentText(body.Error), line))
		}
	}
	if outOfCredit().MatchString(line) {
		return failureText(line)
	}
	return ""
}

// providerMessage shortens `400 {"error":{"message":…}}`, as builds report what
// a model's provider answered, to status and message.
func providerMessage(text string) string {
	if !statusBefore().MatchString(text) {
		return failureText(text)
	}
	status, body, _ := strings.Cut(text, " ")
	if message := serviceRefusal(body); message != "" {
		return status + " " + message
	}
	return failureText(text)
}
