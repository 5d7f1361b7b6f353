package config

import (
	"context"
	"regexp"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// keyShape is what keys of the service look like today. It need not stay so.
const keyShape = `^sgamp_[a-z]+_[A-Z0-9]{26}_[a-f0-9]{64}$`

// strangeKeys are beginnings of other services' keys, which people paste by mistake.
func strangeKeys() map[string]string {
	return map[string]string{
		"sk-ant-": "Anthropic", "sk-": "OpenAI", "ghp_": "GitHub", "gho_": "GitHub", "github_pat_": "GitHub",
		"AIza": "Google", "AKIA": "AWS", "sgp_": "Sourcegraph itself (a code search instance)", "glpat-": "GitLab",
	}
}

// CheckKeyShape tells whether the key looks like one of the service.
func CheckKeyShape(key Key, needs ...string) check.Check {
	return check.Check{
		ID: "key.shape", Group: keyGroup, Title: "shape", Needs: needs,
		Run: func(context.Context) check.Result {
			secret := key.Reveal()
			if ok, err := regexp.MatchString(keyShape, secret); err == nil && ok {
				return check.Passed("as keys of Amp are, %d characters", len(secret))
			}
			longest := ""
			for beginning := range strangeKeys() {
				if strings.HasPrefix(secret, beginning) && len(beginning) > len(longest) {
					longest = beginning
				}
			}
			switch {
			case longest != "":
				return check.Warned("it looks like a key of %s, not of Amp", strangeKeys()[longest]).
					Hint("keys of Amp are made at https://ampcode.com/settings; store one with `sesame login`")
			case strings.HasPrefix(secret, "sgamp_"):
				return check.Warned("it begins like a key of Amp and does not go on so: was a part of it lost? (%d characters)", len(secret)).
					Hint("copy it again from https://ampcode.com/settings and run `sesame login`")
			}
			return check.Passed("not the usual one, which the service may take all the same")
		},
	}
}

// CheckStored tells how the key is kept, and whether another one is hidden by it.
func CheckStored(store KeyStore, url string, from Source, key Key, needs ...string) check.Check {
	return check.Check{
		ID: "key.stored", Group: keyGroup, Title: "stored", Needs: needs,
		Run: func(context.Context) check.Result {
			if from != FromEnvironment {
				if store.Keyring != nil && string(from) == store.Keyring.Name() {
					return check.Passed("in %s", from)
				}
				return check.Passed("in a file that only you may read")
			}
			list, err := store.List()
			if err != nil {
				return check.Warned("AMP_API_KEY is used; what `sesame login` stored cannot be: %v", err)
			}
			for _, s := range list {
				if s.URL != url || strings.Contains(s.Place, "keyring") {
					continue // a locked keyring is not bothered for this
				}
				if c, _, err := store.Load(url); err == nil && c.Key != key {
					return check.Warned("AMP_API_KEY hides another key, stored in %s for %s", s.Place, s.Account).
						Hint("`unset AMP_API_KEY` to use the stored one, or `sesame logout` to forget it")
				}
			}
			return check.Passed("not by sesame: it is in the environment")
		},
	}
}
