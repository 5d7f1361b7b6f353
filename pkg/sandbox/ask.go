package sandbox

import (
	"bytes"
	"context"
	"strings"
)

// answer is what a program in the sandbox printed, and how it ended.
type answer struct {
	out  []byte
	errs string
	code int
	tier Tier
}

// ask runs a program of a check in a sandbox of the policy, with in as its input, to its end. Nothing of it lasts, and
// what it is refused is told to nobody: that is what it is to find out.
func ask(ctx context.Context, policy *Policy, command *Command, in []byte) (answer, error) {
	var out, errs bytes.Buffer
	p, c := *policy, *command
	p.HomeState, p.GuardState, p.Notice, p.Denied, p.own = "", "", nil, nil, true
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &out, &errs
	process, err := Start(ctx, &p, &c)
	if err != nil {
		return answer{}, err
	}
	status, err := process.Wait()
	return answer{out.Bytes(), strings.TrimSpace(errs.String()), status.Code, process.Tier()}, err
}
