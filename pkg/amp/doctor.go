package amp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// CheckHostID is the check of the service that others need: that it answers.
const CheckHostID = "service.host"

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

// RouteInside is the part of CheckInside that runs in the sandbox, in a process of its own: it goes the
// way to the service, with its thread as Route has it, and prints how each step went, up to the first that failed. Its error is that of printing.
func RouteInside(ctx context.Context, base, thread string, w io.Writer) error {
	r := &Route{Base: base, Thread: thread}
	went := map[string]check.Result{}
	for _, s := range steps() {
		result := r.timed(ctx, s)
		went[s.name] = result
		if result.Status == check.Fail {
			break
		}
	}
	return json.NewEncoder(w).Encode(went)
}

// CheckInside is a check for each step from a program in the sandbox to the service at base. The command
// has to end in RouteInside.
func CheckInside(launcher Launcher, command *sandbox.Command, base string, needs ...string) []check.Check {
	const group = "service, from the sandbox"
	var went map[string]check.Result
	first := check.Check{
		ID: "inside.dns", Group: group, Title: "name", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			var failed check.Result
			if went, failed = routeFromInside(ctx, launcher, command, base); went == nil {
				return failed
			}
			return went["dns"]
		},
	}
	checks := []check.Check{first}
	last := first.ID
	for _, s := range steps()[2:] {
		id := "inside." + s.name
		checks = append(checks, check.Check{
			ID: id, Group: group, Title: s.title, Needs: []string{last},
			Run: func(context.Context) check.Result { return went[s.name] },
		})
		last = id
	}
	return checks
}

// routeFromInside runs the command in the sandbox; went is nil where nothing came of it.
func routeFromInside(ctx context.Context, launcher Launcher, command *sandbox.Command, base string) (went map[string]check.Result, failed check.Result) {
	var out, errs limited
	c := *command
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(""), &out, &errs
	process, err := launcher.Start(ctx, &c)
	if err != nil {
		return nil, check.Failed(fmt.Errorf("start a program in the sandbox: %w", err))
	}
	status, err := process.Wait()
	if err == nil && ctx.Err() != nil {
		err = fault.New(fault.ServiceUnreachable, "no answer from %s in time", base)
	}
	if err != nil {
		return nil, check.Failed(err)
	}
	if json.NewDecoder(strings.NewReader(out.String())).Decode(&went) != nil || len(went) == 0 {
		return nil, check.Failed(fmt.Errorf("the program that asks from the sandbox ended with status %d: %s",
			status.Code, lastLine(strings.TrimSpace(errs.String()))))
	}
	for name, r := range went {
		if r.Status == check.Fail {
			went[name] = keptIn(r, process.Denials())
		}
	}
	return went, check.Result{}
}

// keptIn is a failure inside of what worked on the host: the advice for the host does not help.
func keptIn(r check.Result, denials []sandbox.Denial) check.Result {
	r.Remedy = nil
	for _, d := range denials {
		r.Details = append(r.Details, strings.TrimRight(fmt.Sprintf("the sandbox refused %s: %s", d.Target, d.Reason), ": "))
		r = r.Hint(fmt.Sprintf("the sandbox is in the way: allow it with `--allow-host %s`", d.Target))
	}
	if len(r.Remedy) == 0 {
		r = r.Hint("this machine reaches it and its sandbox does not: please report that as a bug of sesame, with `sesame doctor --json`")
	}
	return r
}

// CheckStarts tells whether the build at path starts, by its --version. A probe of the build takes the version from there.
func (p *Prober) CheckStarts(path string, needs ...string) check.Check {
	var once sync.Once
	var version string
	var err error
	p.heardOf, p.heard = path, func(ctx context.Context) (string, error) {
		once.Do(func() { version, err = p.Version(ctx, path) })
		return version, err
	}
	return check.Check{
		ID: "amp.starts", Group: "amp", Title: "starts in the sandbox", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			version, err := p.heard(ctx)
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
	switch {
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
