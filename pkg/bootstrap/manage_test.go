package bootstrap_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// filled returns an installer whose cache has the versions, and the cache.
func filled(t *testing.T, versions ...string) (*bootstrap.Installer, string, *site) {
	t.Helper()
	s := newSite(t, httptest.NewServer)
	cache := filepath.Join(t.TempDir(), "sesame", "amp")
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
	for _, v := range versions {
		s.publish(t, v, bootstrap.LinuxX64)
		if _, err := in.Install(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	return in, cache, s
}

func names(list []bootstrap.Binary) []string {
	var out []string
	for _, b := range list {
		out = append(out, b.Version)
	}
	return out
}

func TestListPathRemove(t *testing.T) {
	in := installer(t, bootstrap.Options{})
	if list, err := in.List(); err != nil || len(list) != 0 {
		t.Errorf("an empty cache: %v, %v", list, err)
	}
	_, err := in.Path("latest")
	wantFault(t, err, fault.BootstrapFailed, "not in the cache")

	// 999999999 is the older one, though not by its letters.
	const ancient = "0.0.999999999-gabcdef"
	in, cache, _ := filled(t, ancient, newVersion, oldVersion)
	list, err := in.List()
	if want := []string{newVersion, oldVersion, ancient}; err != nil || !slices.Equal(names(list), want) {
		t.Errorf("%q, %v", names(list), err)
	}
	b, err := in.Path("")
	if err != nil || b.Path != filepath.Join(cache, newVersion, "amp") {
		t.Errorf("%+v, %v", b, err)
	}
	if err := in.Remove(t.Context(), newVersion); err != nil {
		t.Fatal(err)
	}
	if b, err := in.Path("latest"); err != nil || b.Version != oldVersion {
		t.Errorf("%+v, %v", b, err)
	}
	_, err = in.Path(newVersion)
	wantFault(t, err, fault.BootstrapFailed, newVersion, "not in the cache")
	wantFault(t, in.Remove(t.Context(), newVersion), fault.BootstrapFailed, "not in the cache")
}

func TestPrune(t *testing.T) {
	versions := []string{"0.0.1-ga", "0.0.2-gb", "0.0.3-gc", "0.0.4-gd"}
	in, cache, _ := filled(t, versions...)
	dead := filepath.Join(cache, ".work-0.0.3-gc.123")
	recent := filepath.Join(cache, ".work-0.0.3-gc.456")
	for _, d := range []string{dead, recent} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	yesterday := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(dead, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	// A broken one takes no place of a usable one.
	if err := os.Remove(filepath.Join(cache, "0.0.4-gd", "amp.json")); err != nil {
		t.Fatal(err)
	}
	removed, err := in.Prune(t.Context(), 1, "0.0.1-ga")
	if want := []string{"0.0.4-gd", "0.0.2-gb"}; err != nil || !slices.Equal(removed, want) {
		t.Errorf("removed %q, %v", removed, err)
	}
	list, err := in.List()
	if want := []string{"0.0.3-gc", "0.0.1-ga"}; err != nil || !slices.Equal(names(list), want) {
		t.Errorf("left %q, %v", names(list), err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(recent); err != nil {
		t.Error(err)
	}
}

func TestVerifyAndMend(t *testing.T) {
	in, _, s := filled(t, newVersion)
	b, err := in.Verify(t.Context(), "latest")
	if err != nil || b.Version != newVersion {
		t.Fatalf("%+v, %v", b, err)
	}
	good, err := os.ReadFile(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	evil := slices.Clone(good)
	evil[len(evil)-2] ^= 1
	if err := errors.Join(os.Chmod(b.Path, 0o755), os.WriteFile(b.Path, evil, 0o755)); err != nil {
		t.Fatal(err)
	}
	_, err = in.Verify(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "expected "+sha256Hex(good), "got "+sha256Hex(evil), b.Path)
	var wrong *bootstrap.DigestError
	if !errors.As(err, &wrong) {
		t.Error("no DigestError in the chain")
	}
	before := s.hits("/" + newVersion + "/amp-linux-x64.gz")
	if b, err = in.Install(t.Context(), "latest"); err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, good)
	if s.hits("/"+newVersion+"/amp-linux-x64.gz") != before+1 {
		t.Error("a damaged binary was not fetched again")
	}
	if _, err := in.Install(t.Context(), newVersion); err != nil || s.hits("/"+newVersion+"/amp-linux-x64.gz") != before+1 {
		t.Errorf("an intact one was fetched again, or %v", err)
	}
}

// TestUnusableVersions has Ensure meet what must not be run, and get it anew.
func TestUnusableVersions(t *testing.T) {
	tests := map[string]func(dir string) error{
		"no record":     func(dir string) error { return os.Remove(filepath.Join(dir, "amp.json")) },
		"broken record": func(dir string) error { return os.WriteFile(filepath.Join(dir, "amp.json"), []byte("{"), 0o600) },
		"record of another": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "amp.json"), []byte(`{"schema_version":1}`), 0o600)
		},
		"no file":            func(dir string) error { return os.Remove(filepath.Join(dir, "amp")) },
		"other size":         func(dir string) error { return os.Truncate(filepath.Join(dir, "amp"), 10) },
		"not executable":     func(dir string) error { return os.Chmod(filepath.Join(dir, "amp"), 0o600) },
		"writable file":      func(dir string) error { return os.Chmod(filepath.Join(dir, "amp"), 0o777) },
		"writable directory": func(dir string) error { return os.Chmod(dir, 0o777) },
		"a link for the file": func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "amp"), filepath.Join(dir, "real")), os.Symlink("real", filepath.Join(dir, "amp")))
		},
	}
	if os.Geteuid() == 0 {
		tests["file of another user"] = func(dir string) error { return os.Chown(filepath.Join(dir, "amp"), 4711, 4711) }
		tests["directory of another user"] = func(dir string) error { return os.Chown(dir, 4711, 4711) }
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, cache, s := filled(t, newVersion)
			if err := spoil(filepath.Join(cache, newVersion)); err != nil {
				t.Fatal(err)
			}
			if list, err := in.List(); err != nil || len(list) != 0 {
				t.Errorf("listed: %v, %v", list, err)
			}
			b, err := in.Ensure(t.Context(), newVersion)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, b.Path, program(newVersion))
			if s.hits("/"+newVersion+"/amp-linux-x64.gz") != 2 {
				t.Error("it was not fetched again")
			}
		})
	}
}

func TestBuildOfAnotherPlatform(t *testing.T) {
	in, cache, s := filled(t, newVersion)
	s.publish(t, newVersion, bootstrap.LinuxX64Baseline)
	list := sources(t, bootstrap.Network{}, s.URL)
	baseline := installer(t, bootstrap.Options{Dir: cache, Sources: list, Platform: bootstrap.LinuxX64Baseline})
	b, err := baseline.Ensure(t.Context(), newVersion)
	if err != nil || b.Platform != bootstrap.LinuxX64Baseline {
		t.Fatalf("%+v, %v", b, err)
	}
	// The baseline build runs on the newer machine as well.
	if b, err = in.Ensure(t.Context(), newVersion); err != nil || b.Platform != bootstrap.LinuxX64Baseline {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestCachePermissions(t *testing.T) {
	in, cache, s := filled(t, newVersion)
	for path, want := range map[string]os.FileMode{
		filepath.Dir(cache):                          0o700,
		cache:                                        0o700,
		filepath.Join(cache, newVersion):             0o700,
		filepath.Join(cache, newVersion, "amp"):      0o555,
		filepath.Join(cache, newVersion, "amp.json"): 0o644,
	} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	refused := func(what string) {
		t.Helper()
		before := s.total()
		for _, call := range []func() error{
			func() error { _, err := in.Install(t.Context(), newVersion); return err },
			func() error { _, err := in.Ensure(t.Context(), newVersion); return err },
			func() error { _, err := in.Path("latest"); return err },
			func() error { _, err := in.List(); return err },
			func() error { return in.Remove(t.Context(), newVersion) },
			func() error { _, err := in.Prune(t.Context(), 0); return err },
		} {
			wantFault(t, call(), fault.BootstrapFailed, cache, what)
		}
		if s.total() != before {
			t.Error("it was fetched nevertheless")
		}
	}
	for _, mode := range []os.FileMode{0o770, 0o707, 0o777 | os.ModeSticky} {
		if err := os.Chmod(cache, mode); err != nil {
			t.Fatal(err)
		}
		refused("written to by others")
	}
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(cache, 4711, 4711); err != nil {
			t.Fatal(err)
		}
		refused("another user")
	}
}

func TestCacheIsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "amp")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	in := installer(t, bootstrap.Options{Dir: file, Sources: sources(t, bootstrap.Network{}, s.URL)})
	_, err := in.Ensure(t.Context(), "latest")
	wantFault(t, err, fault.BootstrapFailed, "not a directory")
}
