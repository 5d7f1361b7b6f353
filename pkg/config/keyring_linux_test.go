package config

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// secretService is a Secret Service (its specification, 0.2) with one collection, on a bus of its own.
type secretService struct {
	mu     sync.Mutex
	locked bool // and nobody is there to unlock it
	items  map[dbus.ObjectPath]map[string]string
	values map[dbus.ObjectPath][]byte
	conn   *dbus.Conn
}

const (
	loginCollection = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	noPrompt        = dbus.ObjectPath("/")
)

type busSecret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

func (s *secretService) OpenSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s1", nil
}

func (s *secretService) Unlock(paths []dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return nil, "/org/freedesktop/secrets/prompt/p1", nil // which never completes
	}
	return paths, noPrompt, nil
}

func (s *secretService) Get(string, string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant([]dbus.ObjectPath{loginCollection}), nil
}

func (s *secretService) CreateItem(properties map[string]dbus.Variant, secret busSecret, _ bool) (dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	attributes, _ := properties["org.freedesktop.Secret.Item.Attributes"].Value().(map[string]string)
	path := s.find(attributes)
	if path == "" {
		path = loginCollection + dbus.ObjectPath(fmt.Sprintf("/i%d", len(s.items)))
		if err := s.conn.Export(busItem{s, path}, path, "org.freedesktop.Secret.Item"); err != nil {
			return "", "", dbus.MakeFailedError(err)
		}
	}
	s.items[path], s.values[path] = attributes, secret.Value
	return path, noPrompt, nil
}

func (s *secretService) SearchItems(wanted map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path := s.find(wanted); path != "" {
		return []dbus.ObjectPath{path}, nil
	}
	return nil, nil
}

func (s *secretService) find(wanted map[string]string) dbus.ObjectPath {
	for path, has := range s.items {
		if has["service"] == wanted["service"] && has["username"] == wanted["username"] {
			return path
		}
	}
	return ""
}

func (s *secretService) setLocked(locked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked = locked
}

func (s *secretService) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.items)
}

type busItem struct {
	s    *secretService
	path dbus.ObjectPath
}

func (i busItem) GetSecret(session dbus.ObjectPath) (busSecret, *dbus.Error) {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	return busSecret{session, []byte{}, i.s.values[i.path], "text/plain"}, nil
}

func (i busItem) Delete() (dbus.ObjectPath, *dbus.Error) {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	delete(i.s.items, i.path)
	delete(i.s.values, i.path)
	return noPrompt, nil
}

type busSession struct{}

func (busSession) Close() *dbus.Error { return nil }

type busPrompt struct{}

func (busPrompt) Prompt(string) *dbus.Error { return nil }

// startBus starts a session bus and makes it this process's. The library keeps its connection, so there is one per process.
var startBus = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address=1", "--address=unix:abstract=sesame-test-"+fmt.Sprint(os.Getpid()))
	cmd.SysProcAttr = dieWithParent()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line), err
})

func startSecretService(t *testing.T) *secretService {
	t.Helper()
	address, err := startBus()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no session bus: %v", err)
		}
		t.Skipf("NOT TESTED with a keyring, since no session bus can be had here: %v", err)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &secretService{items: map[dbus.ObjectPath]map[string]string{}, values: map[dbus.ObjectPath][]byte{}, conn: conn}
	for path, what := range map[dbus.ObjectPath][]any{
		"/org/freedesktop/secrets":            {s, "org.freedesktop.Secret.Service", s, "org.freedesktop.DBus.Properties"},
		loginCollection:                       {s, "org.freedesktop.Secret.Collection"},
		"/org/freedesktop/secrets/session/s1": {busSession{}, "org.freedesktop.Secret.Session"},
		"/org/freedesktop/secrets/prompt/p1":  {busPrompt{}, "org.freedesktop.Secret.Prompt"},
	} {
		for i := 0; i < len(what); i += 2 {
			if err := conn.Export(what[i], path, what[i+1].(string)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := conn.RequestName("org.freedesktop.secrets", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	return s
}

func keyringOf(t *testing.T) Keyring {
	t.Helper()
	k := SystemKeyring(Env{"DBUS_SESSION_BUS_ADDRESS": os.Getenv("DBUS_SESSION_BUS_ADDRESS")}, 2*time.Second)
	if k == nil {
		t.Fatal("no keyring")
	}
	return k
}

func TestKeyring(t *testing.T) {
	service := startSecretService(t)
	store := KeyStore{Path: filepath.Join(t.TempDir(), "sesame", "credentials.json"), Keyring: keyringOf(t)}
	place, declined, err := store.Save(DefaultURL, Credential{mustKey(t, someKey), "a@b.c", time.Unix(1790000000, 0)})
	if err != nil || declined != nil || place != store.Keyring.Name() || service.count() != 1 {
		t.Fatalf("%s, %v, %v, %d items", place, declined, err, service.count())
	}
	if data, err := os.ReadFile(store.Path); err != nil || strings.Contains(string(data), "sgamp") {
		t.Errorf("the file: %s, %v", data, err)
	}
	got, place, err := store.Load(DefaultURL)
	if err != nil || got.Key.Reveal() != someKey || got.Account != "a@b.c" || place != store.Keyring.Name() {
		t.Errorf("%+v, %s, %v", got, place, err)
	}
	// A second service has a key of its own.
	const other = "https://other.example/"
	if _, _, err := store.Save(other, Credential{Key: mustKey(t, "other-key")}); err != nil || service.count() != 2 {
		t.Errorf("%v, %d items", err, service.count())
	}
	if got, _, _ := store.Load(DefaultURL); got.Key.Reveal() != someKey {
		t.Error("the second key replaced the first one")
	}
	list, err := store.List()
	if err != nil || len(list) != 2 || list[0].URL != DefaultURL || list[0].Place != store.Keyring.Name() {
		t.Errorf("%+v, %v", list, err)
	}

	// Somebody removed it by hand.
	if err := store.Keyring.Delete(other); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Load(other); fault.CodeOf(err) != fault.KeyMissing || !errors.Is(err, ErrNotInKeyring) {
		t.Errorf("removed by hand: %v", err)
	}
	for _, url := range []string{other, DefaultURL} {
		if place, err := store.Remove(url); place != store.Keyring.Name() || err != nil {
			t.Errorf("remove %s: %s, %v", url, place, err)
		}
	}
	if _, err := os.Stat(store.Path); !errors.Is(err, os.ErrNotExist) || service.count() != 0 {
		t.Errorf("left: %v, %d items", err, service.count())
	}
}

// A locked keyring holds nobody up: reading is an error with a remedy, and a login stores in the file.
func TestLockedKeyring(t *testing.T) {
	service := startSecretService(t)
	keyring := keyringOf(t)
	quick := systemKeyring{keyring.Name(), 50 * time.Millisecond}
	store := KeyStore{Path: filepath.Join(t.TempDir(), "sesame", "credentials.json"), Keyring: keyring}
	if _, _, err := store.Save(DefaultURL, Credential{Key: mustKey(t, someKey)}); err != nil {
		t.Fatal(err)
	}
	service.setLocked(true)
	store.Keyring = quick
	_, _, err := FindKey(Env{}, store, DefaultURL)
	if fault.CodeOf(err) != fault.KeyMissing || !strings.Contains(err.Error(), "is it locked?") || !strings.Contains(strings.Join(fault.HintsOf(err), "\n"), "unlock it") {
		t.Errorf("locked: %v %q", err, fault.HintsOf(err))
	}
	if key, _, err := FindKey(Env{"AMP_API_KEY": "mine"}, store, DefaultURL); err != nil || key.Reveal() != "mine" {
		t.Errorf("the environment's key waits for the keyring: %v", err)
	}
	if _, err := store.Remove(DefaultURL); err == nil {
		t.Error("said to be removed while the keyring has it")
	}
	if list, err := store.List(); err != nil || len(list) != 1 {
		t.Errorf("forgotten: %v, %v", list, err)
	}
	place, declined, err := store.Save(DefaultURL, Credential{Key: mustKey(t, "new-key")})
	if err != nil || declined == nil || place != store.Path {
		t.Errorf("%s, %v, %v", place, declined, err)
	}
	if got, place, err := store.Load(DefaultURL); err != nil || got.Key.Reveal() != "new-key" || place != store.Path {
		t.Errorf("%s, %v", place, err)
	}
}

// A place without a keyring says so of a key that is in one.
func TestKeyringElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(path, []byte(`{"schema_version":1,"keys":{"`+DefaultURL+`":{"keyring":true}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := KeyStore{Path: path}.Load(DefaultURL)
	if fault.CodeOf(err) != fault.KeyMissing || !strings.Contains(err.Error(), "there is none here") || len(fault.HintsOf(err)) == 0 {
		t.Errorf("%v", err)
	}
	if SystemKeyring(Env{"DBUS_SESSION_BUS_ADDRESS": "autolaunch:"}, time.Second) != nil {
		if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err != nil {
			t.Error("the library would start a bus")
		}
	}
}

// A bus on which nothing keeps secrets: the file it is, and no key is lost.
func TestNoSecretService(t *testing.T) {
	startSecretService(t).conn.Close()
	store := KeyStore{Path: filepath.Join(t.TempDir(), "sesame", "credentials.json"), Keyring: keyringOf(t)}
	place, declined, err := store.Save(DefaultURL, Credential{Key: mustKey(t, someKey)})
	if err != nil || declined == nil || place != store.Path {
		t.Errorf("%s, %v, %v", place, declined, err)
	}
}
