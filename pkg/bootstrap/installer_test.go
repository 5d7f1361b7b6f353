package bootstrap_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestFallsToTheNextSource(t *testing.T) {
	first, second := newSite(t, httptest.NewServer), newSite(t, httptest.NewServer)
	first.publish(t, oldVersion, bootstrap.LinuxX64)
	second.publish(t, newVersion, bootstrap.LinuxX64)
	var failed []string
	in := installer(t, bootstrap.Options{
		Sources: sources(t, bootstrap.Network{}, first.URL, second.URL),
		Events:  bootstrap.Events{Failed: func(s string, _ error) { failed = append(failed, s) }},
	})
	b, err := in.Install(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	if b.Source != second.URL || !slices.Equal(failed, []string{first.URL}) {
		t.Errorf("source %s, failed %q", b.Source, failed)
	}
}

func TestWrongDigestOfOneSource(t *testing.T) {
	first, second := newSite(t, httptest.NewServer), newSite(t, httptest.NewServer)
	first.publish(t, newVersion, bootstrap.LinuxX64)
	first.serve("/"+newVersion+"/linux-x64-amp.sha256", []byte(strings.Repeat("ab", 32)))
	data := second.publish(t, newVersion, bootstrap.LinuxX64)
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, first.URL, second.URL)})
	b, err := in.Install(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, b.Path, data)
}

func TestVersionThatDoesNotExist(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	cache := filepath.Join(t.TempDir(), "amp")
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
	_, err := in.Ensure(t.Context(), "0.0.1700000000-gabcdef")
	wantFault(t, err, fault.BootstrapFailed, "bootstrap failed: no source has amp 0.0.1700000000-gabcdef for linux-x64", s.URL)
	wantEmpty(t, cache)
}

func TestVersionThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	cache := filepath.Join(dir, "amp")
	in := installer(t, bootstrap.Options{Dir: cache})
	for _, v := range []string{"../../etc", "1", "newest", "0.0.1-g/../..", "0.0.1-", "-1.0.0", "0.0.99999999999999999999999", "0.0.1\x00", strings.Repeat("0", 60) + ".0.1-gabc"} {
		_, err := in.Ensure(t.Context(), v)
		wantFault(t, err, fault.Usage, "no version")
		_, err = in.Install(t.Context(), v)
		wantFault(t, err, fault.Usage)
		_, err = in.Path(v)
		wantFault(t, err, fault.Usage)
		wantFault(t, in.Remove(t.Context(), v), fault.Usage)
	}
	if _, err := os.Stat(cache); !os.IsNotExist(err) {
		t.Errorf("the cache was made: %v", err)
	}
}

func TestLatestIsTheNewestOfThoseThatAnswer(t *testing.T) {
	old, down, newest := newSite(t, httptest.NewServer), newSite(t, httptest.NewServer), newSite(t, httptest.NewServer)
	old.publish(t, oldVersion, bootstrap.LinuxX64)
	newest.publish(t, newVersion, bootstrap.LinuxX64)
	silent := newSite(t, httptest.NewServer)
	silent.handle("/cli-version.txt", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	portal := newSite(t, httptest.NewServer)
	portal.serve("/cli-version.txt", []byte("<html>0.0.9999999999-gabc</html>"))
	timeouts := quick()
	timeouts.Latest = 500 * time.Millisecond
	failures := map[string]string{}
	in := installer(t, bootstrap.Options{
		Sources:  sources(t, bootstrap.Network{}, old.URL, down.URL, silent.URL, portal.URL, newest.URL),
		Timeouts: timeouts,
		Events:   bootstrap.Events{Failed: func(s string, err error) { failures[s] = err.Error() }},
	})
	v, err := in.Latest(t.Context())
	if err != nil || v != newVersion {
		t.Errorf("latest %q, %v", v, err)
	}
	want := map[string]string{
		down.URL:   down.URL + "/cli-version.txt: not found (http status 404)",
		silent.URL: silent.URL + "/cli-version.txt: no answer within 500ms",
		portal.URL: portal.URL + "/cli-version.txt: a web page came instead (a captive portal, or a proxy that wants a login?)",
	}
	if diff := cmp.Diff(want, failures); diff != "" {
		t.Error(diff)
	}
	b, err := in.Install(t.Context(), "")
	if err != nil || b.Version != newVersion {
		t.Errorf("%+v, %v", b, err)
	}
	if n := old.hits("/" + newVersion + "/amp-linux-x64"); n != 0 {
		t.Error("a source that did not offer the version was tried first")
	}
}

func TestNoSourceAnswers(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.Close()
	cache := filepath.Join(t.TempDir(), "amp")
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL, "npm")})
	_, err := in.Ensure(t.Context(), "latest")
	wantFault(t, err, fault.BootstrapFailed, "bootstrap failed", s.URL+"/cli-version.txt", "refused", "npm: no npm registry configured")
	wantEmpty(t, cache)
	_, err = installer(t, bootstrap.Options{}).Ensure(t.Context(), "latest")
	wantFault(t, err, fault.BootstrapFailed, "no sources")
}

func TestNewestIsBrokenButAnOlderOneIsNot(t *testing.T) {
	first, second := newSite(t, httptest.NewServer), newSite(t, httptest.NewServer)
	first.serve("/cli-version.txt", []byte(newVersion))
	second.publish(t, oldVersion, bootstrap.LinuxX64)
	var warned []string
	in := installer(t, bootstrap.Options{
		Sources: sources(t, bootstrap.Network{}, first.URL, second.URL),
		Events:  bootstrap.Events{Warning: func(m string) { warned = append(warned, m) }},
	})
	b, err := in.Ensure(t.Context(), "latest")
	if err != nil || b.Version != oldVersion {
		t.Fatalf("%+v, %v", b, err)
	}
	if want := "amp " + newVersion + " could not be fetched; " + oldVersion + " is used instead"; !slices.Contains(warned, want) {
		t.Errorf("warnings %q", warned)
	}
}

func TestPin(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	list := sources(t, bootstrap.Network{}, s.URL)

	if _, err := installer(t, bootstrap.Options{Sources: list, SHA256: sha256Hex(data)}).Install(t.Context(), newVersion); err != nil {
		t.Errorf("the right pin: %v", err)
	}
	cache := filepath.Join(t.TempDir(), "amp")
	wrong := installer(t, bootstrap.Options{Dir: cache, Sources: list, SHA256: strings.Repeat("cd", 32)})
	_, err := wrong.Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "pinned file", "expected "+strings.Repeat("cd", 32), "got "+sha256Hex(data))
	wantEmpty(t, cache)

	// What is cached already must fit the pin as well.
	if _, err := installer(t, bootstrap.Options{Dir: cache, Sources: list}).Install(t.Context(), newVersion); err != nil {
		t.Fatal(err)
	}
	if b, err := wrong.Ensure(t.Context(), newVersion); err == nil {
		t.Errorf("the pin let %s through", b.Path)
	}
	if b, err := wrong.Ensure(t.Context(), "latest"); err == nil {
		t.Errorf("the pin let %s through", b.Path)
	}

	// A pin is as good as the source's checksum.
	s.handle("/"+newVersion+"/linux-x64-amp.sha256", nil)
	if _, err := installer(t, bootstrap.Options{Sources: list, SHA256: strings.ToUpper(sha256Hex(data))}).Install(t.Context(), newVersion); err != nil {
		t.Errorf("the pin alone: %v", err)
	}
	_, err = bootstrap.New(bootstrap.Options{Dir: cache, SHA256: "abc"})
	wantFault(t, err, fault.Usage, "no sha256")
	_, err = bootstrap.New(bootstrap.Options{Dir: "amp"})
	wantFault(t, err, fault.Usage, "absolute")
}

// TestRefresh has Ensure never ask for what is cached, and Refresh once per interval.
func TestRefresh(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, oldVersion, bootstrap.LinuxX64)
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	var warned []string
	in := installer(t, bootstrap.Options{
		Sources:        sources(t, bootstrap.Network{}, s.URL),
		UpdateInterval: 24 * time.Hour,
		Now:            func() time.Time { return now },
		Events:         bootstrap.Events{Warning: func(m string) { warned = append(warned, m) }},
	})
	ensure := func(want string) bootstrap.Binary {
		t.Helper()
		b, err := in.Ensure(t.Context(), "latest")
		if err != nil {
			t.Fatal(err)
		}
		if b.Version != want {
			t.Errorf("version %s, want %s", b.Version, want)
		}
		return b
	}
	refresh := func(want string) {
		t.Helper()
		b, err := in.Refresh(t.Context(), ensure(names(list(t, in))[0]))
		if err != nil || b.Version != want {
			t.Errorf("found %q, %v, want %q", b.Version, err, want)
		}
	}
	first := ensure(oldVersion)
	if !first.InstalledAt.Equal(now) {
		t.Errorf("installed at %s", first.InstalledAt)
	}
	asked := s.total()
	now = now.Add(23 * time.Hour)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	refresh("")
	now = now.Add(2 * time.Hour)
	ensure(oldVersion)
	if s.total() != asked {
		t.Error("the network was used within the interval, or by Ensure")
	}
	refresh(newVersion)
	ensure(newVersion)
	asked = s.total()
	refresh("")
	if s.total() != asked {
		t.Error("asked twice in an interval")
	}

	// A clock that was ahead does not put off the question for years.
	now = now.Add(-1000 * time.Hour)
	refresh("")
	if s.total() == asked {
		t.Error("a time to come was taken for a fresh answer")
	}

	// The sources going back is not followed silently.
	now = now.Add(48 * time.Hour)
	s.publish(t, oldVersion, bootstrap.LinuxX64)
	refresh("")
	ensure(newVersion)
	if len(warned) != 1 || !strings.Contains(warned[0], "keeping the newer "+newVersion) {
		t.Errorf("warnings %q", warned)
	}

	// Offline, the cached one will do.
	now = now.Add(48 * time.Hour)
	s.Close()
	have := ensure(newVersion)
	_, err := in.Refresh(t.Context(), have)
	wantFault(t, err, fault.BootstrapFailed, "no source could say which amp is the latest")
	ensure(newVersion)
	// A version by name needs no network when it is cached.
	if b, err := in.Ensure(t.Context(), oldVersion); err != nil || b.Version != oldVersion {
		t.Errorf("%+v, %v", b, err)
	}
}

func list(t *testing.T, in *bootstrap.Installer) []bootstrap.Binary {
	t.Helper()
	all, err := in.List()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCanceled(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.handle("/"+newVersion+"/amp-linux-x64.gz", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("\x1f\x8b\x08"))
		flush(w)
		cancel()
		<-r.Context().Done()
	})
	cache := filepath.Join(t.TempDir(), "amp")
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL, s.URL)})
	_, err := in.Ensure(ctx, "latest")
	wantFault(t, err, fault.Canceled)
	wantEmpty(t, cache)
	if n := s.hits("/" + newVersion + "/amp-linux-x64.gz"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	late, done := context.WithTimeout(t.Context(), time.Nanosecond)
	defer done()
	_, err = in.Ensure(late, "latest")
	wantFault(t, err, fault.Timeout)
}
