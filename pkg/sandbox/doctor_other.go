//go:build !linux

package sandbox

import (
	"context"
	"runtime"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// kernel is what a tier rests on. Where there is none yet, there is nothing to tell.
type kernel struct{}

func readKernel(string, string) kernel { return kernel{} }

func (kernel) basis(*Policy) string { return runtime.GOOS }
func (kernel) details() []string    { return []string{runtime.GOOS + "/" + runtime.GOARCH} }

func (kernel) explain(_ context.Context, _ *Policy, _ []string, err error) check.Result {
	return check.Failed(err)
}

func (k kernel) weaker(context.Context, *Policy, []string) check.Result {
	r := check.Warned("seatbelt (sandbox-exec), which holds less than Linux's sandbox and was not yet run on macOS by us").
		Hint("on a Mac, scripts/mactest checks what it promises")
	for _, w := range Weaknesses(Seatbelt, 0) {
		r.Details = append(r.Details, "weaker: "+w.Text)
	}
	return r
}
