package cmd

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestLoginAsks(t *testing.T) {
	w := newWorld(t)
	w.env["AMP_URL"] = startService(t)
	w.env["AMP_API_KEY"] = "another-key-entirely"
	w.io.InTerminal, w.io.ErrTerminal = true, true
	w.io.readSecret = func(_ context.Context, ask func()) (string, error) {
		ask()
		return "export AMP_API_KEY='" + goodKey + "'", nil
	}
	if code := w.run(t, "login"); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	for _, want := range []string{"(not shown): ", "as a@b.c", "AMP_API_KEY is set to another key and wins"} {
		if !strings.Contains(w.errOut.String(), want) {
			t.Errorf("no %q in %s", want, w.errOut)
		}
	}
	if w.out.Len() > 0 || strings.Contains(w.errOut.String(), goodKey[:20]) {
		t.Errorf("stdout %q, stderr %q", w.out, w.errOut)
	}
	stored, ok, err := config.FileStore{Path: filepath.Join(w.home, ".config/sesame/credentials.json")}.Load(w.env["AMP_URL"])
	if err != nil || !ok || stored.Key.Reveal() != goodKey || stored.Account != "a@b.c" {
		t.Errorf("stored %+v, %v, %v", stored, ok, err)
	}
}

// Nothing is stored unless the service said yes, and what is stored stays.
func TestLoginStoresOnlyGoodKeys(t *testing.T) {
	w := newWorld(t)
	store := config.FileStore{Path: filepath.Join(w.home, ".config/sesame/credentials.json")}
	old, err := config.NewKey("old-key")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Save(config.DefaultURL, config.Credential{Key: old}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, input string
		check       error
		exit        int
	}{
		{"empty", "", nil, 2},
		{"white space", " \n\n", nil, 2},
		{"two lines", "one\ntwo\n", nil, 2},
		{"rejected", "new-key", fault.New(fault.KeyRejected, "rejected"), 4},
		{"service down", "new-key", fault.New(fault.ServiceUnreachable, "down"), 7},
		{"other error", "new-key", errors.New("odd"), 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.in.Reset()
			w.in.WriteString(test.input)
			w.checkKey = func(context.Context, string, config.Key) (account, error) { return account{ID: "u"}, test.check }
			if code := w.run(t, "login", "--with-token"); code != test.exit {
				t.Errorf("exit %d, want %d: %s", code, test.exit, w.errOut)
			}
			if got, _, err := store.Load(config.DefaultURL); err != nil || got.Key != old {
				t.Errorf("the stored key changed (%v)", err)
			}
		})
	}
}

// The service is not asked with a key that there is no place for.
func TestLoginLooksAtTheStoreFirst(t *testing.T) {
	w := newWorld(t)
	w.write(t, filepath.Join(w.home, ".config/sesame/credentials.json"), "{broken")
	w.in.WriteString(goodKey)
	w.checkKey = func(context.Context, string, config.Key) (account, error) {
		t.Error("the service was asked")
		return account{}, nil
	}
	if code := w.run(t, "login", "--with-token"); code != 2 {
		t.Errorf("exit %d", code)
	}
	if w.in.Len() == 0 {
		t.Error("the key was read for nothing")
	}
}

// A login's URL comes from the user alone, whatever the current directory says.
func TestLoginIgnoresWorkspaceFile(t *testing.T) {
	w := newWorld(t)
	w.write(t, ".sesame.yaml", "amp: {url: 'https://evil.example/'}")
	w.in.WriteString(goodKey)
	asked := ""
	w.checkKey = func(_ context.Context, url string, _ config.Key) (account, error) {
		asked = url
		return account{ID: "u"}, nil
	}
	if code := w.run(t, "login", "--with-token"); code != 0 || asked != config.DefaultURL {
		t.Errorf("exit %d, asked %q: %s", code, asked, w.errOut)
	}
}
