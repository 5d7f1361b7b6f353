package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestRedactorString(t *testing.T) {
	r := &Redactor{}
	r.Add(mustKey(t, `odd"key<1>`))
	quoted, err := json.Marshal(`odd"key<1>`)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ in, want string }{
		{"plain text, 100 %", "plain text, 100 %"},
		{`a odd"key<1> b`, "a [redacted] b"},
		{string(quoted), `"[redacted]"`},
		{"?k=odd%22key%3C1%3E&x", "?k=[redacted]&x"},
		{"Bearer " + someKey + ".", "Bearer [redacted]."},
		{someKey + someKey, "[redacted]"},
		{"sgamp_sa_" + strings.Repeat("a", 30), "[redacted]"},
		{"sgamp_user is what keys begin with: sgamp_user_…", "sgamp_user is what keys begin with: sgamp_user_…"},
		{"sgamp_", "sgamp_"},
		{"sgamp_sgamp_" + strings.Repeat("b", 25), "[redacted]"},
	}
	for _, test := range tests {
		if got := r.String(test.in); got != test.want {
			t.Errorf("%q: got %q, want %q", test.in, got, test.want)
		}
	}
}

// However the text is cut into writes, what comes out is the same.
func TestRedactorSplitWrites(t *testing.T) {
	r := &Redactor{}
	r.Add(mustKey(t, "hunter2-key"))
	r.Add(mustKey(t, "xhunter2-key-long"))
	text := "start " + someKey + "\nhunter2-key hunter2-kez xhunter2-key-long xhunter2-key-lonx sgamp_ s sg sgamp_user_short" +
		" " + strings.Repeat("sgamp_", 3) + " {\"k\":\"" + someKey + "\"} end sgam"
	want := r.String(text)
	if strings.Contains(want, "hunter2-key ") || strings.Contains(want, someKey[:20]) {
		t.Fatalf("not redacted: %s", want)
	}
	split := func(sizes func() int) string {
		var out bytes.Buffer
		w := r.Writer(&out)
		for rest := text; rest != ""; {
			n := min(len(rest), sizes())
			if m, err := w.Write([]byte(rest[:n])); m != n || err != nil {
				t.Fatalf("wrote %d of %d: %v", m, n, err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for size := 1; size < 90; size++ {
		if got := split(func() int { return size }); got != want {
			t.Errorf("writes of %d:\n got %s\nwant %s", size, got, want)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		if got := split(func() int { return 1 + rng.IntN(40) }); got != want {
			t.Fatalf("random writes:\n got %s\nwant %s", got, want)
		}
	}
}

// Something with a key's shape and no end must neither be waited for nor let through.
func TestRedactorEndlessKey(t *testing.T) {
	var out bytes.Buffer
	w := (&Redactor{}).Writer(&out)
	fmt.Fprint(w, "a sgamp_user_")
	for range 1000 {
		fmt.Fprint(w, strings.Repeat("A", 100))
	}
	if len(w.held) > 2*mostTail {
		t.Errorf("holds %d bytes", len(w.held))
	}
	fmt.Fprint(w, " b")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "a [redacted] b" {
		t.Errorf("got %.100q", got)
	}
}

// Text without keys appears at once, or progress would come late.
func TestRedactorDoesNotDelay(t *testing.T) {
	var out bytes.Buffer
	r := &Redactor{}
	r.Add(mustKey(t, someKey))
	w := r.Writer(&out)
	fmt.Fprint(w, "42 %\r")
	if out.String() != "42 %\r" {
		t.Errorf("got %q", out.String())
	}
}
