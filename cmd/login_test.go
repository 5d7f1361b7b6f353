package cmd

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
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
	stored, place, err := config.KeyStore{Path: filepath.Join(w.home, ".config/sesame/credentials.json")}.Load(w.env["AMP_URL"])
	if err != nil || place == "" || stored.Key.Reveal() != goodKey || stored.Account != "a@b.c" {
		t.Errorf("stored %+v, %v, %v", stored, place, err)
	}
}

// Nothing is stored unless the service said yes, and what is stored stays.
func TestLoginStoresOnlyGoodKeys(t *testing.T) {
	w := newWorld(t)
	store := config.KeyStore{Path: filepath.Join(w.home, ".config/sesame/credentials.json")}
	old, err := config.NewKey("old-key")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Save(config.DefaultURL, config.Credential{Key: old}); err != nil {
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
		{"a header more", "new-key\r\nx-evil: 1", nil, 2},
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

// atTerminal lets the world's user be asked; answer is what is typed, waiting for the context where it is "".
func (w *world) atTerminal(answer string) {
	w.io.InTerminal, w.io.ErrTerminal = true, true
	w.io.readSecret = func(ctx context.Context, ask func()) (string, error) {
		ask()
		if answer == "" {
			<-ctx.Done()
			return "", ctx.Err()
		}
		return answer, nil
	}
}

func (w *world) keys() config.KeyStore {
	return config.KeyStore{Path: filepath.Join(w.home, ".config/sesame/credentials.json")}
}

func TestLoginByBrowser(t *testing.T) {
	w, service := newWorld(t), amptest.StartT(t)
	w.env["AMP_URL"] = service.URL()
	w.atTerminal("")
	opened := ""
	w.findBrowser = func(config.Env) browser {
		return func(_ context.Context, url string) error {
			opened = url
			go func() {
				if resp, err := http.Get(url); err == nil {
					resp.Body.Close()
				}
			}()
			return nil
		}
	}
	if code := w.run(t, "login"); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	if !strings.HasPrefix(opened, service.URL()+"auth/cli-login?") || !strings.Contains(w.errOut.String(), opened) {
		t.Errorf("opened %s: %s", opened, w.errOut)
	}
	got, place, err := w.keys().Load(service.URL())
	if err != nil || got.Key.Reveal() != service.Key() || place != w.keys().Path || strings.Contains(w.errOut.String(), service.Key()) {
		t.Errorf("%s, %v, stderr %s", place, err, w.errOut)
	}
}

// The page may be open on a machine whose browser cannot come back here: the key may be pasted as well.
func TestLoginPasteWhileBrowserIsOpen(t *testing.T) {
	w, service := newWorld(t), amptest.StartT(t)
	w.env["AMP_URL"] = service.URL()
	w.atTerminal(service.Key())
	w.findBrowser = func(config.Env) browser {
		return func(context.Context, string) error { return errors.New("no display") }
	}
	if code := w.run(t, "login"); code != 0 || !strings.Contains(w.errOut.String(), "no browser could be opened (no display)") {
		t.Errorf("exit %d: %s", code, w.errOut)
	}
	w.findBrowser = func(config.Env) browser {
		return func(context.Context, string) error { t.Error("--paste opens a browser"); return nil }
	}
	if code := w.run(t, "login", "--paste"); code != 0 {
		t.Errorf("exit %d: %s", code, w.errOut)
	}
}

func TestLoginTimeLimit(t *testing.T) {
	for _, open := range []browser{nil, func(context.Context, string) error { return nil }} {
		w := newWorld(t)
		w.atTerminal("")
		w.findBrowser = func(config.Env) browser { return open }
		cmd := newLoginCmd(w.app, func(ctx context.Context, o *loginOptions) error {
			o.limit = 20 * time.Millisecond
			return loginRun(ctx, o)
		})
		w.globalFlags(cmd.PersistentFlags())
		cmd.SetArgs(nil)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.ExecuteContext(t.Context())
		if fault.CodeOf(err) != fault.Timeout || !strings.Contains(err.Error(), "nobody logged in within 20ms") {
			t.Errorf("got %v", err)
		}
	}
}

// A service that is down is no reason to lose a key, if its user says so.
func TestLoginNoCheck(t *testing.T) {
	w := newWorld(t)
	w.env["AMP_URL"] = "http://127.0.0.1:1/"
	w.in.WriteString(goodKey)
	if code := w.run(t, "login", "--with-token"); code != 7 || !strings.Contains(w.errOut.String(), "hint: `sesame login --no-check`") {
		t.Errorf("exit %d: %s", code, w.errOut)
	}
	w.in.WriteString(goodKey)
	if code := w.run(t, "login", "--with-token", "--no-check"); code != 0 || !strings.Contains(w.errOut.String(), "was not asked about it") {
		t.Errorf("exit %d: %s", code, w.errOut)
	}
	if got, _, err := w.keys().Load("http://127.0.0.1:1/"); err != nil || got.Key.Reveal() != goodKey {
		t.Errorf("not stored: %v", err)
	}
	w.errOut.Reset()
	w.checkKey = func(context.Context, string, config.Key) (account, error) {
		return account{}, fault.New(fault.KeyRejected, "rejected")
	}
	w.in.WriteString(goodKey)
	if code := w.run(t, "login", "--with-token"); code != 4 || strings.Contains(w.errOut.String(), "--no-check") {
		t.Errorf("a refused key: exit %d: %s", code, w.errOut)
	}
	if code := w.run(t, "login", "--with-token", "--paste"); code != 2 {
		t.Errorf("two ways at once: exit %d", code)
	}
}

// lockedKeyring is one that nobody is there to unlock.
type lockedKeyring struct{}

func (lockedKeyring) Name() string               { return "the keyring" }
func (lockedKeyring) Get(string) (string, error) { return "", errors.New("no answer: is it locked?") }
func (lockedKeyring) Set(string, string) error   { return errors.New("no answer: is it locked?") }
func (lockedKeyring) Delete(string) error        { return errors.New("no answer: is it locked?") }

// A keyring that takes nothing is told of, and so is the file that the key is in instead.
func TestLoginKeyringLocked(t *testing.T) {
	w := newWorld(t)
	w.env["AMP_URL"], w.keyring = startService(t), lockedKeyring{}
	w.in.WriteString(goodKey)
	if code := w.run(t, "login", "--with-token"); code != 0 {
		t.Fatalf("exit %d: %s", code, w.errOut)
	}
	for _, want := range []string{"the keyring did not take the key: no answer: is it locked?", "key stored in " + w.keys().Path} {
		if !strings.Contains(w.errOut.String(), want) {
			t.Errorf("no %q in %s", want, w.errOut)
		}
	}
	if got, _, err := w.keys().Load(w.env["AMP_URL"]); err != nil || got.Key.Reveal() != goodKey {
		t.Errorf("not stored: %v", err)
	}
}

func TestLoginStatus(t *testing.T) {
	w := newWorld(t)
	url := startService(t)
	status := func(exit int, want ...string) {
		t.Helper()
		w.out.Reset()
		if code := w.run(t, "login", "--status", "--url", url); code != exit {
			t.Errorf("exit %d, want %d: %s", code, exit, w.errOut)
		}
		for _, text := range want {
			if !strings.Contains(w.out.String(), text) {
				t.Errorf("no %q in %s", text, w.out)
			}
		}
		if strings.Contains(w.out.String(), goodKey) {
			t.Error("the key is shown")
		}
	}
	status(4, url+"  no key that can be used")
	for _, service := range []string{url, "https://other.example/"} {
		w.in.WriteString(goodKey)
		if code := w.run(t, "login", "--with-token", "--no-check", "--url", service); code != 0 {
			t.Fatalf("exit %d: %s", code, w.errOut)
		}
	}
	status(0, url+"  key from "+w.keys().Path+": accepted, for a@b.c", "https://other.example/  stored in "+w.keys().Path)
	w.env["AMP_API_KEY"] = "bad-key"
	status(4, url+"  key from AMP_API_KEY: not accepted", "AMP_API_KEY wins over it")
	delete(w.env, "AMP_API_KEY")
	if code := w.run(t, "logout", "--all"); code != 0 {
		t.Errorf("exit %d", code)
	}
	if list, err := w.keys().List(); err != nil || len(list) > 0 {
		t.Errorf("left %v, %v", list, err)
	}
}

func TestFindBrowser(t *testing.T) {
	dir := t.TempDir()
	note := filepath.Join(dir, "note")
	script := filepath.Join(dir, "my-browser")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$1 key=$AMP_API_KEY\" >"+note+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	open := findBrowser(config.Env{"BROWSER": script, "AMP_API_KEY": goodKey})
	if open == nil {
		t.Fatal("no browser")
	}
	if err := open(t.Context(), "http://x.example/?a=b&c"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(note); err != nil || string(got) != "http://x.example/?a=b&c key=\n" {
		t.Errorf("%q, %v", got, err)
	}
	if runtime.GOOS == "linux" && findBrowser(config.Env{}) != nil {
		t.Error("a browser without a display")
	}
}
