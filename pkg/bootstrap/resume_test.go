package bootstrap_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const rawFile = "/" + newVersion + "/amp-linux-x64"

// TestResume breaks the connection in the middle, again and again.
func TestResume(t *testing.T) {
	for name, end := range map[string]func(*http.Request){
		"reset":   func(*http.Request) { panic(http.ErrAbortHandler) },
		"stalled": func(r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, httptest.NewServer)
			data := s.publish(t, newVersion, bootstrap.LinuxX64)
			s.handle(rawFile+".gz", nil)
			var served atomic.Int64
			s.ranged(rawFile, data, func(sent int, r *http.Request) {
				served.Add(spoonful)
				if sent/100_000 > s.hits(rawFile)-1 {
					end(r)
				}
			})
			timeouts := quick()
			timeouts.Idle = 100 * time.Millisecond
			var retried, resumed int
			in := installer(t, bootstrap.Options{
				Timeouts: timeouts, Sources: sources(t, bootstrap.Network{Timeouts: timeouts}, s.URL),
				Events: bootstrap.Events{
					Retrying: func(string, error, time.Duration) { retried++ },
					Started: func(e bootstrap.Started) {
						if e.Resumed > 0 {
							resumed++
						}
					},
				},
			})
			b, err := in.Ensure(t.Context(), newVersion)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, b.Path, data)
			if retried < 3 || resumed != retried {
				t.Errorf("%d attempts, %d resumed", retried, resumed)
			}
			if n := served.Load(); n > int64(len(data))*5/4+int64(retried*spoonful) {
				t.Errorf("served %d bytes of %d", n, len(data))
			}
		})
	}
}

// TestInterruptedResumes in a later process, if the file is still the same one.
func TestInterruptedResumes(t *testing.T) {
	tests := map[string]struct {
		change func(s *site, cache string, data []byte)
		ranges string // whether the last request is for a part
	}{
		"unchanged": {ranges: "yes"},
		"the server has another state of it": {change: func(s *site, _ string, data []byte) {
			s.handle(rawFile, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"other"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			})
		}, ranges: "yes"},
		"the server cannot do it any more": {change: func(s *site, _ string, data []byte) { s.serve(rawFile, data) }, ranges: "yes"},
		"the server sends another part": {change: func(s *site, _ string, data []byte) {
			s.handle(rawFile, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					w.Header().Set("Content-Range", "bytes 0-9/10")
					w.WriteHeader(http.StatusPartialContent)
					return
				}
				_, _ = w.Write(data)
			})
		}},
		"what is there was damaged": {change: func(_ *site, cache string, _ []byte) {
			for _, f := range glob(cache, ".part-*", "*") {
				if !strings.HasSuffix(f, ".json") {
					damage(f)
				}
			}
		}},
		"what is there is shorter than was noted": {change: func(_ *site, cache string, _ []byte) {
			for _, f := range glob(cache, ".part-*", "*") {
				if !strings.HasSuffix(f, ".json") {
					_ = os.Truncate(f, 10)
				}
			}
		}},
		"the note is nonsense": {change: func(_ *site, cache string, _ []byte) {
			for _, f := range glob(cache, ".part-*", "*.json") {
				_ = os.WriteFile(f, []byte("{"), 0o600)
			}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, httptest.NewServer)
			data := s.publish(t, newVersion, bootstrap.LinuxX64)
			s.handle(rawFile+".gz", nil)
			s.ranged(rawFile, data, func(sent int, _ *http.Request) {
				if sent > len(data)/2 {
					panic(http.ErrAbortHandler)
				}
			})
			cache := filepath.Join(t.TempDir(), "amp")
			in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, s.URL)})
			_, err := in.Ensure(t.Context(), newVersion)
			wantFault(t, err, fault.BootstrapFailed, "ended early", s.URL+rawFile)
			if len(glob(cache, ".part-*", "*.json")) != 1 {
				t.Fatal("nothing to resume from was left")
			}
			s.ranged(rawFile, data, nil)
			if test.change != nil {
				test.change(s, cache, data)
			}
			b, err := in.Ensure(t.Context(), newVersion)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, b.Path, data)
			if test.ranges != "" && s.header(rawFile, "Range") == "" {
				t.Error("it was not tried to resume")
			}
			if left := glob(cache, ".part-*"); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestLatestIsAskedAgain of a server that has a weak moment.
func TestLatestIsAskedAgain(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.publish(t, newVersion, bootstrap.LinuxX64)
	s.handle("/cli-version.txt", func(w http.ResponseWriter, _ *http.Request) {
		switch s.hits("/cli-version.txt") {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			drop(w)
		default:
			_, _ = w.Write([]byte(newVersion))
		}
	})
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, s.URL)})
	if b, err := in.Ensure(t.Context(), "latest"); err != nil || b.Version != newVersion {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestBusyServer waits as long as the server says, and not for longer than is reasonable.
func TestBusyServer(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		s := newSite(t, httptest.NewServer)
		data := s.publish(t, newVersion, bootstrap.LinuxX64)
		s.handle(rawFile+".gz", nil)
		s.handle(rawFile, func(w http.ResponseWriter, _ *http.Request) {
			if s.hits(rawFile) < 2 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(status)
				return
			}
			_, _ = w.Write(data)
		})
		var waits []time.Duration
		in := installer(t, bootstrap.Options{
			Sources: sources(t, bootstrap.Network{}, s.URL),
			Events:  bootstrap.Events{Retrying: func(_ string, _ error, wait time.Duration) { waits = append(waits, wait) }},
		})
		if _, err := in.Install(t.Context(), newVersion); err != nil {
			t.Errorf("%d: %v", status, err)
		}
		if len(waits) != 1 || waits[0] < time.Second || waits[0] > 2*time.Second {
			t.Errorf("%d: waited %s", status, waits)
		}
		if err := in.Remove(t.Context(), newVersion); err != nil {
			t.Fatal(err)
		}
		s.handle(rawFile, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(status)
		})
		before := s.hits(rawFile)
		_, err := in.Install(t.Context(), newVersion)
		wantFault(t, err, fault.BootstrapFailed, "asked again in 24h0m0s")
		if n := s.hits(rawFile) - before; n != 1 {
			t.Errorf("%d: asked %d times", status, n)
		}
	}
}

// TestSlowConnections has a server that is slow for each connection: several share the work.
func TestSlowConnections(t *testing.T) {
	const size = 24 << 20
	for name, most := range map[string]int32{"as many as you like": 100, "one at a time": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, httptest.NewServer)
			data := append([]byte("#!/bin/sh\nexit 0\n#"), bytes.Repeat([]byte("0123456789abcdef"), size/16)...)
			s.serve("/"+newVersion+"/linux-x64-amp.sha256", []byte(sha256Hex(data)))
			var at, peak atomic.Int32
			s.handle(rawFile, func(w http.ResponseWriter, r *http.Request) {
				n := at.Add(1)
				defer at.Add(-1)
				if n > most {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				peak.Store(max(peak.Load(), n))
				w.Header().Set("ETag", `"1"`)
				w.Header().Set("Content-Type", "application/octet-stream")
				http.ServeContent(w, r, "", time.Time{}, &slowReader{
					Reader: bytes.NewReader(data), w: w, r: r,
					sending: func(int, *http.Request) { time.Sleep(spoonful * time.Second / (10 << 20)) },
				})
			})
			in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, s.URL)})
			b, err := in.Ensure(t.Context(), newVersion)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, b.Path, data)
			if most > 1 && peak.Load() < 3 {
				t.Errorf("%d connections at a time", peak.Load())
			}
		})
	}
}

func glob(elem ...string) []string {
	list, _ := filepath.Glob(filepath.Join(elem...))
	return list
}

func damage(path string) {
	if data, err := os.ReadFile(path); err == nil {
		data[len(data)/2] ^= 1
		_ = os.WriteFile(path, data, 0o600)
	}
}
