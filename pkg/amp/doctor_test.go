//go:build !windows

package amp_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// The way is gone without the key.
func TestRouteCarriesNoKey(t *testing.T) {
	s := amptest.StartT(t)
	for _, o := range check.Run(t.Context(), amp.CheckRoute(&amp.Route{Base: s.URL()}), check.Limits{Each: time.Minute, All: time.Minute}) {
		if o.Status != check.OK && o.ID != "service.websocket" { // whether those pass, no one without a thread can tell
			t.Errorf("%s: %+v", o.ID, o.Result)
		}
	}
	for _, r := range s.Requests() {
		if got := r.Header.Get("Authorization"); strings.TrimSpace(strings.TrimPrefix(got, "Bearer")) != "" {
			t.Errorf("asked with %q", got)
		}
	}
}

// held starts commands without a sandbox: what is tested is what becomes of their output.
func held(dir string) amp.Launcher {
	return amp.InPolicy(&sandbox.Policy{Tier: sandbox.Off, Workspace: dir})
}

func TestCheckInside(t *testing.T) {
	for said, want := range map[string]struct {
		status  check.Status
		summary string
	}{
		`echo '{"dns":{"Status":"ok","Summary":"found"}}'`:          {check.OK, "found"},
		`echo '{"dns":{"Status":"fail","Summary":"no such name"}}'`: {check.Fail, "no such name"},
		`echo oops >&2; exit 7`:                                     {check.Fail, "status 7: oops"},
		`true`:                                                      {check.Fail, "status 0"},
	} {
		command := &sandbox.Command{Args: []string{"/bin/sh", "-c", said}}
		r := amp.CheckInside(held(t.TempDir()), command, "http://s.example/")[0].Run(t.Context())
		if r.Status != want.status || !strings.Contains(r.Summary, want.summary) {
			t.Errorf("%s: %+v", said, r)
		}
		if r.Status == check.Fail && strings.Contains(said, "dns") && !strings.Contains(strings.Join(r.Remedy, "\n"), "its sandbox does not") {
			t.Errorf("not told apart from the host: %q", r.Remedy)
		}
	}
	r := amp.CheckInside(held(t.TempDir()), &sandbox.Command{Args: []string{"/nonexistent"}}, "x")[0].Run(t.Context())
	if r.Status != check.Fail || !strings.Contains(r.Summary, "/nonexistent") {
		t.Errorf("no program: %+v", r)
	}
}

// What RouteInside prints is what CheckInside reads; it ends with the step that failed.
func TestRouteInside(t *testing.T) {
	s := amptest.StartT(t)
	for _, want := range []int{6, 3} {
		var out strings.Builder
		if err := amp.RouteInside(t.Context(), s.URL(), "", &out); err != nil {
			t.Fatal(err)
		}
		var went map[string]check.Result
		if err := json.Unmarshal([]byte(out.String()), &went); err != nil || len(went) != want {
			t.Errorf("%d steps, want %d: %s, %v", len(went), want, out.String(), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVersion(t *testing.T) {
	dir := t.TempDir()
	p := &amp.Prober{Launcher: held(dir), Env: []string{"PATH=" + os.Getenv("PATH"), "AMP_API_KEY=secret"}}
	ask := func(ctx context.Context, script string) (string, error) {
		path := filepath.Join(dir, "amp")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		return p.Version(ctx, path)
	}
	got, err := ask(t.Context(), `[ "$1$AMP_API_KEY" = --version ] && printf '\033[1m0.0.12-gabc\033[0m (released today)\n'`)
	if err != nil || got != "0.0.12-gabc" {
		t.Errorf("%q, %v", got, err)
	}
	for script, want := range map[string]string{
		"echo GLIBC >&2; exit 3": "status 3: GLIBC",
		"echo hello":             "says no version",
		"kill -SEGV $$":          "status 139",
	} {
		if _, err := ask(t.Context(), script); fault.CodeOf(err) != fault.AmpCrashed || !strings.Contains(err.Error(), want) || len(fault.HintsOf(err)) == 0 {
			t.Errorf("%s: %v", script, err)
		}
	}
}
