package sandbox

import (
	"os"
	"path/filepath"
)

// prepareHomeState makes the directory that keeps the home's changes. The file "workspace" in it says whose it is.
func prepareHomeState(state, workspace string) error {
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o700); err != nil {
			return err
		}
	}
	// Left by every volatile mount, and in the way of the next.
	if err := os.RemoveAll(filepath.Join(state, "work", "work", "incompat")); err != nil {
		return err
	}
	owner := filepath.Join(state, "workspace")
	if _, err := os.Stat(owner); err == nil {
		return nil
	}
	return os.WriteFile(owner, []byte(workspace), 0o600)
}
