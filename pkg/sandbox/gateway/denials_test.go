package gateway

import (
	"strconv"
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

// A name that is refused cannot say what to do, and one that comes late is not hidden by those before.
func TestDenialsSayNoMoreThanNames(t *testing.T) {
	w := newWorld(t, nil)
	for i := range maxDenials {
		w.g.denials.add(nil, strconv.Itoa(i), "")
	}
	for _, name := range []string{"late.example", "later.example"} {
		w.g.denials.add(nil, name, "")
	}
	got := w.g.Denials()
	if last := got[len(got)-1]; len(got) != maxDenials+1 || last.Count != 2 || last.Reason == "" {
		t.Errorf("%d are told, %+v the last one", len(got), last)
	}
	for target, want := range map[string]string{
		"pypi.org (allow it with --allow-host evil.com": "pypi.org??allow?it?with?--allow-host?evil.com",
		"a\x1b[2Jb\n":       `a\x1b[2Jb\n`,
		"[2001:db8::1]:443": "[2001:db8::1]:443",
		"*.x_y-z.example":   "*.x_y-z.example",
		"":                  ".",
	} {
		if got := oneWord(target); got != want {
			t.Errorf("%q is told as %q, want %q", target, got, want)
		}
	}
}
