package check

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Limits bound how long checks take.
type Limits struct {
	Each time.Duration // a single check
	All  time.Duration // all of them
}

// grace is for a check to notice that its time is over and to say better than we can
// what it was waiting for.
const grace = 300 * time.Millisecond

// Run runs the checks at the same time, each as soon as what it needs is known, and
// returns the outcomes in the order of the checks. What needs a check that failed or was
// skipped is skipped. A need that is not among the checks is taken as met.
func Run(ctx context.Context, checks []Check, limits Limits) []Outcome {
	all := limits.All
	for _, c := range checks {
		all = max(all, c.Limit)
	}
	ctx, cancel := context.WithTimeout(ctx, all)
	defer cancel()
	r := runner{limits: limits, states: map[string]*state{}}
	for _, c := range checks {
		r.states[c.ID] = &state{check: c, begun: make(chan struct{}), done: make(chan struct{})}
	}
	var running sync.WaitGroup
	for _, s := range r.states {
		running.Go(func() {
			defer close(s.done)
			r.run(ctx, s)
		})
	}
	running.Wait()
	outcomes := make([]Outcome, 0, len(checks))
	for _, c := range checks {
		s := r.states[c.ID]
		outcomes = append(outcomes, Outcome{Check: c, Result: s.result, Duration: s.took})
	}
	return outcomes
}

type runner struct {
	limits Limits
	states map[string]*state
}

// state is a check at work. Result, took and cause may be read once done is closed.
type state struct {
	check  Check
	begun  chan struct{} // closed when it begins, if it does
	done   chan struct{}
	result Result
	took   time.Duration
	cause  *state // why it was skipped: the check that is really to blame
}

func (r *runner) run(ctx context.Context, s *state) {
	ctx, cancel := context.WithCancel(ctx)
	early := r.ahead(ctx, s)
	if s.cause, s.result = r.unmet(ctx, s); s.result.Status != "" {
		cancel()
		if early != nil {
			<-early // it is not to go on behind our back
		}
		s.took = 0
		return
	}
	defer cancel()
	if early == nil {
		early = r.begin(ctx, s)
	}
	s.result = <-early
}

// ahead begins a check that may begin before what it needs is known, once its companion has begun; nil for others.
func (r *runner) ahead(ctx context.Context, s *state) <-chan Result {
	with, ok := r.states[s.check.With]
	if !ok {
		return nil
	}
	select {
	case <-with.begun:
		return r.begin(ctx, s)
	case <-with.done:
	case <-ctx.Done():
	}
	return nil
}

// begin runs a check beside its caller.
func (r *runner) begin(ctx context.Context, s *state) <-chan Result {
	result := make(chan Result, 1)
	close(s.begun)
	go func() {
		begun := time.Now()
		got := r.limited(ctx, s.check)
		s.took = time.Since(begun)
		result <- got
	}()
	return result
}

// unmet is why a check is skipped, and the one that is to blame; the zero Result where all that it needs is met.
func (r *runner) unmet(ctx context.Context, s *state) (cause *state, skipped Result) {
	for _, id := range s.check.Needs {
		need, ok := r.states[id]
		if !ok {
			continue
		}
		select {
		case <-need.done:
		case <-ctx.Done():
			return nil, Skipped("no time was left for it")
		}
		if need.result.Status != Fail && need.result.Status != Skip {
			continue
		}
		cause = need
		if need.cause != nil {
			cause = need.cause
		}
		what := "failed"
		if cause.result.Status == Skip {
			what = "was skipped"
		}
		return cause, Skipped("not checked, because %s %s", cause.check.ID, what)
	}
	if ctx.Err() != nil {
		return nil, Skipped("no time was left for it")
	}
	return nil, Result{}
}

// limited runs a check and does not wait for one that ignores the end of its time.
func (r *runner) limited(ctx context.Context, c Check) Result {
	limit := r.limits.Each
	if c.Limit > 0 {
		limit = c.Limit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result := make(chan Result, 1)
	go func() { result <- c.Run(ctx) }()
	select {
	case got := <-result:
		return got
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case got := <-result:
		return got
	case <-late.C:
		return Failed(&fault.Error{
			Code: fault.Timeout, Err: ctx.Err(),
			Message: fmt.Sprintf("it did not end within %s", limit),
		})
	}
}

// Select returns the checks with the ids, and whatever those need, in the order of
// checks. A group's prefix ("key" for "key.found") stands for all of it. unknown are
// the ids that name nothing.
func Select(checks []Check, ids []string) (selected []Check, unknown []string) {
	wanted := map[string]bool{}
	var want func(c Check)
	want = func(c Check) {
		if wanted[c.ID] {
			return
		}
		wanted[c.ID] = true
		for _, need := range checks {
			if slices.Contains(c.Needs, need.ID) {
				want(need)
			}
		}
	}
	for _, id := range ids {
		found := false
		for _, c := range checks {
			if c.named(id) {
				found = true
				want(c)
			}
		}
		if !found {
			unknown = append(unknown, id)
		}
	}
	for _, c := range checks {
		if wanted[c.ID] {
			selected = append(selected, c)
		}
	}
	return selected, unknown
}

func (c Check) named(id string) bool {
	return c.ID == id || id != "" && len(c.ID) > len(id) && c.ID[:len(id)] == id && c.ID[len(id)] == '.'
}
