package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

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
		return nil, cannotStart(c.Args[0], err)
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

// cannotStart is what Cmd.Start says of a program, as the other tiers say it.
func cannotStart(name string, err error) error {
	var path *fs.PathError
	switch {
	case errors.As(err, &path) && path.Op == "chdir":
		return fault.New(fault.Usage, "start %s: %w", name, err)
	case path != nil:
		err = &exec.Error{Name: name, Err: path.Err}
	}
	code := 126
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		code = 127
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("start %s: %w", name, err)
	}
	return &NoCommandError{Code: code, Why: err.Error(), Tier: Off}
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
