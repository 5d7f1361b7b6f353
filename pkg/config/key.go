package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Key is a key of the Amp service. However it is printed, it does not show itself;
// only Reveal does.
type Key struct{ secret string }

// NewKey trims a key and checks that it can stand in a header. Its shape is the
// service's business.
func NewKey(s string) (Key, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return Key{}, errors.New("the key is empty")
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return Key{}, errors.New("the key has spaces, line breaks or other characters in it that no key has")
		}
	}
	return Key{s}, nil
}

// PastedKey reads a key as people paste it: with white space around, in quotes, or
// as a whole `export AMP_API_KEY=…` line.
func PastedKey(s string) (Key, error) {
	s = strings.TrimSpace(strings.TrimPrefix(s, "\ufeff"))
	if rest, ok := strings.CutPrefix(s, "export "); ok {
		s = strings.TrimSpace(rest)
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, keyVariable+"="), ";")
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		s = s[1 : n-1]
	}
	return NewKey(s)
}

// Reveal is the key itself, for the one header that needs it.
func (k Key) Reveal() string { return k.secret }

// IsZero tells whether there is no key.
func (k Key) IsZero() bool { return k.secret == "" }

// String hides the key, as do the other forms below.
func (k Key) String() string { return Redacted }

// GoString hides the key from %#v.
func (k Key) GoString() string { return Redacted }

// Format hides the key from every verb.
func (k Key) Format(s fmt.State, _ rune) { fmt.Fprint(s, Redacted) }

// MarshalText hides the key from encoders, JSON's included.
func (k Key) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue hides the key from slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(Redacted) }

// Source is where a key was found: "AMP_API_KEY" or the place that KeyStore.Load named.
type Source string

const keyVariable = "AMP_API_KEY"

// FromEnvironment is the Source of a key in the environment.
const FromEnvironment Source = keyVariable

// FindKey finds the key for a service: AMP_API_KEY first, then the store. None at all
// is a fault.KeyMissing; a store that cannot be trusted or read is its own error.
func FindKey(env Env, store KeyStore, url string) (Key, Source, error) {
	if value := env.Get(keyVariable); strings.TrimSpace(value) != "" {
		key, err := NewKey(value)
		if err != nil {
			return Key{}, "", fault.New(fault.Usage, "%s: %w", keyVariable, err)
		}
		return key, FromEnvironment, nil
	}
	credential, place, err := store.Load(url)
	if err != nil {
		return Key{}, "", err
	}
	if place == "" {
		err := fault.New(fault.KeyMissing, "AMP_API_KEY not configured").
			Hint("run `sesame login`, or set AMP_API_KEY")
		if url == DefaultURL {
			err = err.Hint("keys are made at https://ampcode.com/settings")
		} else {
			err = err.Hint("a key is stored for each service by itself; this one is %s", url)
		}
		return Key{}, "", err
	}
	return credential.Key, Source(place), nil
}
