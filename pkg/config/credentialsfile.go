package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/atomicfile"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const credentialsVersion = 1

// credentialsFile says of each service where its key is, and has those keys that no keyring took.
type credentialsFile struct {
	Version int                         `json:"schema_version"`
	Keys    map[string]storedCredential `json:"keys"`
}

type storedCredential struct {
	Key     string    `json:"key,omitempty"`
	Keyring bool      `json:"keyring,omitempty"` // the key is in the system's keyring
	Account string    `json:"account,omitempty"`
	Saved   time.Time `json:"saved"`
}

func (s KeyStore) read() (credentialsFile, error) {
	file := credentialsFile{Version: credentialsVersion, Keys: map[string]storedCredential{}}
	if s.Path == "" {
		return file, nil
	}
	// Not blocking: a FIFO in its place must not hold us.
	f, err := os.OpenFile(s.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return file, fault.New(fault.Usage, "cannot read the stored keys: %w", err)
	}
	defer f.Close()
	// Checked on the open file, so that it is the one that is read.
	if err := s.trust(f); err != nil {
		return file, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return file, fault.New(fault.Usage, "cannot read the stored keys: %w", err)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		// The JSON error is not shown: it may quote what is in the file.
		return file, s.broken("not JSON as `sesame login` writes it")
	}
	if file.Version != credentialsVersion {
		return file, s.broken(fmt.Sprintf("of version %d, which this sesame does not know", file.Version))
	}
	if file.Keys == nil {
		file.Keys = map[string]storedCredential{}
	}
	return file, nil
}

func (s KeyStore) broken(what string) error {
	return fault.New(fault.Usage, "%s: %s", s.Path, what).
		Hint("move it away and run `sesame login` again, or set AMP_API_KEY")
}

// trust refuses a file that somebody else could have read or written.
func (s KeyStore) trust(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fault.New(fault.Usage, "cannot read the stored keys: %w", err)
	}
	if !info.Mode().IsRegular() {
		return s.broken("not a regular file")
	}
	if why, remedy := looseFile(info, s.Path); why != "" {
		return fault.New(fault.Usage, "%s: refused: %s", s.Path, why).Hint("%s", remedy)
	}
	dir, err := os.Stat(filepath.Dir(s.Path))
	if err != nil {
		return fault.New(fault.Usage, "cannot read the stored keys: %w", err)
	}
	if why, remedy := looseDir(dir, filepath.Dir(s.Path)); why != "" {
		return fault.New(fault.Usage, "%s: refused: %s", filepath.Dir(s.Path), why).Hint("%s", remedy)
	}
	return nil
}

// write replaces the file at once: a reader sees the old or the new one, also after
// a crash in between.
func (s KeyStore) write(file credentialsFile) error {
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("store the key: %w", err)
	}
	dir := filepath.Dir(s.Path)
	if err := MakePrivate(dir); err != nil {
		return fmt.Errorf("store the key: %w", err)
	}
	if err := atomicfile.Write(s.Path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("store the key: %w", err)
	}
	return nil
}
