package cmd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// showStatus shows the keys that there are. The error is what a turn would fail with: no key
// for this service, or one that it does not take.
func (o *loginOptions) showStatus(ctx context.Context, url string, store config.KeyStore) error {
	a := o.app
	stored, err := store.List()
	if err != nil {
		return err
	}
	key, from, keyErr := config.FindKey(a.env, store, url)
	var b strings.Builder
	if keyErr == nil {
		a.redactor.Add(key)
		state := "not asked about"
		if !o.noCheck {
			who, err := a.checkKey(ctx, url, key)
			if keyErr = err; err == nil {
				state = "accepted, for " + who.String()
			} else {
				state = "not accepted"
				if fault.CodeOf(err) == fault.ServiceUnreachable {
					state = "the service could not be asked"
				}
			}
		}
		fmt.Fprintf(&b, "%s  key from %s: %s\n", url, from, state)
	} else {
		fmt.Fprintf(&b, "%s  no key that can be used\n", url)
	}
	for _, s := range stored {
		line := "stored in " + s.Place
		if s.Account != "" {
			line += " for " + s.Account
		}
		line += ", " + s.Saved.Local().Format("2006-01-02")
		switch {
		case s.URL != url:
			fmt.Fprintf(&b, "%s  %s\n", s.URL, line)
		case from == config.FromEnvironment:
			fmt.Fprintf(&b, "%s  %s; AMP_API_KEY wins over it\n", s.URL, line)
		case keyErr == nil:
			fmt.Fprintf(&b, "%s  %s\n", s.URL, line)
		}
	}
	if _, err := io.WriteString(a.io.Out, a.redactor.String(printable(b.String())+"\n")); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return keyErr
}
