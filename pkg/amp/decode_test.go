package amp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const someThread = "T-01a209f1-737b-765a-b9ca-ac21f49ae9a4"

// decode writes the text in pieces of random length.
func decode(text string, maxLine int) []Event {
	var events []Event
	d := &Decoder{MaxLine: maxLine, Event: func(e Event) { events = append(events, e) }}
	for len(text) > 0 {
		n := 1 + rand.IntN(len(text))
		_, _ = d.Write([]byte(text[:n]))
		text = text[n:]
	}
	_ = d.Flush()
	return events
}

func TestDecode(t *testing.T) {
	in := func(fields string) string { return `{"session_id":"` + someThread + `",` + fields + "}\n" }
	for _, tt := range []struct {
		name, line string
		want       Event
	}{
		{
			"init", in(`"type":"system","subtype":"init","cwd":"/w","tools":["Bash"],"mcp_servers":[],"agent_mode":"low"`),
			&Init{someThread, "/w", []string{"Bash"}, "low"},
		},
		{
			"init with richer tools", in(`"type":"system","subtype":"init","tools":[{"name":"x"}]`),
			&Init{ThreadID: someThread, Tools: []string{""}},
		},
		{
			"assistant",
			in(`"type":"assistant","parent_tool_use_id":null,"message":{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"a"},` +
				`{"type":"new"},{"type":"tool_use","id":"1","name":"Bash","input":{"cmd":"ls"}},{"type":"text","text":"b"}],"usage":{"input_tokens":3,"output_tokens":4}}`),
			&Assistant{
				ThreadID: someThread, Text: "a\nb", Thinking: "hm",
				Tools: []ToolUse{{"1", "Bash", json.RawMessage(`{"cmd":"ls"}`)}}, Usage: &Usage{InputTokens: 3, OutputTokens: 4},
			},
		},
		{
			"assistant with bare text of a subagent", in(`"type":"assistant","parent_tool_use_id":"x","message":{"content":"hi"}`),
			&Assistant{ThreadID: someThread, Text: "hi", Subagent: true},
		},
		{
			"user", in(`"type":"user","message":{"content":[{"type":"text","text":"q"},{"type":"tool_result","tool_use_id":"1","is_error":true,"content":[{"type":"text","text":"no"}]}]}`),
			&User{someThread, "q", []ToolResult{{"1", "no", true}}},
		},
		{
			"result", in(`"type":"result","subtype":"success","duration_ms":104,"is_error":false,"num_turns":2,"result":"done"`),
			&Result{ThreadID: someThread, Subtype: "success", Text: "done", NumTurns: 2, Duration: 104 * time.Millisecond},
		},
		{
			"error result", in(`"type":"result","subtype":"error_during_execution","duration_ms":1.5,"is_error":true,"num_turns":0,"error":"bad"`),
			&Result{ThreadID: someThread, Subtype: "error_during_execution", IsError: true, Text: "bad", Duration: 1500 * time.Microsecond},
		},
		{
			"error result with an object and no is_error", in(`"type":"result","subtype":"error_max_turns","error":{"message":"bad"}`),
			&Result{ThreadID: someThread, Subtype: "error_max_turns", IsError: true, Text: "bad"},
		},
		{
			"a field of another type costs that field", in(`"type":"result","subtype":"success","is_error":false,"cwd":7,"result":"done"`),
			&Result{ThreadID: someThread, Subtype: "success", Text: "done"},
		},
		{
			"sesame's own", `{"type":"sesame","subtype":"x"}`,
			&Sesame{"x", json.RawMessage(`{"type":"sesame","subtype":"x"}`)},
		},
		{"later type", in(`"type":"novelty"`), &Unknown{Type: "novelty", ThreadID: someThread, Size: 72}},
		{"no JSON", "Segmentation fault\r\n", &Unknown{Size: 19}},
		{"no object", "[1]\n", &Unknown{Size: 3}},
		{"thread that is an option", `{"type":"novelty","session_id":"--last"}`, &Unknown{Type: "novelty", Size: 40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ignore := cmp.Options{cmpopts.IgnoreFields(Unknown{}, "Err"), cmpopts.EquateEmpty()}
			if diff := cmp.Diff([]Event{tt.want}, decode(tt.line, 0), ignore); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := decode("\n \n\r\n", 0); len(got) != 0 {
		t.Errorf("blank lines gave %v", got)
	}
}

// TestDecodeLong sees that the outcome of a turn survives lines that are too long to be kept.
func TestDecodeLong(t *testing.T) {
	const limit = 1000
	text := strings.Repeat(`x\"\\é😀{[`, 1000)
	line := `{"type":"result","meta":{"is_error":true,"type":"other","deep":[{"a":"]}\""}]},"subtype":"success","num_turns":3,` +
		`"is_error":false,"result":"` + text + `","duration_ms": 12 , "session_id":"` + someThread + "\"}\n"
	got := decode(line+`{"type":"novelty"}`+"\n", limit)
	if len(got) != 2 {
		t.Fatalf("%d events", len(got))
	}
	r, ok := got[0].(*Result)
	if !ok || r.IsError || r.NumTurns != 3 || r.ThreadID != someThread || r.Duration != 12*time.Millisecond || !r.Truncated {
		t.Fatalf("%T %+v", got[0], got[0])
	}
	var whole string
	if err := json.Unmarshal([]byte(`"`+text+`"`), &whole); err != nil {
		t.Fatal(err)
	}
	if len(r.Text) < limit/2 || !strings.HasPrefix(whole, r.Text) {
		t.Errorf("the text is not the beginning of the real one: %q", r.Text)
	}
	long := `{"type":"assistant","session_id":"` + someThread + `","message":{"content":"` + strings.Repeat("y", 2*limit) + "\"}}\n"
	want := []Event{&Unknown{Type: "assistant", ThreadID: someThread, Size: int64(len(long)) - 1, Err: errTooLong}}
	if diff := cmp.Diff(want, decode(long, limit), cmpopts.EquateErrors()); diff != "" {
		t.Error(diff)
	}
	failed := `{"type":"result","subtype":"error_during_execution","is_error":true,"error":"` + strings.Repeat("z", 2*limit) + "\"}\n"
	if r, ok := decode(failed, limit)[0].(*Result); !ok || !r.IsError || !r.Truncated || len(r.Text) != limit {
		t.Errorf("%+v", r)
	}
}

// TestDecodeGigabyte holds the decoder to its memory.
func TestDecodeGigabyte(t *testing.T) {
	const size = 1 << 30
	var events []Event
	d := &Decoder{Event: func(e Event) { events = append(events, e) }}
	r, w := io.Pipe()
	go func() {
		_, err := fmt.Fprintf(w, `{"type":"user","session_id":%q,"message":{"content":"`, someThread)
		piece := bytes.Repeat([]byte("0123456789abcde\\"), 1<<12)
		for n := 0; n < size && err == nil; n += len(piece) {
			_, err = w.Write(piece)
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "\"}}\n"+`{"type":"result","subtype":"success","result":"ok"}`+"\n")
		}
		_ = w.CloseWithError(err)
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := io.Copy(d, r); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if len(events) != 2 {
		t.Fatalf("%d events: %+v", len(events), events)
	}
	if u, ok := events[0].(*Unknown); !ok || u.Size < size || u.Type != "user" || u.ThreadID != someThread {
		t.Errorf("%+v", events[0])
	}
	if r, ok := events[1].(*Result); !ok || r.Text != "ok" {
		t.Errorf("%+v", events[1])
	}
	// Everything ever allocated, so it bounds the peak whatever the collector does.
	if total := after.TotalAlloc - before.TotalAlloc; total > 8*DefaultMaxLine {
		t.Errorf("decoding a gigabyte allocated %d MB", total>>20)
	}
}

func TestArgument(t *testing.T) {
	for input, want := range map[string]string{
		`{"cmd":"ls -l"}`:                     "ls -l",
		`{"path":"/a","content":"x"}`:         "/a",
		`{"other":1}`:                         "",
		`[`:                                   "",
		`{"cmd":"a\nb\t c \u001b[2Jd\u202e"}`: "a b c [2Jd",
		`{"cmd":"` + strings.Repeat("é", 130) + `"}`: strings.Repeat("é", 120) + "…",
		`{"cmd":7,"command":"x"}`:                    "x",
	} {
		if got := (ToolUse{Input: json.RawMessage(input)}).Argument(); got != want {
			t.Errorf("%s: %q, want %q", input, got, want)
		}
	}
}

// FuzzDecode sees that pieces make no difference, that nothing panics, and that
// lines skimmed say the same as lines read whole.
func FuzzDecode(f *testing.F) {
	f.Add(`{"type":"result","is_error":true,"error":"x","num_turns":1}`+"\n", 7)
	f.Add(`{"type":"assistant","message":{"content":[{"type":"text","text":"a\"b"}]}}`, 30)
	f.Add("{\"type\":\"a\\", 3)
	f.Add("}}}}}{{{", 2)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(1, min(limit, 1000))
		count := 0
		for line := range strings.SplitSeq(text, "\n") {
			if len(line) > limit || strings.TrimSpace(line) != "" {
				count++
			}
		}
		a, b := decode(text, limit), decode(text, limit)
		if diff := cmp.Diff(a, b, cmp.Comparer(func(x, y error) bool { return (x == nil) == (y == nil) })); diff != "" {
			t.Error(diff)
		}
		if len(a) > count {
			t.Errorf("%d events of %d lines", len(a), count)
		}
	})
}
