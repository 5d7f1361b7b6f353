package cmd

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sesame-cli/sesame/pkg/config"
)

const goodKey = "sgamp_user_01ABCDEFGHJKMNPQRSTVWXYZ23_" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestMain(m *testing.M) {
	// Whoever runs the tests in the background may have set signals to be ignored. Programs started from here
	// would go on ignoring them, and the tests of signals would wait for ever.
	if filepath.Base(os.Args[0]) != "sesame" {
		for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP, syscall.SIGTERM} {
			if signal.Ignored(s) {
				signal.Notify(make(chan os.Signal, 1), s)
			}
		}
	}
	testscript.Main(m, map[string]func(){
		"sesame": func() { os.Exit(Main(os.Args)) },
	})
}

// startService is a loopback service that takes goodKey and nothing else.
func startService(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Header.Get("Authorization") != "Bearer "+goodKey:
			http.Error(w, "no", http.StatusUnauthorized)
		case r.Method == http.MethodPost && r.URL.RequestURI() == "/api/internal?getUserInfo" && strings.Contains(string(body), `"getUserInfo"`):
			_, _ = io.WriteString(w, `{"ok":true,"result":{"id":"user_1","email":"a@b.c"}}`)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/"
}

func TestScripts(t *testing.T) {
	service := startService(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, ".home")
			env.Setenv("HOME", home)
			env.Setenv("XDG_CONFIG_DIRS", filepath.Join(env.WorkDir, ".xdg"))
			env.Setenv("SERVICE", service)
			env.Setenv("DBUS_SESSION_BUS_ADDRESS", "disabled:") // the keyring of who runs the tests is not ours
			work := filepath.Join(env.WorkDir, "work")
			env.Cd = work
			for _, dir := range []string{home, work} {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "writekey": writeKey, "mode": mode,
		},
	})
}

// exits runs a command and wants its exit code: `exits 2 sesame rnu`.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit %d, want %s (%v)", got, args[0], err)
	}
}

// writeKey writes the good key into a file, as people paste it.
func writeKey(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("export AMP_API_KEY="+goodKey+"\n"), 0o600))
}

// mode wants a file's permissions: `mode 0600 file`.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// world is an app whose outside is made of buffers and temporary directories.
type world struct {
	*app
	in, out, errOut *bytes.Buffer
	home            string

	resolver *net.Resolver  // of doctor; nil: the system's
	rootCAs  *x509.CertPool // likewise
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	streams, in, out, errOut := Test()
	w := &world{in: in, out: out, errOut: errOut, home: filepath.Join(dir, "home")}
	for _, d := range []string{"home", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.app = &app{
		io:          streams,
		env:         config.Env{"HOME": w.home, "XDG_CONFIG_DIRS": filepath.Join(dir, "xdg")},
		cwd:         filepath.Join(dir, "work"),
		now:         func() time.Time { return time.Unix(1790000000, 0) },
		redactor:    &config.Redactor{},
		checkKey:    askService(config.Env{}),
		findBrowser: func(config.Env) browser { return nil },
		takeSignals: func() <-chan os.Signal { return nil },
		awaitWatch:  func() {},
	}
	return w
}

func (w *world) run(t *testing.T, args ...string) int {
	t.Helper()
	return run(t.Context(), w.app, args)
}

func (w *world) write(t *testing.T, name, content string) string {
	t.Helper()
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(w.cwd, name)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every flag of a turn must arrive in the configuration.
func TestTurnFlags(t *testing.T) {
	w := newWorld(t)
	w.app.env["AMP_API_KEY"] = goodKey
	for _, d := range []string{"r", "out", "../home/d"} {
		if err := os.Mkdir(filepath.Join(w.cwd, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, "mcp.json", "{}")
	var cfg *config.Config
	var prompt, session string
	cmd := newContinueCmd(w.app, func(ctx context.Context, o *turnOptions) error {
		got, err := o.resolve(ctx)
		if err != nil {
			return err
		}
		cfg, prompt, session = got.config, got.prompt, o.session
		return nil
	})
	w.globalFlags(cmd.PersistentFlags())
	cmd.SetArgs([]string{
		"-m", "deep", "-o", "json", "-O", "last.txt", "--timeout", "90s", "--session", "3f", "--label", "a", "--label", "b,c",
		"--show-thinking", "-q", "--amp-version", "0.0.1-g1", "--amp-path", "./amp", "--amp-arg", "-x", "--amp-arg=--y",
		"--mcp-config", "mcp.json", "--allow-host", "a.example:22", "--allow-read", "r", "--allow-write", "out", "--deny-read", "~/d",
		"--pass-env", "GOFLAGS", "--sandbox", "namespaces", "--profile", "strict", "--expose-key", "do", "it", "--", "-now",
	})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"Mode": "deep", "Output": "json", "OutputFile": w.cwd + "/last.txt", "Timeout": 90e9, "Labels": []any{"a", "b,c"},
		"ShowThinking": true, "Quiet": true, "Verbose": false,
	}
	wantAmp := map[string]any{
		"Version": "0.0.1-g1", "Path": w.cwd + "/amp", "Args": []any{"-x", "--y"}, "MCPConfig": w.cwd + "/mcp.json",
	}
	wantSandbox := map[string]any{
		"Tier": "namespaces", "Profile": "strict", "AllowHosts": []any{"a.example:22"}, "AllowRead": []any{w.cwd + "/r"},
		"AllowWrite": []any{w.cwd + "/out"}, "DenyRead": []any{w.home + "/d"}, "PassEnv": []any{"GOFLAGS"}, "ExposeKey": true,
	}
	var got map[string]any
	data, err := json.Marshal(cfg)
	if err == nil {
		err = json.Unmarshal(data, &got)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct{ want, got any }{{want, got}, {wantAmp, got["Amp"]}, {wantSandbox, got["Sandbox"]}} {
		for name, value := range part.want.(map[string]any) {
			a, _ := json.Marshal(value)
			b, _ := json.Marshal(part.got.(map[string]any)[name])
			if string(a) != string(b) {
				t.Errorf("%s: got %s, want %s", name, b, a)
			}
		}
	}
	if prompt != "do it -now" || session != "3f" {
		t.Errorf("prompt %q, session %q", prompt, session)
	}
}

// With -o json there is an object on stdout whatever goes wrong, and only that.
func TestReportOnEveryFailure(t *testing.T) {
	tests := []struct {
		name, want string
		args       []string
		prepare    func(*testing.T, *world)
	}{
		{name: "unknown flag", args: []string{"run", "-o", "json", "--nope", "x"}, want: "unknown flag: --nope"},
		{name: "unknown flag first", args: []string{"continue", "--nope", "-ojson", "x"}, want: "unknown flag: --nope"},
		{name: "value missing", args: []string{"run", "--output=json", "x", "--mode"}, want: "flag needs an argument: --mode"},
		{name: "empty prompt", args: []string{"run", "-o", "json", " "}, want: "the prompt is empty"},
		{name: "bad duration", args: []string{"run", "-o", "json", "--timeout", "5", "x"}, want: `--timeout: "5" is not a duration`},
		{name: "workspace missing", args: []string{"run", "-o", "json", "-C", "nowhere", "x"}, want: "no such directory"},
		{name: "variable", args: []string{"run", "x", "--nope"}, want: "unknown flag: --nope", prepare: func(_ *testing.T, w *world) {
			w.env["SESAME_OUTPUT"] = "json"
		}},
		{name: "broken workspace file", args: []string{"run", "-o", "json", "x"}, want: ".sesame.yaml:1: sandbox.expose-key: refused", prepare: func(t *testing.T, w *world) {
			w.write(t, ".sesame.yaml", "sandbox: {expose-key: true}")
		}},
		{name: "the user's file wants json, another is broken", args: []string{"run", "x"}, want: ".sesame.yaml:1: nope: unknown key", prepare: func(t *testing.T, w *world) {
			w.write(t, filepath.Join(w.home, ".config/sesame/config.yaml"), "output: json")
			w.write(t, ".sesame.yaml", "nope: 1")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.prepare != nil {
				test.prepare(t, w)
			}
			if code := w.run(t, test.args...); code != 2 {
				t.Errorf("exit %d", code)
			}
			var r Report
			dec := json.NewDecoder(w.out)
			dec.DisallowUnknownFields()
			if err := dec.Decode(&r); err != nil || dec.More() {
				t.Fatalf("stdout is not one report: %v", err)
			}
			if r.SchemaVersion != 1 || r.Status != StatusError || r.Error == nil || r.Error.Code != "usage" || !strings.Contains(r.Error.Message, test.want) {
				t.Errorf("got %+v, %+v", r, r.Error)
			}
			if !strings.Contains(w.errOut.String(), "sesame: ") || !strings.Contains(w.errOut.String(), test.want) {
				t.Errorf("stderr: %s", w.errOut)
			}
		})
	}
}

func TestReportInStream(t *testing.T) {
	w := newWorld(t)
	w.run(t, "run", "-o", "stream-json", "")
	if !strings.HasPrefix(w.out.String(), `{"type":"sesame","subtype":"report","schema_version":1,`) {
		t.Errorf("stdout: %s", w.out)
	}
}

// The object's fields are the contract's: no more, no fewer, in its order.
func TestReportFields(t *testing.T) {
	data, err := json.Marshal(newReport())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schema_version":1,"session_id":"","thread_id":"","mode":"","amp_mode":"","amp_version":"","workspace":"","status":"",` +
		`"result":"","error":null,"num_turns":0,"duration_ms":0,"usage":null,"sandbox":{"tier":"","denials":[]},"logs":{"stderr":"","events":""}}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}
