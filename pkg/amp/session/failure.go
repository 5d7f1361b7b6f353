package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/atomicfile"
)

const failureName = "last-failure.json"

// Failure is how the last turn failed, also one that had no session yet. A turn that ends well forgets it.
type Failure struct {
	SchemaVersion int       `json:"schema_version"`
	When          time.Time `json:"when"`
	Workspace     string    `json:"workspace"`
	SessionID     string    `json:"session_id,omitempty"`
	Code          string    `json:"code"`
	Message       string    `json:"message"`
	Check         string    `json:"check,omitempty"`  // of doctor, that explains it
	Stderr        string    `json:"stderr,omitempty"` // the file of what Amp wrote there
}

// NoteFailure keeps f for doctor in the state directory. Nil is a turn that ended well.
func NoteFailure(state string, f *Failure) error {
	path := filepath.Join(state, failureName)
	if f == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f.SchemaVersion = schemaVersion
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(state, dirPrivate); err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), filePrivate)
}

// LastFailure is what NoteFailure kept; nil where the last turn ended well or there was none.
func LastFailure(state string) (*Failure, error) {
	data, err := os.ReadFile(filepath.Join(state, failureName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	if err != nil {
		return nil, err
	}
	var f Failure
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", failureName, err)
	}
	if f.SchemaVersion != schemaVersion {
		return nil, fmt.Errorf("%s: it has format %d", failureName, f.SchemaVersion)
	}
	return &f, nil
}
