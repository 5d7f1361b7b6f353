package check

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

var generous = Limits{Each: time.Minute, All: time.Minute}

func ids(checks []Check) []string {
	var out []string
	for _, c := range checks {
		out = append(out, c.ID)
	}
	return out
}

// A check with a companion begins beside it, counts only if all that it needs is met, and is ended where it does not.
func TestRunWith(t *testing.T) {
	for _, failing := range []bool{false, true} {
		begun, ended := make(chan struct{}), false
		checks := []Check{
			{ID: "first", Run: func(context.Context) Result {
				<-begun // never, were it not begun meanwhile
				if failing {
					return Failed(errors.New("no"))
				}
				return Passed("yes")
			}},
			{ID: "beside", Needs: []string{"first"}, With: "first", Run: func(ctx context.Context) Result {
				close(begun)
				if failing {
					<-ctx.Done()
					ended = true
				}
				return Passed("found")
			}},
			{ID: "alone", With: "nothing", Run: Found(Passed("alone"))},
		}
		got := Run(t.Context(), checks, generous)
		want := []string{"yes", "found", "alone"}
		if failing {
			want = []string{"no", "not checked, because first failed", "alone"}
		}
		for i, o := range got {
			if o.Summary != want[i] {
				t.Errorf("failing %v: %s says %q", failing, o.ID, o.Summary)
			}
		}
		if ended != failing {
			t.Errorf("failing %v: ended %v", failing, ended)
		}
	}
	// Its companion is skipped: there is nothing to begin beside.
	got := Run(t.Context(), []Check{
		{ID: "a", Run: Found(Failed(errors.New("no")))},
		{ID: "b", Needs: []string{"a"}, Run: Found(Passed("b"))},
		{ID: "c", Needs: []string{"b"}, With: "b", Run: func(context.Context) Result { t.Error("ran"); return Passed("c") }},
	}, generous)
	if got[2].Summary != "not checked, because a failed" {
		t.Errorf("got %q", got[2].Summary)
	}
}

func TestRunOrderAndNeeds(t *testing.T) {
	failed := fault.New(fault.KeyRejected, "no good").Hint("get another")
	var ran string
	note := func(id string, r Result) func(context.Context) Result {
		return func(context.Context) Result { ran += id; return r }
	}
	checks := []Check{
		{ID: "d", Needs: []string{"c"}, Run: note("d", Passed("d"))}, // before what it needs
		{ID: "a", Run: Found(Warned("a"))},
		{ID: "b", Needs: []string{"a", "elsewhere"}, Run: Found(Failed(failed))},
		{ID: "c", Needs: []string{"a", "b"}, Run: note("c", Passed("c"))},
		{ID: "e", Run: Found(Skipped("nothing to do"))},
		{ID: "f", Needs: []string{"e"}, Run: note("f", Passed("f"))},
	}
	got := Run(t.Context(), checks, generous)
	want := []struct {
		id, summary string
		status      Status
	}{
		{"d", "not checked, because b failed", Skip}, // the root of it, not c
		{"a", "a", Warn},
		{"b", "no good", Fail},
		{"c", "not checked, because b failed", Skip},
		{"e", "nothing to do", Skip},
		{"f", "not checked, because e was skipped", Skip},
	}
	for i, w := range want {
		if o := got[i]; o.ID != w.id || o.Summary != w.summary || o.Status != w.status {
			t.Errorf("%d: got %s %s %q, want %+v", i, o.ID, o.Status, o.Summary, w)
		}
	}
	if b := got[2]; b.Code != fault.KeyRejected || !slices.Equal(b.Remedy, []string{"get another"}) {
		t.Errorf("the failure lost its code or hints: %+v", b.Result)
	}
	if ran != "" {
		t.Errorf("ran although skipped: %s", ran)
	}
	if w := Worst(got); w != Fail {
		t.Errorf("worst is %s", w)
	}
	if w := Worst(got[:2]); w != Warn {
		t.Errorf("worst of a warning is %s", w)
	}
	if w := Worst(got[4:]); w != OK {
		t.Errorf("worst of skipped ones is %s", w)
	}
}

// Two checks that wait for each other can only end when they run at the same time.
func TestRunIsParallel(t *testing.T) {
	a, b := make(chan struct{}), make(chan struct{})
	meet := func(mine, theirs chan struct{}) func(context.Context) Result {
		return func(ctx context.Context) Result {
			close(mine)
			select {
			case <-theirs:
				return Passed("met")
			case <-ctx.Done():
				return Failed(ctx.Err())
			}
		}
	}
	for _, o := range Run(t.Context(), []Check{{ID: "a", Run: meet(a, b)}, {ID: "b", Run: meet(b, a)}}, generous) {
		if o.Status != OK {
			t.Errorf("%s: %s", o.ID, o.Summary)
		}
	}
}

func TestRunLimits(t *testing.T) {
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	checks := []Check{
		{ID: "deaf", Run: func(context.Context) Result { <-forever; return Passed("") }},
		{ID: "polite", Run: func(ctx context.Context) Result {
			<-ctx.Done()
			return Failed(errors.New("still waiting for the bus"))
		}},
		{ID: "after", Needs: []string{"polite"}, Run: Found(Passed(""))},
	}
	got := Run(t.Context(), checks, Limits{Each: 20 * time.Millisecond, All: time.Minute})
	if got[0].Status != Fail || got[0].Code != fault.Timeout || got[0].Summary != "it did not end within 20ms" {
		t.Errorf("deaf: %+v", got[0].Result)
	}
	if got[1].Summary != "still waiting for the bus" || got[1].Duration < 20*time.Millisecond {
		t.Errorf("polite: %+v", got[1])
	}
	if got[2].Status != Skip {
		t.Errorf("after: %+v", got[2].Result)
	}
	// With no time at all nothing begins, and a cycle of needs ends too.
	cycle := []Check{
		{ID: "x", Needs: []string{"y"}, Run: Found(Passed(""))},
		{ID: "y", Needs: []string{"x"}, Run: Found(Passed(""))},
		{ID: "z", Run: Found(Passed(""))},
	}
	for _, o := range Run(t.Context(), cycle, Limits{Each: time.Minute, All: 0}) {
		if o.Status != Skip || o.ID == "z" && o.Summary != "no time was left for it" {
			t.Errorf("%s: %+v", o.ID, o.Result)
		}
	}
}

func TestSelect(t *testing.T) {
	checks := []Check{
		{ID: "config.files"},
		{ID: "key.found", Needs: []string{"config.files"}},
		{ID: "key.accepted", Needs: []string{"key.found", "service.host"}},
		{ID: "service.host", Needs: []string{"config.files"}},
		{ID: "keys"},
	}
	tests := []struct {
		ids, want, unknown []string
	}{
		{[]string{"service.host"}, []string{"config.files", "service.host"}, nil},
		{[]string{"key"}, []string{"config.files", "key.found", "key.accepted", "service.host"}, nil},
		{[]string{"keys", "config"}, []string{"config.files", "keys"}, nil},
		{[]string{"key.", "", "found"}, nil, []string{"key.", "", "found"}},
	}
	for _, test := range tests {
		got, unknown := Select(checks, test.ids)
		if !slices.Equal(ids(got), test.want) || !slices.Equal(unknown, test.unknown) {
			t.Errorf("%q: got %q, unknown %q", test.ids, ids(got), unknown)
		}
	}
}
