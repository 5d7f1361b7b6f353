package bootstrap_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestTreeForms(t *testing.T) {
	tests := map[string]struct {
		platform bootstrap.Platform
		change   func(t *testing.T, s *site, dir string, data []byte)
		file     string // what is fetched
		name     string // in the cache
	}{
		"compressed": {platform: bootstrap.LinuxX64, file: "amp-linux-x64.gz"},
		"raw only": {
			platform: bootstrap.LinuxX64, file: "amp-linux-x64",
			change: func(_ *testing.T, s *site, dir string, _ []byte) { s.handle(dir+"amp-linux-x64.gz", nil) },
		},
		"a bucket that answers 403 for what it lacks": {
			platform: bootstrap.LinuxX64, file: "amp-linux-x64",
			change: func(_ *testing.T, s *site, dir string, _ []byte) {
				s.handle(dir+"amp-linux-x64.gz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
			},
		},
		"a server that undoes the compression": {
			platform: bootstrap.LinuxX64, file: "amp-linux-x64.gz",
			change: func(_ *testing.T, s *site, dir string, data []byte) { s.serve(dir+"amp-linux-x64.gz", data) },
		},
		"a server that compresses the raw file": {
			platform: bootstrap.LinuxX64, file: "amp-linux-x64",
			change: func(t *testing.T, s *site, dir string, data []byte) {
				s.handle(dir+"amp-linux-x64.gz", nil)
				packed := gz(t, data)
				s.handle(dir+"amp-linux-x64", func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Encoding", "gzip")
					_, _ = w.Write(packed)
				})
			},
		},
		"checksum with a file name, in capitals": {
			platform: bootstrap.LinuxX64, file: "amp-linux-x64.gz",
			change: func(_ *testing.T, s *site, dir string, data []byte) {
				s.serve(dir+"linux-x64-amp.sha256", []byte(strings.ToUpper(sha256Hex(data))+"  amp-linux-x64\n"))
			},
		},
		"baseline": {platform: bootstrap.LinuxX64Baseline, file: "amp-linux-x64-baseline.gz"},
		"redirected": {
			platform: bootstrap.LinuxX64, file: "amp-linux-x64.gz",
			change: func(t *testing.T, s *site, dir string, data []byte) {
				s.serve("/elsewhere", gz(t, data))
				s.handle(dir+"amp-linux-x64.gz", func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, "/elsewhere?signature=secret", http.StatusFound)
				})
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, httptest.NewServer)
			data := s.publish(t, newVersion, test.platform)
			dir := "/" + newVersion + "/"
			if test.change != nil {
				test.change(t, s, dir, data)
			}
			var last int64
			var started bootstrap.Started
			in := installer(t, bootstrap.Options{
				Platform: test.platform,
				Sources:  sources(t, bootstrap.Network{UserAgent: "sesame/1.2.3"}, s.URL+"/"),
				Events: bootstrap.Events{
					Started:  func(e bootstrap.Started) { started = e },
					Progress: func(n int64) { last = n },
				},
			})
			b, err := in.Install(t.Context(), bootstrap.Latest)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, b.Path, data)
			if want := (bootstrap.Digest{Algorithm: "sha256", Hex: sha256Hex(data)}); b.Digest != want || b.Size != int64(len(data)) {
				t.Errorf("digest %s size %d", b.Digest, b.Size)
			}
			if b.Version != newVersion || b.Source != s.URL || b.URL != s.URL+dir+test.file {
				t.Errorf("binary %+v", b)
			}
			if s.hits(dir+test.file) != 1 {
				t.Errorf("%s fetched %d times", test.file, s.hits(dir+test.file))
			}
			if started.Version != newVersion || (started.Size >= 0 && last != started.Size) || last == 0 {
				t.Errorf("events: started %+v, last progress %d", started, last)
			}
			if got := s.header("/cli-version.txt", "User-Agent"); got != "sesame/1.2.3" {
				t.Errorf("user agent %q", got)
			}
			out, err := exec.CommandContext(t.Context(), b.Path).Output()
			if err != nil || string(out) != newVersion+"\n" {
				t.Errorf("it printed %q, %v", out, err)
			}
		})
	}
}

// TestTreeFaults has a server do each thing that servers do, and then mend its ways.
func TestTreeFaults(t *testing.T) {
	const dir = "/" + newVersion + "/"
	const file, sum = dir + "amp-linux-x64", dir + "linux-x64-amp.sha256"
	raw := func(h http.HandlerFunc) func(*site, []byte) {
		return func(s *site, _ []byte) {
			s.handle(file+".gz", nil)
			s.handle(file, h)
		}
	}
	tests := map[string]struct {
		spoil func(s *site, data []byte)
		words []string
	}{
		"wrong digest": {
			spoil: func(s *site, _ []byte) { s.serve(sum, []byte(strings.Repeat("ab", 32))) },
			words: []string{"wrong sha256", "expected " + strings.Repeat("ab", 32), "got " + sha256Hex(program(newVersion)), file},
		},
		"digest missing": {
			spoil: func(s *site, _ []byte) { s.handle(sum, nil) },
			words: []string{"no checksum", file},
		},
		"digest is nonsense": {
			spoil: func(s *site, _ []byte) { s.serve(sum, []byte("hello")) },
			words: []string{"no sha256", sum},
		},
		"truncated": {
			spoil: func(s *site, data []byte) {
				raw(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Length", strconv.Itoa(len(data)))
					_, _ = w.Write(data[:1000])
				})(s, data)
			},
			words: []string{"ended early", "after 1000 of " + strconv.Itoa(len(program(newVersion))), file},
		},
		"truncated without a length": {
			spoil: func(s *site, data []byte) {
				raw(func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write(data[:1000])
					flush(w)
				})(s, data)
			},
			words: []string{"wrong sha256", file},
		},
		"reset": {
			spoil: func(s *site, data []byte) {
				raw(func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write(data[:1000])
					flush(w)
					drop(w)
				})(s, data)
			},
			words: []string{"after 1000 bytes", file},
		},
		"longer than promised": {
			spoil: func(s *site, data []byte) {
				raw(func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write(append(data, "and more"...))
				})(s, data)
			},
			words: []string{"wrong sha256", file},
		},
		"web page": {
			spoil: raw(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				_, _ = w.Write([]byte("<html>log in</html>"))
			}),
			words: []string{"web page", file},
		},
		"web page that says it is none": {
			spoil: func(s *site, _ []byte) { s.handle(file+".gz", nil); s.serve(file, []byte("<!DOCTYPE html><p>log in")) },
			words: []string{"wrong sha256", "web page", file},
		},
		"broken gzip": {
			spoil: func(s *site, _ []byte) { s.serve(file+".gz", []byte("\x1f\x8b\x08 and so on, but no deflate stream")) },
			words: []string{"not gzip", file + ".gz"},
		},
		"500": {
			spoil: raw(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
			words: []string{"http status 500", file},
		},
		"redirects without end": {
			spoil: raw(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }),
			words: []string{"redirects", file},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, httptest.NewServer)
			data := s.publish(t, newVersion, bootstrap.LinuxX64)
			test.spoil(s, data)
			cache := filepath.Join(t.TempDir(), "amp")
			in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
			_, err := in.Install(t.Context(), newVersion)
			wantFault(t, err, fault.BootstrapFailed, append(test.words, "bootstrap failed: ", s.URL)...)
			hints := strings.Join(fault.HintsOf(err), "\n")
			for _, w := range []string{"internet access", "storage.googleapis.com", "static.ampcode.com", "sesame doctor"} {
				if !strings.Contains(hints, w) {
					t.Errorf("no hint has %q: %s", w, hints)
				}
			}
			wantEmpty(t, cache)

			s.publish(t, newVersion, bootstrap.LinuxX64)
			b, err := in.Install(t.Context(), newVersion)
			if err != nil {
				t.Fatalf("afterwards: %v", err)
			}
			wantFile(t, b.Path, data)
		})
	}
}

func TestDigestErrorIsInTheChain(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	s.serve("/"+newVersion+"/linux-x64-amp.sha256", []byte(strings.Repeat("ab", 32)))
	var warned []string
	in := installer(t, bootstrap.Options{
		Sources: sources(t, bootstrap.Network{}, s.URL),
		Events:  bootstrap.Events{Warning: func(m string) { warned = append(warned, m) }},
	})
	_, err := in.Install(t.Context(), newVersion)
	var wrong *bootstrap.DigestError
	if !errors.As(err, &wrong) || wrong.Got != sha256Hex(data) || wrong.Want != strings.Repeat("ab", 32) {
		t.Errorf("%v", err)
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "refused amp") {
		t.Errorf("warnings %q", warned)
	}
}

func TestStalledAndSlow(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	file := "/" + newVersion + "/amp-linux-x64.gz"
	timeouts := quick()
	timeouts.Idle = 400 * time.Millisecond
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{Timeouts: timeouts}, s.URL)})

	// Twice the idle time in all, but never that long without a byte.
	packed := gz(t, data)
	s.handle(file, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 8 {
			_, _ = w.Write(packed[len(packed)*i/8 : len(packed)*(i+1)/8])
			flush(w)
			time.Sleep(100 * time.Millisecond)
		}
	})
	if _, err := in.Install(t.Context(), newVersion); err != nil {
		t.Fatalf("slow but moving: %v", err)
	}
	if err := in.Remove(t.Context(), newVersion); err != nil {
		t.Fatal(err)
	}

	release := make(chan struct{})
	defer close(release)
	s.handle(file, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(packed[:1000])
		flush(w)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	_, err := in.Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "stalled", file)
}

func TestNoHeaderInTime(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	s.handle("/"+newVersion+"/amp-linux-x64.gz", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	timeouts := quick()
	timeouts.Header = 200 * time.Millisecond
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{Timeouts: timeouts}, s.URL)})
	_, err := in.Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "no answer in time")
}

func TestRedirectFromHTTPSToHTTP(t *testing.T) {
	plain := newSite(t, httptest.NewServer)
	plain.publish(t, newVersion, bootstrap.LinuxX64)
	s := newSite(t, newTLSServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	file := "/" + newVersion + "/amp-linux-x64.gz"
	s.handle(file, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+file, http.StatusFound)
	})
	in := installer(t, bootstrap.Options{
		Sources: sources(t, bootstrap.Network{Transport: s.Client().Transport}, s.URL),
	})
	_, err := in.Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "refused a redirect from https to http")
	if plain.total() != 0 {
		t.Error("the http server was asked")
	}
}

func TestUnknownAuthority(t *testing.T) {
	s := newSite(t, newTLSServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, s.URL)})
	_, err := in.Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "certificate")
}

func TestSecretsOfAMirrorStayOut(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	base := strings.Replace(s.URL, "http://", "http://user:hunter2@", 1)
	cache := filepath.Join(t.TempDir(), "amp")
	in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, base)})
	_, err := in.Install(t.Context(), oldVersion)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	b, err := in.Install(t.Context(), newVersion)
	if err != nil {
		t.Fatal(err)
	}
	if s.header("/"+newVersion+"/amp-linux-x64.gz", "Authorization") == "" {
		t.Error("the mirror was not given its password")
	}
	wantFile(t, b.Path, data)
	record, err := os.ReadFile(filepath.Join(filepath.Dir(b.Path), "amp.json"))
	if err != nil || strings.Contains(string(record), "hunter2") {
		t.Errorf("record %s, %v", record, err)
	}
}

func TestProxyOfTheEnvironment(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	// A proxy gets the request for a host that does not exist, and answers it itself.
	in := installer(t, bootstrap.Options{Sources: sources(t,
		bootstrap.Network{Environ: []string{"HTTP_PROXY=" + s.URL}}, "http://mirror.invalid")})
	if _, err := in.Install(t.Context(), newVersion); err != nil {
		t.Error(err)
	}
	in = installer(t, bootstrap.Options{Sources: sources(t,
		bootstrap.Network{Environ: []string{"HTTP_PROXY=" + s.URL, "NO_PROXY=.invalid"}}, "http://mirror.invalid")})
	_, err := in.Install(t.Context(), newVersion)
	wantFault(t, err, fault.BootstrapFailed, "mirror.invalid")
}
