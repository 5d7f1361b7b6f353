package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

const sourcesGroup = "sources of Amp, from this machine"

// CheckPlatform tells whether Amp has a build for this machine. program is what runs here, for people.
func (in *Installer) CheckPlatform(program string) check.Check {
	return check.Check{
		ID: "host.platform", Group: "environment", Title: "platform",
		Run: func(context.Context) check.Result {
			host, err := in.host("latest")
			if err != nil {
				return check.Failed(err)
			}
			return check.Passed("%s; builds of Amp for %s", program, host)
		},
	}
}

// CheckDigest hashes the cached Amp from end to end.
func (in *Installer) CheckDigest(want string, needs ...string) check.Check {
	return check.Check{
		ID: "amp.digest", Group: "amp", Title: "digest", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			if _, err := in.Path(want); err != nil {
				return check.Skipped("there is no Amp to compare")
			}
			b, err := in.Verify(ctx, want)
			if err == nil {
				return check.Passed("%s, as when it came", b.Digest.String()[:19]+"…")
			}
			r := check.Failed(err)
			var wrong *DigestError
			if bad, pathErr := in.Path(want); pathErr == nil && errors.As(err, &wrong) {
				r = r.Mended("fetched Amp "+bad.Version+" again", func(ctx context.Context) error {
					if err := in.Remove(ctx, bad.Version); err != nil {
						return err
					}
					_, err := in.Install(ctx, bad.Version)
					return err
				})
			}
			return r
		},
	}
}

// CheckSources is a check for each source, and one of the newest version that they know of. One source
// that answers is enough; none is a failure only where there is no Amp yet.
func (in *Installer) CheckSources(want string, needs ...string) []check.Check {
	var mu sync.Mutex
	newest, answered := "", 0
	var checks []check.Check
	asked := append([]string{CheckCachedID}, needs...)
	mirrors := 0
	for _, s := range in.sources {
		title := s.Name()
		if title != "static" && title != "storage" && title != "npm" {
			mirrors++
			title = "mirror" + strconv.Itoa(mirrors)
		}
		id := "sources." + title
		asked = append(asked, id)
		checks = append(checks, check.Check{
			ID: id, Group: sourcesGroup, Title: title, Needs: needs,
			Run: func(ctx context.Context) check.Result {
				host, err := in.host("latest")
				if err != nil {
					return check.Skipped("there is no build for this machine")
				}
				version, err := s.Latest(ctx, host)
				if err != nil {
					return check.Warned("%s: %s", s.Name(), strings.TrimPrefix(err.Error(), s.Name()+": ")).Hint("a firewall must allow HTTPS to it, or name another source in amp.sources; one that works is enough")
				}
				mu.Lock()
				defer mu.Unlock()
				answered++
				if newest == "" || CompareVersions(version, newest) > 0 {
					newest = version
				}
				return check.Passed("%s: the newest is %s", s.Name(), version)
			},
		})
	}
	return append(checks, check.Check{
		ID: "amp.newest", Group: "amp", Title: "newest", Needs: asked,
		Run: func(context.Context) check.Result {
			mu.Lock()
			defer mu.Unlock()
			have, err := in.Path(want)
			switch {
			case answered == 0 && err != nil:
				return check.Failed(in.failed(errors.New("no source of Amp answers, and none is cached"))).
					Hint("without internet: `--amp-path FILE`, or a directory or a mirror in amp.sources")
			case answered == 0:
				return check.Warned("no source of Amp answers: the cached one is used")
			case err != nil:
				return check.Passed("%s", newest)
			case isLatest(want) && CompareVersions(newest, have.Version) > 0:
				return check.Passed("%s; the cached one is older, and replaced when amp.update-interval is over", newest)
			}
			return check.Passed("%s", newest)
		},
	})
}

// mended adds the installation to a result about a missing or damaged Amp.
func (in *Installer) mended(r check.Result, want string) check.Result {
	return r.Mended(fmt.Sprintf("fetched Amp (%s)", want), func(ctx context.Context) error {
		_, err := in.Install(ctx, want)
		return err
	})
}
