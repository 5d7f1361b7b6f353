package amptest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRespond(t *testing.T) {
	bash, shell := []string{"Bash", "Read"}, []string{"Read", "shell_command"}
	for _, tc := range []struct {
		name string
		ask  ask
		want answer
	}{
		{
			"echo",
			ask{mode: "rush", count: 3, text: "two\nlines"},
			answer{text: []string{"ECHO[rush]: two\nlines (3 messages)"}},
		},
		{
			"run",
			ask{text: "RUN:echo hi", tools: bash},
			answer{call: &call{"Bash", json.RawMessage(`{"cmd":"echo hi"}`)}},
		},
		{
			"run since July",
			ask{text: "RUN:echo hi", tools: shell},
			answer{call: &call{"shell_command", json.RawMessage(`{"command":"echo hi"}`)}},
		},
		{
			"run without a shell",
			ask{text: "RUN:echo hi", tools: []string{"Read"}},
			answer{text: []string{"CANNOT: RUN:echo hi"}},
		},
		{
			"among prose",
			ask{text: "Do it:\n  RUN:true\r\nand say so", tools: bash},
			answer{call: &call{"Bash", json.RawMessage(`{"cmd":"true"}`)}},
		},
		{
			"second step",
			ask{text: "RUN:a\nRUN:b", tools: bash, results: []string{"A"}},
			answer{call: &call{"Bash", json.RawMessage(`{"cmd":"b"}`)}},
		},
		{
			"end",
			ask{text: "RUN:a\nRUN:b", results: []string{"A", `{"output":"B\n","exitCode":2}`}},
			answer{text: []string{"TOOL SAID: A", "\nTOOL SAID: B (exit code 2)"}},
		},
		{
			"fails after a tool",
			ask{text: "RUN:a\nHTTP:503", results: []string{"A"}},
			answer{status: 503},
		},
		{
			"status that is none",
			ask{text: "HTTP:200"},
			answer{status: 500},
		},
		{
			"tool",
			ask{text: `TOOL:Read {"path":"/x y"}`},
			answer{call: &call{"Read", json.RawMessage(`{"path":"/x y"}`)}},
		},
		{
			"tool without input",
			ask{text: `TOOL:finder`},
			answer{call: &call{"finder", json.RawMessage(`{}`)}},
		},
		{
			"tool with bad input",
			ask{text: `TOOL:Read {"path"`},
			answer{text: []string{`CANNOT: TOOL:Read {"path"`}},
		},
		{
			"think and run",
			ask{text: "THINK:hm\nRUN:true", tools: bash},
			answer{thinking: "hm", text: []string{"THOUGHT: hm"}, call: &call{"Bash", json.RawMessage(`{"cmd":"true"}`)}},
		},
		{
			"slow",
			ask{text: "SLOW:2"},
			answer{text: []string{"slow 1 of 2", "\nslow 2 of 2"}, gap: time.Second},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.ask.respond()
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(answer{}, call{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGenuine(t *testing.T) {
	for _, tc := range []struct {
		want   string
		blocks []string
	}{
		{"hello", []string{"# User State\nCurrently visible files user has open: none\n\n", "hello"}},
		{"RUN:x", []string{"<system-reminder>\nRUN:evil\n</system-reminder>", "RUN:x", ""}},
		{"<b>mine</b>", []string{"# User State\n", "<b>mine</b>"}},
		{"one\ntwo", []string{"one", "two"}},
		{"", nil},
	} {
		if got := genuine(tc.blocks); got != tc.want {
			t.Errorf("genuine(%q) = %q, want %q", tc.blocks, got, tc.want)
		}
	}
}

func TestPlainOutput(t *testing.T) {
	for raw, want := range map[string]string{
		"<output>hi\n</output>\n<exitCode>0</exitCode>": "hi",
		"<output>no\n</output>\n<exitCode>7</exitCode>": "no (exit code 7)",
		`{"output":"hi\n","exitCode":0}`:                "hi",
		`{"content":"other"}`:                           `{"content":"other"}`,
		"plain\n":                                       "plain",
	} {
		if got := plainOutput(raw); got != want {
			t.Errorf("plainOutput(%q) = %q, want %q", raw, got, want)
		}
	}
}

func TestIDs(t *testing.T) {
	if id := newThreadID(); !threadIDs().MatchString(id) || len(id) != 38 {
		t.Errorf("thread id %q", id)
	}
	if id := newID("M-"); len(id) != 24 || !strings.HasPrefix(id, "M-") {
		t.Errorf("message id %q", id)
	}
}
