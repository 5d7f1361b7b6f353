package amp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

const serviceGroup = "service"

// CheckHostID is the check of the service that others need.
const CheckHostID = "service.host"

// reachTimeout is less than a check has, so that the question ends with an answer of its own.
const reachTimeout = 4 * time.Second

// Reach asks the service at base something without a key, and takes its refusal for the
// sign of life that it is. An error is a fault.ServiceUnreachable, or Canceled.
func Reach(ctx context.Context, base string) error {
	// A connection of its own: one that is kept from another check would prove nothing.
	var transport *http.Transport
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		transport = standard.Clone()
	} else {
		transport = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: reachTimeout, Transport: transport}
	_, err := NewService(base, "", client).UserInfo(ctx)
	if fault.CodeOf(err) == fault.KeyRejected {
		return nil
	}
	return err
}

// CheckHost tells whether the service at base answers this machine.
func CheckHost(base string, needs ...string) check.Check {
	return check.Check{
		ID: CheckHostID, Group: serviceGroup, Title: "from this machine", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			if err := Reach(ctx, base); err != nil {
				return check.Failed(err)
			}
			return check.Passed("%s answers", base)
		},
	}
}

// CheckKey tells whether the service accepts the key; ask says for whom.
func CheckKey(ask func(context.Context) (who string, err error), needs ...string) check.Check {
	return check.Check{
		ID: "key.accepted", Group: "key", Title: "accepted", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			who, err := ask(ctx)
			if err != nil {
				return check.Failed(err)
			}
			return check.Passed("by the service, for %s", who)
		},
	}
}

// insideAnswer is what ReachInside prints.
type insideAnswer struct {
	Reached bool   `json:"reached"`
	Error   string `json:"error,omitempty"`
}

// ReachInside is the part of CheckInside that runs in the sandbox, in a process of its
// own: it prints how Reach went. Its error is that of printing.
func ReachInside(ctx context.Context, base string, w io.Writer) error {
	answer := insideAnswer{Reached: true}
	if err := Reach(ctx, base); err != nil {
		answer = insideAnswer{Error: err.Error()}
	}
	return json.NewEncoder(w).Encode(answer)
}

// CheckInside tells whether the service at base answers a program in the sandbox.
// The command has to end in ReachInside.
func CheckInside(launcher Launcher, command *sandbox.Command, base string, needs ...string) check.Check {
	return check.Check{
		ID: "service.inside", Group: serviceGroup, Title: "from the sandbox", Needs: needs,
		Run: func(ctx context.Context) check.Result { return reachFromInside(ctx, launcher, command, base) },
	}
}

func reachFromInside(ctx context.Context, launcher Launcher, command *sandbox.Command, base string) check.Result {
	var out, errs limited
	c := *command
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(""), &out, &errs
	process, err := launcher.Start(ctx, &c)
	if err != nil {
		return check.Failed(fmt.Errorf("start a program in the sandbox: %w", err))
	}
	status, err := process.Wait()
	if err == nil && ctx.Err() != nil {
		err = fault.New(fault.ServiceUnreachable, "no answer from %s in time", base)
	}
	if err != nil {
		return check.Failed(err)
	}
	var answer insideAnswer
	if json.NewDecoder(strings.NewReader(out.String())).Decode(&answer) != nil {
		return check.Failed(fmt.Errorf("the program that asks from the sandbox ended with status %d: %s",
			status.Code, lastLine(strings.TrimSpace(errs.String()))))
	}
	if answer.Reached {
		return check.Passed("%s answers", base)
	}
	r := check.Failed(fault.New(fault.ServiceUnreachable, "%s", answer.Error))
	for _, d := range process.Denials() {
		r.Details = append(r.Details, strings.TrimRight(fmt.Sprintf("the sandbox refused %s: %s", d.Target, d.Reason), ": "))
		r = r.Hint(fmt.Sprintf("the sandbox is in the way: allow it with `--allow-host %s`", d.Target))
	}
	if len(r.Remedy) == 0 {
		r = r.Hint("this machine reaches it and its sandbox does not: please report that as a bug of sesame, with `sesame doctor --json`")
	}
	return r
}

// CheckStarts tells whether the build at path starts, by its --version.
func (p *Prober) CheckStarts(path string, needs ...string) check.Check {
	return check.Check{
		ID: "amp.starts", Group: "amp", Title: "starts in the sandbox", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			version, err := p.Version(ctx, path)
			if err != nil {
				return check.Failed(err)
			}
			return check.Passed("and says that it is %s", version)
		},
	}
}

// Version starts the build at path only to hear its version. The errors are those of
// the launcher, and amp_crashed where the build dies, hangs or says something else.
func (p *Prober) Version(ctx context.Context, path string) (string, error) {
	ran, err := p.run(ctx, path, "--version")
	var refused *sandbox.NoCommandError
	switch {
	case errors.As(err, &refused):
		return "", fault.New(fault.AmpCrashed, "%s cannot be started in the sandbox: %w", path, refused).
			Hint("a script needs its interpreter (node) in a place that the sandbox shows: add it with `--allow-read`")
	case err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return "", fault.New(fault.AmpCrashed, "%s: %s --version did not end in time", crashed, path).
			Hint("fetch Amp again with `sesame amp install`, or try another with --amp-version")
	case err != nil:
		return "", err
	}
	if ran.status.Code == 0 && !ran.timedOut {
		if version := versionText().FindString(ansi().ReplaceAllString(ran.out, "")); version != "" {
			return version, nil
		}
	}
	what := fmt.Sprintf("ended with status %d", ran.status.Code)
	switch {
	case ran.timedOut:
		what = "did not end"
	case ran.status.Code == 0:
		what = "says no version"
	}
	e := fault.New(fault.AmpCrashed, "%s: %s --version %s", crashed, path, what)
	if said := strings.TrimSpace(ansi().ReplaceAllString(ran.err, "")); said != "" {
		e.Message += ": " + lastLine(said)
	}
	return "", e.Hint("fetch Amp again with `sesame amp install`, or try another with --amp-version")
}
