//go:build unix

package amp_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

const (
	scriptInit   = `echo '{"type":"system","subtype":"init","session_id":"T-00000000-0000-0000-0000-000000000001"}'` + "\n"
	scriptResult = `echo '{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"fine"}'` + "\n"
)

// Scripts stand for Amp only where no real build does the like on demand.

func TestCrashes(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		code         fault.Code
		want         string // in the message
	}{
		{"segmentation fault", scriptInit + "echo about to >&2\nkill -SEGV $$", fault.AmpCrashed, "Amp process exited unexpectedly (signal 11, segmentation fault); its last words: about to"},
		{"killed", "kill -KILL $$", fault.AmpCrashed, "(signal 9, killed); it wrote nothing to stderr"},
		{"no result and exit 0", scriptInit, fault.AmpCrashed, "(status 0)"},
		{"nothing at all", "", fault.AmpCrashed, "(status 0)"},
		{"garbage", "head -c 100000 /dev/urandom; exit 3", fault.AmpCrashed, "(status 3)"},
		{"half a result", `printf '{"type":"result","subtype":"succ'`, fault.AmpCrashed, "(status 0)"},
		{"stack trace", "for i in 1 2 3 4 5 6 7; do echo \"line $i\" >&2; done; exit 1", fault.AmpCrashed, "line 3 | line 4 | line 5 | line 6 | line 7"},
		{"terminal codes", `printf '\033[31mred\033[0m \007\n' >&2; exit 1`, fault.AmpCrashed, "last words: red"},
		{"result, then an exit code", scriptResult + "exit 7", "", ""},
		{"result without a newline", strings.TrimSpace(strings.Replace(scriptResult, "echo", "printf %s", 1)), "", ""},
		{"not archived", "echo 'Error: This thread is archived and cannot be continued.' >&2; exit 1", fault.TurnFailed, "archived"},
		{"refused by the service", `echo 'Error: {"ok":false,"error":{"message":"no such plan"}}' >&2; exit 1`, fault.TurnFailed, "refuses the turn: no such plan"},
		{"key expired", "echo 'Error: Access token expired. Run x' >&2; exit 1", fault.ServiceUnreachable, "the service accepts it"},
		{"no stream anywhere", "echo \"Error: Stream JSON mode is not permitted with 'smart' mode.\" >&2; exit 1", fault.ModeUnavailable, "smart"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := scriptRig(t, "cat >/dev/null\n"+tt.script)
			o := r.options("hello")
			o.Mode.AmpMode = "smart"
			out, err := r.run(o)
			if fault.CodeOf(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %s: %v", fault.CodeOf(err), err)
			}
			if err == nil && out.Result != "fine" {
				t.Errorf("result %q", out.Result)
			}
			if tt.code == fault.AmpCrashed {
				hints := strings.Join(fault.HintsOf(err), "\n")
				for _, want := range []string{o.StderrFile, "key is valid", "network access to ampcode.com"} {
					if !strings.Contains(hints, want) {
						t.Errorf("no hint with %q: %s", want, hints)
					}
				}
			}
		})
	}
}

// TestHugeLines sees that a turn whose lines are huge takes bounded memory, and
// that file and stdout still get every byte.
func TestHugeLines(t *testing.T) {
	const megabytes = 256
	r := scriptRig(t, "cat >/dev/null\n"+scriptInit+`printf '{"type":"user","message":{"content":"'
head -c `+strconv.Itoa(megabytes<<20)+` /dev/zero | tr '\0' x
printf '"}}\n'
`+scriptResult)
	o := r.options("hello")
	count := &counter{}
	o.Raw = count
	peak := watchHeap(t)
	out, err := amp.RunTurn(t.Context(), o)
	if err != nil || out.Result != "fine" || out.OutputErr != nil {
		t.Fatalf("%+v %v", out, err)
	}
	if used := peak(); used > 160<<20 {
		t.Errorf("the turn used %d MB for a line of %d MB", used>>20, megabytes)
	}
	info, err := os.Stat(o.EventsFile)
	if err != nil || info.Size() < megabytes<<20 || info.Size() != count.n {
		t.Errorf("file %v, stdout %d: %v", info.Size(), count.n, err)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// watchHeap samples the heap until the returned function is called.
func watchHeap(t *testing.T) func() uint64 {
	t.Helper()
	runtime.GC()
	done, result := make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-tick.C:
			case <-done:
				result <- peak
				return
			}
		}
	}()
	return func() uint64 { close(done); return <-result }
}

// TestStubborn is an Amp that ignores the signal: it is killed after the grace.
func TestStubborn(t *testing.T) {
	r := scriptRig(t, "trap '' TERM INT\ncat >/dev/null\n"+scriptInit+"while :; do sleep 0.1; done")
	o := r.options("hello")
	o.Grace = 200 * time.Millisecond
	begun := time.Now()
	out, err := r.stopAfterFirst(o)
	if fault.CodeOf(err) != fault.Canceled || !errors.Is(err, errStopped) {
		t.Errorf("got %v", err)
	}
	if out.Exit.Signal != syscall.SIGKILL || time.Since(begun) > 10*time.Second {
		t.Errorf("%+v after %v", out.Exit, time.Since(begun))
	}
}

// TestLateSuccess is an Amp that makes a success of being stopped.
func TestLateSuccess(t *testing.T) {
	r := scriptRig(t, "trap 'echo \"$R\"; exit 0' TERM\nR='{\"type\":\"result\",\"subtype\":\"success\",\"result\":\"done\"}'\ncat >/dev/null\n"+
		scriptInit+"while :; do sleep 0.1; done")
	if out, err := r.stopAfterFirst(r.options("hello")); fault.CodeOf(err) != fault.Canceled {
		t.Errorf("%+v %v", out, err)
	}
}

// TestLingering is an Amp that does not end after its result: the result stands.
func TestLingering(t *testing.T) {
	r := scriptRig(t, "cat >/dev/null\n"+scriptInit+scriptResult+"exec sleep 300")
	o := r.options("hello")
	o.Linger = 100 * time.Millisecond
	out, err := r.run(o)
	if err != nil || out.Result != "fine" {
		t.Errorf("%+v %v", out, err)
	}
}

// TestUserCanceled is Amp being interrupted by someone other than us.
func TestUserCanceled(t *testing.T) {
	r := scriptRig(t, `cat >/dev/null
echo '{"type":"result","subtype":"error_during_execution","is_error":true,"error":"User cancelled (SIGINT/SIGTERM)"}'`)
	if _, err := r.run(r.options("hello")); fault.CodeOf(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestKeyIsRedacted(t *testing.T) {
	r := scriptRig(t, `cat >/dev/null
echo "the key is $AMP_API_KEY" >&2
echo "{\"type\":\"assistant\",\"message\":{\"content\":\"$AMP_API_KEY\"}}"
echo "{\"type\":\"result\",\"subtype\":\"success\",\"result\":\"$AMP_API_KEY!\"}"`)
	out, err := r.run(r.options("hello")) // which looks for the key everywhere
	if err != nil || out.Result != "[redacted]!" || strings.Join(out.Stderr, "") != "the key is [redacted]" {
		t.Errorf("%+v %v", out, err)
	}
}

// TestInvocation sees what Amp is started with.
func TestInvocation(t *testing.T) {
	r := scriptRig(t, `cat > "$HOME/stdin"
env > "$HOME/env"
for a; do echo "$a"; done > "$HOME/args"
`+scriptResult)
	r.caps.Flags = append(r.caps.Flags, "--settings-file", "--no-archive-after-execute", "--mcp-config")
	o := r.options("-x --help")
	o.Mode.AmpMode, o.Args, o.MCPConfig, o.Labels, o.Thinking = "smart", []string{"--log-level=debug"}, []string{"{}"}, []string{"l"}, true
	if _, err := r.run(o); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(r.home, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if got := read("stdin"); got != "-x --help" {
		t.Errorf("stdin %q", got)
	}
	want := []string{
		"--dangerously-allow-all", "--no-archive-after-execute", "--settings-file", o.SettingsFile, "--mcp-config", "{}",
		"--mode", "smart", "--stream-json", "--log-level=debug", "-x",
	}
	if got := strings.TrimSpace(read("args")); got != strings.Join(want, "\n") {
		t.Errorf("args %s", got)
	}
	env := read("env")
	for _, line := range []string{"AMP_API_KEY=" + o.Key, "AMP_URL=" + o.ServiceURL, "AMP_SKIP_UPDATE_CHECK=1", "AMP_REMOTE_CONTROL_TERMINAL=0"} {
		name, _, _ := strings.Cut(line, "=")
		if !strings.Contains(env, line+"\n") || strings.Count(env, name+"=") != 1 {
			t.Errorf("%s is not in the environment once", name)
		}
	}
	if notes := strings.Join(r.notes, "\n"); len(r.notes) != 2 || !strings.Contains(notes, "--label") || !strings.Contains(notes, "thinking is not shown") {
		t.Errorf("notices %q", r.notes)
	}
}

func TestBrokenOutputs(t *testing.T) {
	r := scriptRig(t, "cat >/dev/null\n"+scriptInit+scriptResult)
	o := r.options("hello")
	o.Raw = brokenPipe{}
	o.Thread = func(string) error { return errors.New("disk full") }
	out, err := amp.RunTurn(t.Context(), o)
	if err != nil || out.Result != "fine" || !errors.Is(out.OutputErr, syscall.EPIPE) || !strings.Contains(out.OutputErr.Error(), "disk full") {
		t.Errorf("%+v %v", out, err)
	}
	if data, err := os.ReadFile(o.EventsFile); err != nil || !bytes.Contains(data, []byte(`"fine"`)) {
		t.Errorf("events %s %v", data, err)
	}
	o = r.options("hello")
	o.EventsFile = filepath.Join(r.home, "none", "events.jsonl")
	if _, err := amp.RunTurn(t.Context(), o); fault.CodeOf(err) != fault.Internal {
		t.Errorf("no place for the log: %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestRefusedBeforeStart(t *testing.T) {
	started := false
	launcher := amp.LauncherFunc(func(context.Context, *sandbox.Command) (*sandbox.Process, error) {
		started = true
		return nil, errors.New("started")
	})
	good := amp.TurnOptions{Launcher: launcher, Path: "/amp", Caps: &amp.Capabilities{}, Prompt: "p", ServiceURL: "http://127.0.0.1:1/", Key: "k"}
	for name, tt := range map[string]struct {
		change func(o *amp.TurnOptions)
		code   fault.Code
	}{
		"empty prompt":  {func(o *amp.TurnOptions) { o.Prompt = " \n" }, fault.Usage},
		"NUL":           {func(o *amp.TurnOptions) { o.Prompt = "a\x00b" }, fault.Usage},
		"invalid UTF-8": {func(o *amp.TurnOptions) { o.Prompt = "a\xffb" }, fault.Usage},
		"too long":      {func(o *amp.TurnOptions) { o.Prompt = strings.Repeat("x", amp.MaxPrompt+1) }, fault.Usage},
		"no key":        {func(o *amp.TurnOptions) { o.Key = "" }, fault.KeyMissing},
		"odd thread":    {func(o *amp.TurnOptions) { o.ThreadID = "--last" }, fault.SessionNotFound},
	} {
		o := good
		tt.change(&o)
		if _, err := amp.RunTurn(t.Context(), o); fault.CodeOf(err) != tt.code || started {
			t.Errorf("%s: %v, started %v", name, err, started)
		}
	}
	if _, err := amp.RunTurn(t.Context(), good); err == nil || !started {
		t.Errorf("the launcher's error is lost: %v", err)
	}
}

func TestProbeRefusals(t *testing.T) {
	script := func(body string) string {
		path := filepath.Join(t.TempDir(), "amp")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	truePath, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(plain, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path string
		code fault.Code
	}{
		"missing":        {filepath.Join(t.TempDir(), "none"), fault.Usage},
		"a directory":    {t.TempDir(), fault.Usage},
		"no executable":  {plain, fault.AmpCrashed},
		"something else": {truePath, fault.Usage},
		"dies":           {script("echo why >&2; kill -SEGV $$"), fault.AmpCrashed},
		"hangs":          {script("exec sleep 60"), fault.AmpCrashed},
		"says too much":  {script("yes"), fault.AmpCrashed},
	} {
		t.Run(name, func(t *testing.T) {
			p := amp.Prober{
				Launcher: amp.InPolicy(&sandbox.Policy{Tier: sandbox.Off, Workspace: t.TempDir()}),
				Env:      []string{"PATH=" + os.Getenv("PATH")}, CacheDir: t.TempDir(), Timeout: 300 * time.Millisecond,
			}
			if _, err := p.Probe(t.Context(), tt.path); fault.CodeOf(err) != tt.code {
				t.Errorf("got %s: %v", fault.CodeOf(err), err)
			}
			if entries, err := os.ReadDir(p.CacheDir); err != nil || len(entries) != 0 {
				t.Errorf("a failure was cached: %v %v", entries, err)
			}
		})
	}
}

// TestProbeKeepsTheKeyOut sees what a probed build gets to see.
func TestProbeKeepsTheKeyOut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "amp")
	body := "#!/bin/sh\nenv >> " + filepath.Join(dir, "env") + "\nprintf 'Options:\\n\\n  -x, --execute [message]\\n      Text\\n'\n"
	if err := os.WriteFile(path, []byte(body), 0o700); err != nil {
		t.Fatal(err)
	}
	p := amp.Prober{Launcher: amp.InPolicy(&sandbox.Policy{Tier: sandbox.Off, Workspace: dir}), Env: []string{"AMP_API_KEY=secret", "AMP_URL=https://x/"}}
	c, err := p.Probe(t.Context(), path)
	if err != nil || !c.Has("--execute") || c.Version != "" {
		t.Fatalf("%+v %v", c, err)
	}
	env, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil || bytes.Contains(env, []byte("secret")) || bytes.Contains(env, []byte("https://x/")) {
		t.Errorf("%s %v", env, err)
	}
}
