// Package bootstrap gets Amp: it finds out which build this machine needs,
// fetches it from the sources that are configured, verifies it before anything
// can start it, and keeps it in a cache that only the user can write to.
package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Options say where Amp comes from and where it is kept.
type Options struct {
	Dir     string   // the cache: $XDG_CACHE_HOME/sesame/amp; absolute
	Sources []Source // in the order of preference; see ParseSources
	// SHA256 pins Amp's file, whatever it comes packed in and from where: 64 hex digits, or "".
	SHA256 string
	// UpdateInterval is for how long Ensure takes the cached version for the latest.
	UpdateInterval time.Duration
	Platform       Platform         // "": that of this machine
	Now            func() time.Time // nil: time.Now
	Timeouts       Timeouts         // of which Latest is used here
	Events         Events
}

// Installer fetches, verifies and keeps Amp. It may be used by several
// goroutines, and several processes may have one on the same cache.
type Installer struct {
	cache    cache
	sources  []Source
	pin      Digest
	interval time.Duration
	platform Platform
	now      func() time.Time
	latest   time.Duration
	pause    time.Duration // before a source is tried again
	events   Events
}

// New makes an Installer and touches nothing. It fails with [fault.Usage] where
// the pin is no sha256 or the cache has no absolute path.
func New(o Options) (*Installer, error) {
	in := &Installer{
		cache:    cache{dir: o.Dir, lock: flock},
		sources:  o.Sources,
		interval: o.UpdateInterval,
		platform: o.Platform,
		now:      o.Now,
		latest:   o.Timeouts.orDefault().Latest,
		pause:    o.Timeouts.orDefault().Retry,
		events:   o.Events,
	}
	if in.now == nil {
		in.now = time.Now
	}
	if !filepath.IsAbs(o.Dir) {
		return nil, fault.New(fault.Usage, "the cache of amp needs an absolute path, not %q", o.Dir)
	}
	if o.SHA256 != "" {
		pin, ok := parseSHA256(o.SHA256)
		if !ok {
			return nil, fault.New(fault.Usage, "amp.sha256: %q is no sha256", o.SHA256).
				Hint("it has 64 hex digits, as `sha256sum amp` prints them")
		}
		in.pin = pin
	}
	return in, nil
}

// Ensure returns a binary to run: of the version want, or, for "latest" or "",
// the newest one. It uses the network only where the cache has none, so it never
// waits for one that it could do without; Refresh looks for newer ones.
// Failures are [fault.BootstrapFailed].
func (in *Installer) Ensure(ctx context.Context, want string) (Binary, error) {
	host, err := in.host(want)
	if err != nil {
		return Binary{}, err
	}
	if !isLatest(want) {
		if b, ok := in.cached(want, host); ok {
			return b, nil
		}
		in.tellChanged(want)
		return in.install(ctx, host, want, in.sources)
	}
	if have, ok := in.newest(host); ok {
		return have, nil
	}
	return in.installLatest(ctx, host, Binary{})
}

// tellChanged warns of a cached version that is not what was verified any more.
func (in *Installer) tellChanged(version string) {
	var changed *changedError
	if _, err := in.cache.load(version); errors.As(err, &changed) {
		in.events.warning(fmt.Sprintf("%s: amp %s is fetched again", err, version))
	}
}

// Refresh looks for a version newer than have, the one that Ensure returned for
// "latest", and puts it into the cache for the next time. It does so once in an
// update interval, and while no other process does; otherwise, and where there is none, it
// returns the zero Binary. Failures are [fault.BootstrapFailed].
func (in *Installer) Refresh(ctx context.Context, have Binary) (Binary, error) {
	host, err := in.host(Latest)
	// Only one file fits a pin, and this is it.
	if err != nil || !in.pin.IsZero() || in.cache.checked().fresh(in.now(), in.interval) {
		return Binary{}, err
	}
	unlock, _, err := in.cache.try(refreshLock)
	if errors.Is(err, errLocked) || isReadOnly(err) {
		return Binary{}, nil // somebody else does it, or this cache is somebody else's to fill
	}
	if err != nil {
		return Binary{}, in.cacheFault(err)
	}
	defer unlock()
	if in.cache.checked().fresh(in.now(), in.interval) {
		return Binary{}, nil
	}
	b, err := in.installLatest(ctx, host, have)
	if err != nil || b.Version == have.Version {
		return Binary{}, err
	}
	return b, nil
}

// Install puts a version, or for "latest" or "" the newest that the sources
// have, into the cache. One that is there is hashed again and fetched anew when
// it is not what it was. An older version than the cached one is never taken for
// the latest. Failures are [fault.BootstrapFailed], a version that cannot be one [fault.Usage].
func (in *Installer) Install(ctx context.Context, want string) (Binary, error) {
	host, err := in.host(want)
	if err != nil {
		return Binary{}, err
	}
	if isLatest(want) {
		have, _ := in.newest(host)
		b, err := in.installLatest(ctx, host, have)
		if err != nil || b.Path != have.Path {
			return b, err
		}
		want = b.Version
	}
	if b, err := in.cache.read(want); err == nil && in.suits(b, host) {
		if in.intact(b) {
			return b, nil
		}
		in.events.warning(fmt.Sprintf("the cached amp %s is damaged and is fetched again", want))
		if err := in.remove(want); err != nil {
			return Binary{}, in.cacheFault(err)
		}
	}
	return in.install(ctx, host, want, in.sources)
}

// Latest asks all sources and returns the newest version that they have.
func (in *Installer) Latest(ctx context.Context) (string, error) {
	host, err := in.host(Latest)
	if err != nil {
		return "", err
	}
	offers, err := in.ask(ctx, host, in.latest)
	if err != nil {
		return "", err
	}
	return offers[0].version, nil
}

// host checks want and returns this machine's platform.
func (in *Installer) host(want string) (Platform, error) {
	if !isLatest(want) && !ValidVersion(want) {
		return "", fault.New(fault.Usage, "%q is no version of amp", want).
			Hint("a version looks like 0.0.1770734955-g93e689; `latest` is the newest one")
	}
	if in.platform != "" {
		return in.platform, nil
	}
	return DetectPlatform(runtime.GOOS, processor(runtime.GOOS, runtime.GOARCH, sysctl), "/")
}

// refreshLock is held while a process looks for a newer version.
const refreshLock = "refresh"

func isLatest(want string) bool { return want == "" || want == Latest }

// cached returns the version from the cache if it suits the machine and the pin.
func (in *Installer) cached(version string, host Platform) (Binary, bool) {
	b, err := in.cache.load(version)
	return b, err == nil && in.suits(b, host)
}

// newest returns the newest cached binary that suits the machine and the pin.
func (in *Installer) newest(host Platform) (Binary, bool) {
	list, err := in.cache.list()
	if err != nil {
		return Binary{}, false
	}
	i := slices.IndexFunc(list, func(b Binary) bool { return in.suits(b, host) })
	if i < 0 {
		return Binary{}, false
	}
	return list[i], true
}

func (in *Installer) suits(b Binary, host Platform) bool {
	return b.Platform.runs(host) && (in.pin.IsZero() || b.Digest == in.pin)
}

func (in *Installer) intact(b Binary) bool {
	d, err := hashFile(b.Path)
	return err == nil && d == b.Digest
}

// installLatest asks the sources, and installs the newest version they have
// unless have, the cached one, is as new.
func (in *Installer) installLatest(ctx context.Context, host Platform, have Binary) (Binary, error) {
	offers, err := in.ask(ctx, host, in.latest)
	if err != nil {
		return Binary{}, err
	}
	newest := offers[0].version
	if have.Path != "" && CompareVersions(newest, have.Version) <= 0 {
		if CompareVersions(newest, have.Version) < 0 {
			in.events.warning(fmt.Sprintf("the sources' latest amp is %s; keeping the newer %s, which is cached", newest, have.Version))
		}
		in.remember(newest)
		return have, nil
	}
	var failures []error
	for i := 0; i < len(offers); {
		version := offers[i].version
		// Those that name the version come first; of the others one may have it nevertheless.
		var order []Source
		for ; i < len(offers) && offers[i].version == version; i++ {
			order = append(order, offers[i].source)
		}
		for _, s := range in.sources {
			if !slices.Contains(order, s) {
				order = append(order, s)
			}
		}
		if have.Path != "" && CompareVersions(version, have.Version) <= 0 {
			break
		}
		b, err := in.install(ctx, host, version, order)
		if err == nil {
			if version != newest {
				in.events.warning(fmt.Sprintf("amp %s could not be fetched; %s is used instead", newest, version))
			}
			in.remember(version)
			return b, nil
		}
		if ctx.Err() != nil || local(err) {
			return Binary{}, err
		}
		failures = append(failures, err)
	}
	return Binary{}, failures[0] // the newest version's, which is the one that matters
}

// remember notes that the sources were asked. Failing to is no reason to fail.
func (in *Installer) remember(latest string) {
	if err := in.cache.open(); err != nil {
		return
	}
	if err := in.cache.setChecked(checked{At: in.now().UTC(), Latest: latest}); err != nil {
		in.events.warning(fmt.Sprintf("cannot note when amp was last looked for: %s", err))
	}
}

// install fetches a version from the first of the sources that delivers it, one
// process at a time.
func (in *Installer) install(ctx context.Context, host Platform, version string, sources []Source) (Binary, error) {
	if len(sources) == 0 {
		return Binary{}, in.failed(errors.New("no sources are configured"))
	}
	if err := in.cache.open(); err != nil {
		return Binary{}, in.cacheFault(err)
	}
	unlock, locked, err := in.cache.wait(ctx, version, func() { in.events.waiting(version) })
	if err != nil {
		if ctx.Err() != nil {
			return Binary{}, interrupted(ctx)
		}
		return Binary{}, in.cacheFault(err)
	}
	defer unlock()
	// Somebody else may have been quicker.
	if b, ok := in.cached(version, host); ok {
		return b, nil
	}
	req := Request{Version: version, Platform: host}
	var failures []sourceFailure
	for _, s := range sources {
		b, err := in.fetch(ctx, s, req, locked)
		if err == nil {
			in.events.done(b)
			return b, nil
		}
		if ctx.Err() != nil {
			return Binary{}, interrupted(ctx)
		}
		if local(err) {
			return Binary{}, in.cacheFault(err)
		}
		failures = append(failures, sourceFailure{source: s.Name(), err: err})
		in.events.failed(s.Name(), err)
		var wrong *DigestError
		if errors.As(err, &wrong) {
			in.events.warning(fmt.Sprintf("refused amp %s from %s: %s", version, s.Name(), err))
		}
	}
	return Binary{}, in.notFetched(version, host, failures)
}
