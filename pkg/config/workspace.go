package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// readWorkspace reads the workspace's file, which a stranger may have written: it
// must be a regular file, small, and inside the workspace after all symlinks.
func readWorkspace(workspace string) (data []byte, ok bool, err error) {
	path := filepath.Join(workspace, workspaceFile)
	refuse := func(why string) ([]byte, bool, error) {
		return nil, false, fault.New(fault.Usage, "%s: %s", path, why).
			Hint("remove it, or say what it should say with flags")
	}
	root, err := os.OpenRoot(workspace)
	if err != nil {
		return nil, false, fault.New(fault.Usage, "cannot read the workspace: %w", err)
	}
	defer root.Close()
	if _, err := root.Lstat(workspaceFile); errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	// The root refuses to leave the workspace; not blocking keeps a FIFO from holding us.
	f, err := root.OpenFile(workspaceFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if target, linkErr := root.Readlink(workspaceFile); linkErr == nil {
			return refuse(fmt.Sprintf("a symbolic link to %s, which is not followed out of the workspace", target))
		}
		return refuse(fmt.Sprintf("cannot be read: %v", errors.Unwrap(err)))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return refuse(fmt.Sprintf("cannot be read: %v", err))
	case !info.Mode().IsRegular():
		return refuse("not a regular file")
	}
	data, err = readLimited(f, path)
	return data, err == nil, err
}

// fromWorkspace checks one setting of the workspace's file against what the user
// set: before is the value of the layers below, nil where that is the zero value.
func (e entry) fromWorkspace(before any) error {
	if e.setting.fromWorkspace == nil {
		return fault.New(fault.Usage, "%s: %s: refused: %s", e.origin, e.setting.name, e.setting.why).
			Hint("if you trust it, say it in your own configuration or with a flag")
	}
	if err := e.setting.fromWorkspace(before, e.value); err != nil {
		return fault.New(fault.Usage, "%s: %s: refused: %w", e.origin, e.setting.name, err).
			Hint("if you trust it, say it in your own configuration or with a flag")
	}
	return nil
}

func anyValue(_, _ any) error { return nil }

// tighterTier accepts a tier that holds at least what the user's tier promises.
func tighterTier(users, wanted any) error {
	if atLeast, ok := map[string][]string{
		"namespaces": {"namespaces"},
		"seatbelt":   {"seatbelt", "namespaces"},
		"landlock":   {"landlock", "auto", "namespaces"},
		// auto may end in the weakest tier, but may not be forced to.
		"auto": {"auto", "namespaces"},
		"off":  {"auto", "landlock", "seatbelt", "namespaces"},
	}[fmt.Sprint(users)]; ok {
		for _, tier := range atLeast {
			if tier == wanted {
				return nil
			}
		}
	}
	return fmt.Errorf("%v is weaker than %v, and %s", wanted, users, whyWiden)
}

func tighterProfile(users, wanted any) error {
	if users == "strict" && wanted != "strict" {
		return fmt.Errorf("%v is weaker than %v, and %s", wanted, users, whyWiden)
	}
	return nil
}
