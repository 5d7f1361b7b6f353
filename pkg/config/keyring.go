package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/zalando/go-keyring"
)

// Keyring is the system's own store of secrets, for one user.
type Keyring interface {
	// Name is what people call it.
	Name() string
	// Get finds a service's key; ErrNotInKeyring where there is none.
	Get(url string) (string, error)
	Set(url, secret string) error
	Delete(url string) error
}

// ErrNotInKeyring says that the keyring answers and has no such key.
var ErrNotInKeyring = errors.New("it has no such key")

// keyringService is what the keyring's entries are filed under.
const keyringService = "sesame"

// SystemKeyring is the keyring of this system, nil where none could answer. A locked one
// asks its user in a window: patience is how long that, or any answer, may take.
func SystemKeyring(env Env, patience time.Duration) Keyring {
	if name := keyringName(env); name != "" {
		return systemKeyring{name, patience}
	}
	return nil
}

type systemKeyring struct {
	name     string
	patience time.Duration
}

func (k systemKeyring) Name() string { return k.name }

func (k systemKeyring) Get(url string) (string, error) {
	var secret string
	err := k.limited(func() (err error) {
		secret, err = keyring.Get(keyringService, url)
		return err
	})
	if err != nil {
		return "", err // and not what a late answer is writing
	}
	return secret, nil
}

func (k systemKeyring) Set(url, secret string) error {
	return k.limited(func() error { return keyring.Set(keyringService, url, secret) })
}

func (k systemKeyring) Delete(url string) error {
	return k.limited(func() error { return keyring.Delete(keyringService, url) })
}

// limited gives up on a keyring that waits for somebody to unlock it. The library cannot be stopped:
// what it does later, it does for nobody.
func (k systemKeyring) limited(ask func() error) error {
	done := make(chan error, 1)
	go func() { done <- ask() }()
	late := time.NewTimer(k.patience)
	defer late.Stop()
	select {
	case err := <-done:
		if errors.Is(err, keyring.ErrNotFound) {
			return ErrNotInKeyring
		}
		return err
	case <-late.C:
		return fmt.Errorf("it did not answer within %s: is it locked?", k.patience)
	}
}
