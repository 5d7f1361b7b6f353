package cmd

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// dyingAmp knows what a turn asks for, and dies in it.
const dyingAmp = `#!/bin/sh
case "$*" in
*--version*) echo 0.0.1790000000-gabcdef ;;
*--help*) printf 'Options:\n  -x, --execute  run\n  -m, --mode <value>  mode (deep, rush, smart)\n  --stream-json  json\n  --settings-file <f>  settings\n' ;;
*) echo "segmentation fault in the middle" >&2; exit 9 ;;
esac
`

// Every kind of failure of a turn names the check that looks into it, and the doctor begins with it if the turn failed.
func TestFailuresNameTheirCheck(t *testing.T) {
	script := func(t *testing.T, w *world, text string) string {
		path := w.write(t, filepath.Join(w.home, "bin", "amp"), text)
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	feb := func(t *testing.T) string { return amptest.Builds()[0].InstallT(t, nil) }
	tests := []struct {
		code  fault.Code
		check string
		spoil func(t *testing.T, w *world) []string
		leads bool // the doctor begins with it
	}{
		{fault.KeyMissing, "key.found", func(_ *testing.T, w *world) []string {
			delete(w.env, "AMP_API_KEY")
			return []string{"run", "hello"}
		}, false}, // who never ran anything before gets no directories for it
		{fault.KeyRejected, "key.accepted", func(t *testing.T, w *world) []string {
			w.env["AMP_API_KEY"] = "wrong-key"
			return []string{"run", "--amp-path", feb(t), "hello"}
		}, true},
		{fault.ModeUnavailable, "modes", func(t *testing.T, w *world) []string {
			return []string{"run", "--amp-path", script(t, w, dyingAmp), "-m", "free", "hello"}
		}, true},
		{fault.ServiceUnreachable, "service", func(t *testing.T, w *world) []string {
			w.env["AMP_URL"] = "http://127.0.0.1:1/"
			return []string{"run", "--amp-path", feb(t), "hello"}
		}, true},
		{fault.BootstrapFailed, "amp", func(_ *testing.T, w *world) []string {
			return []string{"run", "--amp-path", filepath.Join(w.home, "nothing"), "hello"}
		}, true},
		{fault.SandboxUnavailable, "sandbox", func(t *testing.T, w *world) []string {
			return []string{"run", "--amp-path", script(t, w, dyingAmp), "--sandbox", "seatbelt", "hello"}
		}, true},
		{fault.AmpCrashed, "sessions.last", func(t *testing.T, w *world) []string {
			return []string{"run", "--amp-path", script(t, w, dyingAmp), "-m", "smart", "hello"}
		}, true},
		{fault.TurnFailed, "sessions.last", func(t *testing.T, _ *world) []string {
			return []string{"run", "--amp-path", feb(t), "HTTP:400"}
		}, true},
		{fault.Timeout, "sessions.last", func(t *testing.T, _ *world) []string {
			return []string{"run", "--amp-path", feb(t), "--timeout", "1ms", "hello"}
		}, true},
		{fault.SessionNotFound, "sessions.store", func(*testing.T, *world) []string {
			return []string{"continue", "hello"}
		}, false}, // no turn began
		{fault.Internal, "config", func(t *testing.T, w *world) []string {
			w.write(t, filepath.Join(w.home, ".local/state/sesame/sessions"), "a file in its place")
			return []string{"run", "--amp-path", script(t, w, dyingAmp), "-m", "smart", "hello"}
		}, true},
	}
	for _, test := range tests {
		t.Run(string(test.code), func(t *testing.T) {
			w, _ := newPatientWorld(t)
			args := test.spoil(t, w)
			if code := w.run(t, args...); code != exitOf(test.code) {
				t.Fatalf("exit %d, want %d: %s", code, exitOf(test.code), w.errOut)
			}
			if explains(test.code) != test.check || !strings.Contains(w.errOut.String(), "hint: `sesame doctor --only "+test.check+"` looks into it") {
				t.Errorf("%s: %s", explains(test.code), w.errOut)
			}
			w.doctor(t, "--offline")
			_, body, _ := strings.Cut(w.out.String(), "\n\n")
			if leads := strings.HasPrefix(body, "the last turn\n"); leads != test.leads {
				t.Errorf("leads: %v\n%s", leads, w.out)
			}
			if test.code == fault.AmpCrashed && !strings.Contains(body, "segmentation fault in the middle") {
				t.Errorf("no last words in %s", body)
			}
			if test.leads && test.check != session.CheckLastID && !strings.Contains(body, "see "+test.check+" below") {
				t.Errorf("no cause in %s", body)
			}
		})
	}
}

// A session that somebody works in is named, too.
func TestBusySessionNamesItsCheck(t *testing.T) {
	if got := explains(fault.SessionBusy); got != "sessions.locks" {
		t.Errorf("got %s", got)
	}
	w, s := newPatientWorld(t)
	store := session.NewStore(filepath.Join(w.home, ".local/state/sesame"), w.now)
	held, err := store.Create(session.Record{Workspace: w.cwd, ServiceURL: s.URL(), ThreadID: "T-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	code := w.run(t, "continue", "--session", held.Record().ID, "hello")
	if code != 8 || !strings.Contains(w.errOut.String(), "hint: `sesame doctor --only sessions.locks` looks into it") {
		t.Errorf("exit %d: %s", code, w.errOut)
	}
	if r, _ := w.examine(t, "--only", "sessions"); !strings.Contains(r.Checks["sessions.locks"].Summary, held.Record().ID) {
		t.Errorf("got %+v", r.Checks["sessions.locks"])
	}
}

// Where Amp comes from is gone to from this machine; what the policy does not allow is refused inside, and that is well.
func TestDoctorSourcesInside(t *testing.T) {
	w, _ := newPatientWorld(t)
	files := http.FileServer(http.Dir(w.env["SESAME_AMP_SOURCES"]))
	plain, secure := httptest.NewServer(files), httptest.NewTLSServer(files)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	w.env["SESAME_AMP_SOURCES"] = plain.URL + "," + secure.URL
	r, code := w.examine(t)
	if c := r.Checks["sources.mirror1"]; code != 0 || c.Status != check.OK || !strings.Contains(strings.Join(c.Details, "\n"), "proxy: none in use\nconnection: 127.0.0.1:") {
		t.Errorf("exit %d: %+v", code, c)
	}
	if c := r.Checks["sources.mirror2"]; c.Status != check.Warn || !strings.Contains(strings.Join(c.Remedy, "\n"), "signed by O=Acme Co: if that is your company's proxy") {
		t.Errorf("of a stranger's authority: %+v", c)
	}
	for _, id := range []string{"inside.mirror1", "inside.mirror2"} {
		c := r.Checks[id]
		if c.Status != check.OK || !strings.Contains(c.Summary, "is refused, as it is to be: sesame itself fetches Amp, from outside") || !strings.Contains(strings.Join(c.Details, "\n"), "inside, by its name: ") {
			t.Errorf("%s: %+v", id, c)
		}
	}
	at := strings.TrimPrefix(secure.URL, "https://")
	r, _ = w.examine(t, "--allow-host", strings.TrimPrefix(plain.URL, "http://"), "--allow-host", at, "--only", "inside")
	if c := r.Checks["inside.mirror1"]; c.Status != check.OK || !strings.Contains(c.Summary, "can be reached, as the policy says (allow-host 127.0.0.1:") {
		t.Errorf("allowed: %+v", c)
	}
	// Trusted, it says who signed.
	w.env["SSL_CERT_FILE"] = w.write(t, filepath.Join(w.home, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	if r, _ = w.examine(t, "--only", "sources.mirror2"); !strings.Contains(r.Checks["sources.mirror2"].Summary, "signed by O=Acme Co, TLS 1.3") {
		t.Errorf("trusted: %+v", r.Checks["sources.mirror2"])
	}
	delete(w.env, "SSL_CERT_FILE")
	w.env["SESAME_AMP_SOURCES"], w.env["HTTPS_PROXY"] = plain.URL+",https://mirror.example/", "http://127.0.0.1:1"
	if c := mustCheck(t, w, "sources.mirror2"); c.Status != check.Warn || !strings.Contains(c.Remedy[0], "is the proxy's address right?") || !strings.Contains(strings.Join(c.Details, "\n"), "proxy: 127.0.0.1:1") {
		t.Errorf("proxy down: %+v", c)
	}
}

func mustCheck(t *testing.T, w *world, id string) checkReport {
	t.Helper()
	r, _ := w.examine(t, "--only", id)
	return r.Checks[id]
}

// newThread is one that the service has.
func newThread(t *testing.T, s *amptest.Service) string {
	t.Helper()
	const id = "T-00000000-0000-4000-8000-000000000001"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"api/thread-actors", strings.NewReader(`{"threadId":"`+id+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Key())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return id
}

// Only a websocket that opens shows that they pass: here, and from inside; and one that a proxy makes a plain question of does not.
func TestDoctorWebsocket(t *testing.T) {
	w, s := newPatientWorld(t)
	thread := newThread(t, s)
	to, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	keeping := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("Connection")
		r.Header.Del("Upgrade")
		keeping.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	for base, want := range map[string]struct {
		status check.Status
		says   string
	}{
		s.URL():         {check.OK, "opens, and messages come through"},
		front.URL + "/": {check.Warn, "426 Upgrade Required"},
	} {
		w.env["AMP_URL"] = base
		store := session.NewStore(filepath.Join(w.home, ".local/state/sesame"), w.now)
		kept, err := store.Create(session.Record{Workspace: w.cwd, ServiceURL: base, ThreadID: thread})
		if err != nil {
			t.Fatal(err)
		}
		kept.Close()
		r, _ := w.examine(t, "--only", "service.websocket", "--only", "inside.websocket")
		for _, id := range []string{"service.websocket", "inside.websocket"} {
			if c := r.Checks[id]; c.Status != want.status || !strings.Contains(c.Summary, want.says) {
				t.Errorf("%s, %s: %+v", base, id, c)
			}
		}
	}
}
