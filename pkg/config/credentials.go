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

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Credential is a key and whom it belongs to.
type Credential struct {
	Key     Key
	Account string    // as the service names it; "" where it was not asked
	Saved   time.Time // when it was stored
}

// KeyStore keeps one credential for each service URL (as ServiceURL has it).
// FileStore is the one there is; an OS keyring fits behind it too.
type KeyStore interface {
	// Load finds a service's credential; ok is false where there is none.
	Load(url string) (c Credential, ok bool, err error)
	// Save stores it, in place of an earlier one.
	Save(url string, c Credential) error
	// Remove forgets it; ok is false where there was none.
	Remove(url string) (ok bool, err error)
	// String says where the keys are, for people.
	String() string
}

// FileStore keeps keys in a file that only the user may read.
type FileStore struct{ Path string }

const credentialsVersion = 1

type credentialsFile struct {
	Version int                         `json:"schema_version"`
	Keys    map[string]storedCredential `json:"keys"`
}

type storedCredential struct {
	Key     string    `json:"key"`
	Account string    `json:"account,omitempty"`
	Saved   time.Time `json:"saved"`
}

// String is the file's name.
func (s FileStore) String() string { return s.Path }

// Load implements KeyStore. A file that others could read, or that belongs to
// somebody else, or that is no JSON, is a fault.Usage with the remedy.
func (s FileStore) Load(url string) (Credential, bool, error) {
	file, err := s.read()
	if err != nil {
		return Credential{}, false, err
	}
	stored, ok := file.Keys[url]
	if !ok {
		return Credential{}, false, nil
	}
	key, err := NewKey(stored.Key)
	if err != nil {
		return Credential{}, false, fault.New(fault.Usage, "%s: %s: %w", s.Path, url, err).Hint("run `sesame login`")
	}
	return Credential{key, stored.Account, stored.Saved}, true, nil
}

// Save implements KeyStore.
func (s FileStore) Save(url string, c Credential) error {
	file, err := s.read()
	if err != nil {
		return err
	}
	file.Keys[url] = storedCredential{c.Key.Reveal(), c.Account, c.Saved.UTC().Truncate(time.Second)}
	return s.write(file)
}

// Remove implements KeyStore. With the last key the file goes too.
func (s FileStore) Remove(url string) (bool, error) {
	file, err := s.read()
	if err != nil {
		return false, err
	}
	if _, ok := file.Keys[url]; !ok {
		return false, nil
	}
	delete(file.Keys, url)
	if len(file.Keys) > 0 {
		return true, s.write(file)
	}
	if err := os.Remove(s.Path); err != nil {
		return false, fmt.Errorf("remove the stored key: %w", err)
	}
	return true, nil
}

func (s FileStore) read() (credentialsFile, error) {
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

func (s FileStore) broken(what string) error {
	return fault.New(fault.Usage, "%s: %s", s.Path, what).
		Hint("move it away and run `sesame login` again, or set AMP_API_KEY")
}

// trust refuses a file that somebody else could have read or written.
func (s FileStore) trust(f *os.File) error {
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
func (s FileStore) write(file credentialsFile) error {
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("store the key: %w", err)
	}
	dir := filepath.Dir(s.Path)
	if err := MakePrivate(dir); err != nil {
		return fmt.Errorf("store the key: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".credentials-*") // made 0600
	if err != nil {
		return fmt.Errorf("store the key: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(append(data, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), s.Path)
	}
	if err != nil {
		return fmt.Errorf("store the key: %w", err)
	}
	return nil
}
