package bootstrap

import (
	"context"
	"fmt"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// The checks that others need which start Amp.
const (
	CheckCachedID = "amp.cached"
	CheckDigestID = "amp.digest"
)

// digestShown is how much of a digest is shown.
const digestShown = 12

func binaryCheck(run func(context.Context) check.Result, needs []string) check.Check {
	return check.Check{ID: CheckCachedID, Group: "amp", Title: "at hand", Needs: needs, Run: run}
}

// CheckPath tells whether the executable that the user names can be one.
func CheckPath(path string, needs ...string) check.Check {
	return binaryCheck(func(context.Context) check.Result {
		b, err := FromPath(path)
		if err != nil {
			return check.Failed(err)
		}
		return check.Passed("%s, as configured", b.Path)
	}, needs)
}

// CheckCached tells whether the cache has the version want, for which "latest" is the
// newest one there. It looks at records; CheckDigest hashes every byte.
func (in *Installer) CheckCached(want string, needs ...string) check.Check {
	return binaryCheck(func(context.Context) check.Result { return in.cachedResult(want) }, needs)
}

func (in *Installer) cachedResult(want string) check.Result {
	host, err := in.host(want)
	if err != nil {
		return check.Failed(err)
	}
	versions, err := in.cache.versions()
	if err != nil {
		return check.Failed(in.cacheFault(err))
	}
	var details []string
	damaged, other := "", Binary{}
	for _, v := range versions {
		b, err := in.cache.load(v)
		if err == nil {
			details = append(details, fmt.Sprintf("%s %s %s, from %s on %s", v, b.Platform, b.Digest, b.Source, b.InstalledAt.Format("2006-01-02")))
			if v == want && !in.pin.IsZero() && b.Digest != in.pin {
				other = b
			}
			continue
		}
		details = append(details, fmt.Sprintf("%s is damaged: %v", v, err))
		if damaged == "" && (isLatest(want) || v == want) {
			damaged = err.Error()
		}
	}
	have, ok := in.cached(want, host)
	if isLatest(want) {
		have, ok = in.newest(host)
	}
	var r check.Result
	switch {
	case ok:
		const mega = 1e6
		r = check.Passed("%s (%s, %.0f MB, verified when it came from %s)", have.Version, have.Platform, float64(have.Size)/mega, have.Source)
	case other.Path != "":
		r = check.Failed(notPinned(other.Path, in.pin.Hex, other.Digest))
	case damaged != "":
		r = check.Warned("what is cached is damaged and will be fetched again: %s", damaged).Hint("run `sesame amp install`")
	case isLatest(want):
		r = check.Warned("Amp is not cached yet: the first turn will fetch it").Hint("run `sesame amp install` to fetch it now")
	default:
		r = check.Warned("Amp %s is not cached yet: the first turn will fetch it", want).
			Hint(fmt.Sprintf("run `sesame amp install %s` to fetch it now", want))
	}
	if r.Status == check.Warn {
		r = in.mended(r, want)
	}
	r.Details = details
	return r
}
