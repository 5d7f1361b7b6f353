package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Credential is a key and whom it belongs to.
type Credential struct {
	Key     Key
	Account string    // as the service names it; "" where it was not asked
	Saved   time.Time // when it was stored
}

// KeyStore keeps one credential for each service URL (as ServiceURL has it): in the
// system's keyring where one takes it, else in a file that only the user may read.
// The file says where each key is, so that a keyring is asked for what it has only.
type KeyStore struct {
	Path    string  // of the file; "" keeps nothing
	Keyring Keyring // nil where there is none
}

// StoredKey says where a service's key is, without the key.
type StoredKey struct {
	URL     string
	Account string
	Saved   time.Time
	Place   string // for people: the keyring's name or the file's
}

// Load finds a service's credential and says where it was; place is "" where there is none.
// A file that others could read, or that belongs to somebody else, or that is no JSON, is a
// fault.Usage with the remedy. A keyring that does not give its key is a fault.KeyMissing.
func (s KeyStore) Load(url string) (c Credential, place string, err error) {
	file, err := s.read()
	if err != nil {
		return Credential{}, "", err
	}
	stored, ok := file.Keys[url]
	if !ok {
		return Credential{}, "", nil
	}
	secret := stored.Key
	if stored.Keyring {
		if secret, err = s.fromKeyring(url); err != nil {
			return Credential{}, "", err
		}
	}
	key, err := NewKey(secret)
	if err != nil {
		return Credential{}, "", fault.New(fault.Usage, "%s: %s: %w", s.place(stored), url, err).Hint("run `sesame login`")
	}
	return Credential{key, stored.Account, stored.Saved}, s.place(stored), nil
}

func (s KeyStore) fromKeyring(url string) (string, error) {
	if s.Keyring == nil {
		return "", fault.New(fault.KeyMissing, "the key for %s is in the keyring of a desktop session, and there is none here", url).
			Hint("set AMP_API_KEY, or store the key for this place with `sesame login`")
	}
	secret, err := s.Keyring.Get(url)
	if err != nil {
		return "", fault.New(fault.KeyMissing, "the key for %s is in %s, which does not give it: %w", url, s.Keyring.Name(), err).
			Hint("unlock it and try again, set AMP_API_KEY, or store the key anew with `sesame login`")
	}
	return secret, nil
}

// Save stores a credential in place of an earlier one and says where. declined is why the
// keyring did not take it, nil where it did or where there is none.
func (s KeyStore) Save(url string, c Credential) (place string, declined, err error) {
	file, err := s.read()
	if err != nil {
		return "", nil, err
	}
	before := file.Keys[url]
	now := storedCredential{Account: c.Account, Saved: c.Saved.UTC().Truncate(time.Second)}
	if s.Keyring != nil {
		declined = s.Keyring.Set(url, c.Key.Reveal())
		now.Keyring = declined == nil
	}
	if !now.Keyring {
		now.Key = c.Key.Reveal()
	}
	file.Keys[url] = now
	err = s.write(file)
	// No key stays in a keyring that nobody would look into any more.
	if stale := now.Keyring && err != nil && !before.Keyring || before.Keyring && !now.Keyring && err == nil; stale && s.Keyring != nil {
		_ = s.Keyring.Delete(url) // a locked one keeps it until the next login
	}
	if err != nil {
		return "", declined, err
	}
	return s.place(now), declined, nil
}

// Remove forgets a service's key and says where it was; "" where there was none. With the
// last key the file goes too. A keyring that keeps its copy is an error, and so known still.
func (s KeyStore) Remove(url string) (place string, err error) {
	file, err := s.read()
	if err != nil {
		return "", err
	}
	stored, ok := file.Keys[url]
	if !ok {
		return "", nil
	}
	if stored.Keyring {
		err := errors.New("there is no keyring here")
		if s.Keyring != nil {
			err = s.Keyring.Delete(url)
		}
		if err != nil && !errors.Is(err, ErrNotInKeyring) {
			return "", fault.New(fault.Internal, "the key for %s is in the keyring, and it cannot be removed: %w", url, err).
				Hint("unlock the keyring and run `sesame logout` again")
		}
	}
	delete(file.Keys, url)
	if len(file.Keys) > 0 {
		return s.place(stored), s.write(file)
	}
	if err := os.Remove(s.Path); err != nil {
		return "", fmt.Errorf("remove the stored key: %w", err)
	}
	return s.place(stored), nil
}

// List is what is stored, in the order of the URLs.
func (s KeyStore) List() ([]StoredKey, error) {
	file, err := s.read()
	if err != nil {
		return nil, err
	}
	var list []StoredKey
	for _, url := range slices.Sorted(maps.Keys(file.Keys)) {
		stored := file.Keys[url]
		list = append(list, StoredKey{url, stored.Account, stored.Saved, s.place(stored)})
	}
	return list, nil
}

func (s KeyStore) place(stored storedCredential) string {
	switch {
	case !stored.Keyring:
		return s.Path
	case s.Keyring != nil:
		return s.Keyring.Name()
	}
	return "a keyring that does not answer here"
}

// Loose is the file where others may read or change it and that is all that is wrong; "" otherwise.
func (s KeyStore) Loose() string {
	info, err := os.Lstat(s.Path)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	if why, remedy := looseFile(info, s.Path); why != "" && strings.HasPrefix(remedy, "chmod ") {
		return s.Path
	}
	return ""
}
