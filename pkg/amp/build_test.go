//go:build unix

package amp_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// TestBuilds drives every real build through what a turn can be.
func TestBuilds(t *testing.T) {
	for _, b := range amptest.Builds() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			bin := b.InstallT(t, nil)
			first := newRig(t, bin)
			caps, err := first.prober.Probe(t.Context(), bin)
			if err != nil {
				t.Fatal(err)
			}
			for _, test := range []struct {
				name string
				run  func(t *testing.T, r *rig)
			}{
				{"capabilities", testCapabilities},
				{"text", testText},
				{"tool", testTool},
				{"thinking", testThinking},
				{"modes and continue", testModes},
				{"free", testFree},
				{"unknown option", testUnknownOption},
				{"odd prompts", testOddPrompts},
				{"wrong key", testWrongKey},
				{"service in trouble", testServiceInTrouble},
				{"service down", testServiceDown},
				{"model error", testModelError},
				{"no such thread", testNoThread},
				{"canceled while the model speaks", func(t *testing.T, r *rig) { testCancel(t, r, "SLOW:30") }},
				{"canceled while a tool runs", func(t *testing.T, r *rig) { testCancel(t, r, "RUN:sleep 30") }},
				{"timeout", testTimeout},
			} {
				t.Run(test.name, func(t *testing.T) {
					r := newRig(t, bin)
					known := *caps
					r.caps = &known
					test.run(t, r)
				})
			}
		})
	}
}

func testCapabilities(t *testing.T, r *rig) {
	c := r.caps
	for _, option := range []string{"--execute", "--stream-json", "--stream-json-thinking", "--label", "--mode", "--settings-file", "--mcp-config"} {
		if !c.Has(option) {
			t.Errorf("does not see %s in the help", option)
		}
	}
	if c.Has("--continue") || c.Has("--dangerously-skip-permissions") {
		t.Error("sees options that no build has")
	}
	if !strings.HasPrefix(c.Version, "0.0.1") {
		t.Errorf("version %q", c.Version)
	}
	listed := strings.Join(slices.Sorted(slices.Values(c.Modes)), " ")
	switch {
	case c.Version == amptest.Feb10JS:
		if listed != "deep free rush smart" || !c.ModesChecked || !slices.Contains(c.ModesAccepted, "large") {
			t.Errorf("modes %+v", c)
		}
	case c.Version == amptest.May4JS:
		if listed != "deep large rush smart" || !c.ModesChecked {
			t.Errorf("modes %+v", c)
		}
	default:
		if listed != "high low medium ultra" || c.ModesChecked || !c.Has("--no-archive-after-execute") {
			t.Errorf("modes %+v", c)
		}
	}

	if _, err := r.prober.Probe(t.Context(), r.bin); err != nil {
		t.Fatal(err)
	}
	// From here on the cache answers: nothing is started, since there is no launcher.
	cached := amp.Prober{CacheDir: r.prober.CacheDir}
	again, err := cached.Probe(t.Context(), r.bin)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Error(diff)
	}
	learned := *c
	learned.StreamRefused = []string{"rush"}
	if err := r.prober.Remember(r.bin, &learned); err != nil {
		t.Fatal(err)
	}
	if again, err = cached.Probe(t.Context(), r.bin); err != nil || !slices.Equal(again.StreamRefused, learned.StreamRefused) {
		t.Errorf("not remembered: %+v %v", again, err)
	}
	// A broken entry is asked for again and replaced.
	entries, err := filepath.Glob(filepath.Join(r.prober.CacheDir, "*.json"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("cache: %v %v", entries, err)
	}
	for _, broken := range []string{"", "{", `{"schema_version":1}`, strings.Repeat("x", 1000)} {
		if err := os.WriteFile(entries[0], []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if again, err = r.prober.Probe(t.Context(), r.bin); err != nil || again.Version != c.Version {
			t.Errorf("after %.20q: %+v %v", broken, again, err)
		}
	}
}

func testText(t *testing.T, r *rig) {
	o := r.options("hello there")
	o.Mode = r.mode("smart")
	o.Labels = []string{"sesame"}
	out, err := r.run(o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.Result, "ECHO[") || !strings.Contains(out.Result, "hello there") {
		t.Errorf("result %q", out.Result)
	}
	if !amp.ValidThread(out.ThreadID) || r.thread != out.ThreadID || out.IsError || out.Plain || out.NumTurns != 1 || out.Duration <= 0 {
		t.Errorf("%+v, thread %q", out, r.thread)
	}
	if out.Usage == nil || out.Usage.InputTokens == 0 || out.Usage.OutputTokens == 0 {
		t.Errorf("usage %+v", out.Usage)
	}
	if len(r.notes) != 0 {
		t.Errorf("notices: %q", r.notes)
	}
	var kinds []string
	for line := range bytes.Lines(r.raw.Bytes()) {
		var l struct{ Type string }
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		kinds = append(kinds, l.Type)
	}
	if strings.Join(kinds, " ") != "system user assistant result" || len(r.events) != 4 {
		t.Errorf("lines %v, events %v", kinds, r.events)
	}
}

func testTool(t *testing.T, r *rig) {
	o := r.options("RUN:echo made > made-here && cat made-here")
	out, err := r.run(o)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(r.workspace, "made-here")); err != nil || string(data) != "made\n" {
		t.Errorf("the tool made %q: %v", data, err)
	}
	if !strings.Contains(out.Result, "TOOL SAID") {
		t.Errorf("result %q", out.Result)
	}
	var call, answer string
	calls := 0
	for _, e := range r.events {
		switch e := e.(type) {
		case *amp.Assistant:
			if e.Usage != nil {
				calls++
			}
			for _, use := range e.Tools {
				call = use.Argument()
			}
		case *amp.User:
			for _, result := range e.Results {
				answer = result.Text
			}
		}
	}
	if !strings.Contains(call, "echo made") || !strings.Contains(answer, "made") {
		t.Errorf("tool call %q, answer %q", call, answer)
	}
	if calls != 2 || out.Usage == nil || out.Usage.InputTokens < 2 {
		t.Errorf("%d model calls, usage %+v", calls, out.Usage)
	}
}

func testThinking(t *testing.T, r *rig) {
	for _, show := range []bool{true, false} {
		o := r.options("THINK:deep thoughts")
		o.Thinking = show
		if _, err := r.run(o); err != nil {
			t.Fatal(err)
		}
		thought := ""
		for _, e := range r.events {
			if a, ok := e.(*amp.Assistant); ok {
				thought += a.Thinking
			}
		}
		if strings.Contains(thought, "deep thoughts") != show {
			t.Errorf("thinking shown %v: %q", show, thought)
		}
	}
}

// testModes runs rush, deep and the default, and continues each: the second turn
// carries the first and stays in its mode.
func testModes(t *testing.T, r *rig) {
	for _, name := range []string{"smart", "rush", "deep"} {
		mode := r.mode(name)
		first := func() amp.Outcome {
			o := r.options("first")
			o.Mode = mode
			o.SettingsFile = r.settings(filepath.Dir(o.EventsFile), mode)
			out, err := r.run(o)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return out
		}
		out := first()
		for tries := 5; out.Plain && out.ThreadID == "" && tries > 0; tries-- { // on a busy machine that build may end before it has noted its thread
			t.Logf("%s: the build did not note its thread", name)
			out = first()
		}
		if want := "ECHO[" + mode.AmpMode + "]"; !strings.HasPrefix(out.Result, want) {
			t.Errorf("%s: result %q, want %s", name, out.Result, want)
		}
		wantPlain := r.caps.Version == amptest.Feb10JS && name != "smart"
		if out.Plain != wantPlain {
			t.Errorf("%s: plain is %v", name, out.Plain)
		}
		if wantPlain {
			checkPlain(t, r, out, name)
		}
		if !amp.ValidThread(out.ThreadID) || r.thread != out.ThreadID {
			t.Fatalf("%s: thread %q, told %q", name, out.ThreadID, r.thread)
		}
		// Another thread in between, so that "the last one" would be wrong.
		if _, err := r.run(r.options("something else")); err != nil {
			t.Fatal(err)
		}
		next := r.options("second")
		next.ThreadID, next.Mode = out.ThreadID, mode
		again, err := r.run(next)
		if err != nil {
			t.Fatalf("%s: continue: %v", name, err)
		}
		// On a busy machine the build of February 10 may end before the service has its last answer: then that one is missing.
		carried := strings.HasSuffix(again.Result, "(3 messages)") || r.caps.Version == amptest.Feb10JS && strings.HasSuffix(again.Result, "(2 messages)")
		if want := "ECHO[" + mode.AmpMode + "]"; !strings.HasPrefix(again.Result, want) || !carried {
			t.Errorf("%s: continued with %q", name, again.Result)
		}
		if again.ThreadID != out.ThreadID || again.Plain {
			t.Errorf("%s: continued %+v", name, again)
		}
	}
	if r.caps.Version == amptest.Feb10JS && len(r.caps.StreamRefused) != 2 {
		t.Errorf("learned %+v", r.caps)
	}
}

// checkPlain sees that a turn without a JSON stream says so and pretends nothing.
func checkPlain(t *testing.T, r *rig, out amp.Outcome, mode string) {
	t.Helper()
	if len(r.notes) != 1 || !strings.Contains(r.notes[0], "refuses --stream-json") {
		t.Errorf("notices %q", r.notes)
	}
	var subtypes []string
	for line := range bytes.Lines(r.raw.Bytes()) {
		var l struct {
			Type, Subtype, Text, Mode string
			SessionID                 string `json:"session_id"`
		}
		if err := json.Unmarshal(line, &l); err != nil || l.Type != "sesame" || l.SessionID != out.ThreadID {
			t.Errorf("%s: %v", line, err)
		}
		subtypes = append(subtypes, l.Subtype)
		if l.Subtype == "answer" && l.Text != out.Result || l.Subtype == "plain_turn" && l.Mode != mode {
			t.Errorf("%s", line)
		}
	}
	if strings.Join(subtypes, " ") != "plain_turn answer" {
		t.Errorf("lines %v", subtypes)
	}
}

func testFree(t *testing.T, r *rig) {
	mode, err := amp.Translate("free", r.caps, nil)
	if err == nil {
		o := r.options("hello")
		o.Mode = mode
		_, err = r.run(o)
	}
	if fault.CodeOf(err) != fault.ModeUnavailable {
		t.Errorf("free: %v", err)
	}
}

// testUnknownOption is a build that dropped an option which the driver gives:
// the turn goes on without it. What the user gave is the user's mistake.
func testUnknownOption(t *testing.T, r *rig) {
	lying := *r.caps
	lying.Flags = append(slices.Clone(lying.Flags), "--no-archive-after-execute")
	o := r.options("hello")
	o.Caps = &lying
	out, err := r.run(o)
	if err != nil || !strings.HasPrefix(out.Result, "ECHO[") {
		t.Errorf("%+v %v", out, err)
	}
	if r.caps.ModesChecked && (out.Learned == nil || !slices.Equal(out.Learned.FlagsRefused, []string{"--no-archive-after-execute"})) {
		t.Errorf("learned %+v", out.Learned)
	}
	o = r.options("hello")
	o.Args = []string{"--no-such-option"}
	_, err = r.run(o)
	if fault.CodeOf(err) != fault.Usage || !strings.Contains(err.Error(), "--no-such-option") {
		t.Errorf("the user's option: %v", err)
	}
}

func testOddPrompts(t *testing.T, r *rig) {
	// The native builds count the message as JSON, with what stands around it.
	long := strings.Repeat("0123456789abcde ", amp.MaxPrompt/16-4) + "the end of it."
	for name, prompt := range map[string]string{
		"like an option": "--help", "like stdin": "-", "unicode": "żółć 😀\u202e", "quotes": `a "b" 'c' $d \e`, "long": long,
	} {
		out, err := r.run(r.options(prompt))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := strings.TrimSpace(prompt); !strings.Contains(out.Result, want) {
			t.Errorf("%s: not in the answer of %d bytes", name, len(out.Result))
		}
	}
}

func testWrongKey(t *testing.T, r *rig) {
	o := r.options("hello")
	o.Key = "sgamp_user_wrong"
	o.CheckKey = nil
	_, err := r.run(o)
	if fault.CodeOf(err) != fault.KeyRejected || len(fault.HintsOf(err)) == 0 {
		t.Errorf("got %v", err)
	}
}

// testServiceInTrouble: some builds call the key invalid when the service fails.
func testServiceInTrouble(t *testing.T, r *rig) {
	r.svc.SetFaults(amptest.Faults{UserInfoStatus: http.StatusInternalServerError})
	_, err := r.run(r.options("hello"))
	if fault.CodeOf(err) != fault.ServiceUnreachable {
		t.Errorf("got %v", err)
	}
	r.svc.SetFaults(amptest.Faults{ThreadActorsStatus: http.StatusPaymentRequired, ThreadActorsMessage: "You are out of credit, friend."})
	_, err = r.run(r.options("hello"))
	if !r.caps.ModesChecked && (fault.CodeOf(err) != fault.TurnFailed || !strings.HasSuffix(err.Error(), ": You are out of credit, friend.")) {
		t.Errorf("got %v", err)
	}
}

func testServiceDown(t *testing.T, r *rig) {
	o := r.options("hello")
	o.ServiceURL = "http://127.0.0.1:1/"
	if _, err := r.run(o); fault.CodeOf(err) != fault.ServiceUnreachable {
		t.Errorf("got %v", err)
	}
}

func testModelError(t *testing.T, r *rig) {
	modes := []string{"smart"}
	if r.caps.Version == amptest.Feb10JS {
		modes = append(modes, "rush") // the plain way
	}
	for _, mode := range modes {
		o := r.options("HTTP:400")
		o.Mode = r.mode(mode)
		out, err := r.run(o)
		if fault.CodeOf(err) != fault.TurnFailed || !strings.Contains(err.Error(), "scripted failure") || !out.IsError {
			t.Errorf("%s: %+v %v", mode, out, err)
		}
	}
}

func testNoThread(t *testing.T, r *rig) {
	o := r.options("hello")
	o.ThreadID = "T-01a209f3-e571-70c5-bf5e-6348d2f2ccff"
	if _, err := r.run(o); fault.CodeOf(err) != fault.SessionNotFound {
		t.Errorf("got %v", err)
	}
}

func testCancel(t *testing.T, r *rig, prompt string) {
	begun := time.Now()
	out, err := r.stopAfterFirst(r.options(prompt))
	if fault.CodeOf(err) != fault.Canceled || amp.StatusOf(err) != "canceled" {
		t.Errorf("%+v %v", out, err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if !amp.ValidThread(out.ThreadID) {
		t.Errorf("no thread: %+v", out)
	}
}

func testTimeout(t *testing.T, r *rig) {
	o := r.options("SLOW:30")
	o.Timeout = 3 * time.Second
	_, err := r.run(o)
	if fault.CodeOf(err) != fault.Timeout {
		t.Errorf("got %v", err)
	}
}
