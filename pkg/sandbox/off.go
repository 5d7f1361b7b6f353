package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// startOff starts the command with all the user's rights. The policy's files are there all the same, in a
// temporary directory: without its settings Amp would not know deep mode, and update itself.
func startOff(ctx context.Context, p *Policy, c *Command) (*Process, error) {
	args, env, remove, err := filesOutside(p.Files, c)
	if err != nil {
		return nil, fmt.Errorf("make the files of the turn: %w", err)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = c.Dir, env
	if cmd.Dir == "" {
		cmd.Dir = p.Workspace
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	if err := cmd.Start(); err != nil {
		remove()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start the command: %w", ctx.Err())
		}
		return nil, fault.New(fault.Usage, "cannot start %s: %w", args[0], err)
	}
	return &Process{
		tier: Off,
		wait: func() (Status, error) {
			defer remove()
			return status(cmd.Wait())
		},
		signal:  cmd.Process.Signal,
		denials: func() []Denial { return nil },
	}, nil
}

// filesOutside makes the files for a command that has no place of its own, and names them to it.
func filesOutside(files []File, c *Command) (args, env []string, remove func(), err error) {
	if len(files) == 0 {
		return c.Args, c.Env, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "sesame-")
	if err != nil {
		return nil, nil, nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) } // what is left is in the user's own temporary directory
	if err := writeFiles(dir, files); err != nil {
		remove()
		return nil, nil, nil, err
	}
	paths := strings.NewReplacer(PrivateDir+"/", dir+string(filepath.Separator))
	return replaced(c.Args, paths), replaced(c.Env, paths), remove, nil
}
