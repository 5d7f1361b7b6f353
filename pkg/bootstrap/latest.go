package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// offer is a version that a source names as its newest.
type offer struct {
	source  Source
	version string
}

// ask asks all sources at once for their newest version, and returns the
// answers, newest first, those of one version in the order of the sources. It
// fails only when none answers within limit.
func (in *Installer) ask(ctx context.Context, host Platform, limit time.Duration) ([]offer, error) {
	if len(in.sources) == 0 {
		return nil, in.failed(errors.New("no sources are configured"))
	}
	type answer struct {
		index   int
		version string
		err     error
	}
	answers := make(chan answer, len(in.sources))
	for i, s := range in.sources {
		go func() {
			ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
			defer cancel()
			var v string
			// Not told of: events are for the goroutine that called us.
			err := in.retry(ctx, func(error, time.Duration) {}, func() (moved bool, err error) {
				v, err = s.Latest(ctx, host)
				return false, err
			})
			answers <- answer{index: i, version: v, err: err}
		}()
	}
	versions := make([]string, len(in.sources))
	failures := make([]sourceFailure, len(in.sources))
	for range in.sources {
		a := <-answers
		versions[a.index] = a.version
		failures[a.index] = sourceFailure{source: in.sources[a.index].Name(), err: a.err}
		if a.err != nil && ctx.Err() == nil {
			in.events.failed(failures[a.index].source, a.err)
		}
	}
	if ctx.Err() != nil {
		return nil, interrupted(ctx)
	}
	var offers []offer
	for i, f := range failures {
		if f.err == nil {
			offers = append(offers, offer{source: in.sources[i], version: versions[i]})
		}
	}
	if len(offers) == 0 {
		return nil, in.failed(fmt.Errorf("no source could say which amp is the latest: %w", joinFailures(failures)))
	}
	slices.SortStableFunc(offers, func(a, b offer) int { return CompareVersions(b.version, a.version) })
	return offers, nil
}
