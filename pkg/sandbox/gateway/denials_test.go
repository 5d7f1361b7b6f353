package gateway

import (
	"strings"
	"testing"
)

func TestProgramName(t *testing.T) {
	tests := []struct{ is, want string }{
		{"curl", "curl"},
		{"npm install x", "npm"},
		{"python3.13", "python3.13"},
		{"node-MainThread", "node-MainThread"},
		{"\x1b[31mred", "??31mred"},
		{"a\nsesame: b", "a?sesame:"},
		{"\u202ecurl", "?curl"},
		{"\xff\xfe", "??"},
		{"'\"`$(id)\\", "?????id??"},
		{"", ""},
		{" ", ""},
		{strings.Repeat("x", 1000), strings.Repeat("x", maxProgram)},
	}
	for _, test := range tests {
		if got := programName(test.is); got != test.want {
			t.Errorf("%q: %q, want %q", test.is, got, test.want)
		}
	}
}

// The same target is counted for each program, and for each reason.
func TestDenialsAreCounted(t *testing.T) {
	w := newWorld(t, nil)
	curl, node := Asker(func() string { return "curl" }), Asker(func() string { return "node" })
	for _, d := range []struct {
		by             Asker
		target, reason string
	}{{curl, "a:443", ""}, {node, "a:443", ""}, {curl, "a:443", "UDP"}, {nil, "a:443", ""}, {curl, "a:443", ""}, {curl, "a:80", ""}} {
		w.g.denials.add(d.by, d.target, d.reason)
	}
	want := []Denial{{"curl", "a:443", "", 2}, {"node", "a:443", "", 1}, {"curl", "a:443", "UDP", 1}, {"", "a:443", "", 1}, {"curl", "a:80", "", 1}}
	got := w.g.Denials()
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
