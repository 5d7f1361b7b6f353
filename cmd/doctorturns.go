package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// shortPrompt costs as little as a turn can.
const shortPrompt = "Reply with the single word ready. Use no tools."

// turnChecks ask each mode that this Amp has for one short turn, all in the way of `sesame run`.
func (p *patient) turnChecks() []check.Check {
	var checks []check.Check
	for _, m := range amp.Modes() {
		if m.Name != "free" { // no build takes it for a turn
			checks = append(checks, amp.CheckTurn(m.Name, func(ctx context.Context) error { return p.shortTurn(ctx, m.Name) },
				"modes."+m.Name, "key.accepted", "inside.host"))
		}
	}
	return checks
}

// shortTurn runs this program for one turn, in a workspace and with sessions that are forgotten.
func (p *patient) shortTurn(ctx context.Context, mode string) error {
	dir, err := os.MkdirTemp("", "sesame-probe-")
	if err != nil {
		return err
	}
	defer removeProbe(dir)
	workspace := filepath.Join(dir, "work")
	if err := os.Mkdir(workspace, 0o700); err != nil {
		return err
	}
	env := maps.Clone(p.app.env)
	env["AMP_API_KEY"] = p.key.Reveal()
	env["XDG_STATE_HOME"] = filepath.Join(dir, "state")
	args := []string{"run", "-q", "-o", "json", "-m", mode, "-C", workspace}
	if path := p.cfg.Amp.Path; path != "" {
		args = append(args, "--amp-path", path)
	}
	for _, rule := range p.cfg.Sandbox.AllowHosts {
		args = append(args, "--allow-host", rule)
	}
	cmd := exec.CommandContext(ctx, p.program, append(args, "--", shortPrompt)...)
	cmd.Env, cmd.Dir = env.List(), workspace
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	runErr := cmd.Run()
	var report Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		return fmt.Errorf("the turn ended without a report: %v: %s", runErr, bytes.TrimSpace(errs.Bytes())) //nolint:errorlint // both are told
	}
	if report.Error != nil {
		return fault.New(report.Error.Code, "%s", report.Error.Message)
	}
	return nil
}

// removeProbe also removes what overlayfs leaves without permissions.
func removeProbe(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
