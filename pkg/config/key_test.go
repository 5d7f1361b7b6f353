package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const someKey = "sgamp_user_01ABCDEFGHJKMNPQRSTVWXYZ23_" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func mustKey(t *testing.T, s string) Key {
	t.Helper()
	key, err := NewKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func savedStore(t *testing.T) KeyStore {
	t.Helper()
	store := KeyStore{Path: filepath.Join(t.TempDir(), "sesame", "credentials.json")}
	_, _, err := store.Save(DefaultURL, Credential{mustKey(t, someKey), "a@b.c", time.Unix(1790000000, 5)})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestKeyNeverShowsItself(t *testing.T) {
	key := mustKey(t, someKey)
	holder := struct {
		K Key
		P *Key
	}{key, &key}
	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T %[1]v"} {
		fmt.Fprintf(&shown, verb+"\n", key)
		fmt.Fprintf(&shown, verb+"\n", holder)
	}
	data, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	shown.Write(data)
	slog.New(slog.NewTextHandler(&shown, nil)).Info("x", "key", key)
	fmt.Fprint(&shown, fmt.Errorf("with %w and %v", os.ErrInvalid, key))
	for _, part := range []string{someKey, someKey[:20], fmt.Sprintf("%x", someKey)} {
		if strings.Contains(shown.String(), part) {
			t.Errorf("%q is in:\n%s", part, shown.String())
		}
	}
}

func TestPastedKey(t *testing.T) {
	for _, text := range []string{
		someKey, "  " + someKey + "\r\n", "export AMP_API_KEY=" + someKey + "\n", "AMP_API_KEY='" + someKey + "'",
		`export AMP_API_KEY="` + someKey + `";`, `"` + someKey + `"`, "\ufeff" + someKey,
	} {
		key, err := PastedKey(text)
		if err != nil || key.Reveal() != someKey {
			t.Errorf("%q: %q, %v", text, key.Reveal(), err)
		}
	}
	for _, text := range []string{"", " \n", "two words", "a\nb", "k\x00y", "schlüssel", "export AMP_API_KEY=", "''"} {
		if key, err := PastedKey(text); err == nil {
			t.Errorf("%q taken as %q", text, key.Reveal())
		} else if text = strings.TrimSpace(text); text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error repeats what was pasted: %v", err)
		}
	}
}

func TestFindKey(t *testing.T) {
	store := savedStore(t)
	key, source, err := FindKey(Env{"AMP_API_KEY": " other-key\n"}, store, DefaultURL)
	if err != nil || key.Reveal() != "other-key" || source != FromEnvironment {
		t.Errorf("environment: %q from %s, %v", key.Reveal(), source, err)
	}
	key, source, err = FindKey(Env{"AMP_API_KEY": "  "}, store, DefaultURL)
	if err != nil || key.Reveal() != someKey || string(source) != store.Path {
		t.Errorf("store: %q from %s, %v", key.Reveal(), source, err)
	}
	_, _, err = FindKey(Env{}, store, "https://other.example/")
	if fault.CodeOf(err) != fault.KeyMissing || err.Error() != "AMP_API_KEY not configured" || len(fault.HintsOf(err)) < 2 {
		t.Errorf("none: %v %q", err, fault.HintsOf(err))
	}
	_, _, err = FindKey(Env{"AMP_API_KEY": "a\r\nx-evil: 1"}, store, DefaultURL)
	wantUsage(t, err, "AMP_API_KEY: the key has spaces")
}

func TestKeyStoreFile(t *testing.T) {
	store := savedStore(t)
	const other = "https://other.example/"
	if _, _, err := store.Save(other, Credential{Key: mustKey(t, "other-key")}); err != nil {
		t.Fatal(err)
	}
	got, place, err := store.Load(DefaultURL)
	if err != nil || place != store.Path || got.Key.Reveal() != someKey || got.Account != "a@b.c" || got.Saved.Unix() != 1790000000 {
		t.Errorf("%+v %v %v", got, place, err)
	}
	if _, _, err := store.Save(DefaultURL, Credential{Key: mustKey(t, "new-key")}); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := store.Load(DefaultURL); got.Key.Reveal() != "new-key" {
		t.Error("not replaced")
	}
	for _, url := range []string{DefaultURL, other} {
		if place, err := store.Remove(url); place != store.Path || err != nil {
			t.Errorf("remove %s: %v %v", url, place, err)
		}
		if place, err := store.Remove(url); place != "" || err != nil {
			t.Errorf("remove %s again: %v %v", url, place, err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(store.Path))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestBrokenCredentials(t *testing.T) {
	for name, content := range map[string]string{
		"truncated": `{"schema_version":1,"keys":{"https://ampcode.com/":{"key":"` + someKey,
		"empty":     "",
		"no object": `["` + someKey + `"]`,
		"newer":     `{"schema_version":2,"keys":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			store := savedStore(t)
			if err := os.WriteFile(store.Path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := store.Load(DefaultURL)
			wantUsage(t, err, store.Path)
			if strings.Contains(err.Error(), "sgamp") {
				t.Errorf("the key is in %q", err)
			}
			if _, _, err := store.Save(DefaultURL, Credential{Key: mustKey(t, "new-key")}); err == nil {
				t.Error("saved over a file that may hold other keys")
			}
			if data, _ := os.ReadFile(store.Path); string(data) != content {
				t.Errorf("changed to %q", data)
			}
		})
	}
}
