package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
		ID: CheckDigestID, Group: "amp", Title: "digest", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			if _, err := in.Path(want); err != nil {
				return check.Skipped("there is no Amp to compare")
			}
			b, err := in.Verify(ctx, want)
			if err == nil {
				return check.Passed("sha256:%s…, as when it came", b.Digest.Hex[:digestShown])
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

// CheckPinned hashes the executable that the user names, and compares it with the pin where there is one.
func CheckPinned(path, sha256 string, needs ...string) check.Check {
	return check.Check{
		ID: CheckDigestID, Group: "amp", Title: "digest", Needs: needs,
		Run: func(context.Context) check.Result {
			b, err := FromPath(path)
			if err != nil {
				return check.Failed(err)
			}
			if sha256 != "" {
				if err := CheckPin(b, sha256); err != nil {
					return check.Failed(err)
				}
				return check.Passed("sha256:%s…, as amp.sha256 says", sha256[:digestShown])
			}
			digest, err := hashFile(b.Path)
			if err != nil {
				return check.Failed(err)
			}
			r := check.Passed("sha256:%s…; amp.sha256, which it would be compared with, is not set", digest.Hex[:digestShown])
			r.Details = []string{digest.String()}
			return r
		},
	}
}

// Inside makes the check of what a program in the sandbox gets of a source. title is of the source. where
// is known once the check from this machine ran: the address that was gone to ("" for none), what its name is
// for this machine, and whether anything answered.
type Inside func(title string, where func() (address string, addrs []netip.Addr, reached bool), needs ...string) check.Check

// CheckSources is a check for each source, from this machine and with inside from the sandbox, and one of the newest
// version that they know of. One source that answers is enough; none is a failure only where there is no Amp yet.
func (in *Installer) CheckSources(want string, inside Inside, needs ...string) []check.Check {
	var mu sync.Mutex
	newest, answered := "", 0
	var checks, checksInside []check.Check
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
		gone := &way{}
		checks = append(checks, check.Check{
			ID: id, Group: sourcesGroup, Title: title, Needs: needs,
			Run: func(ctx context.Context) check.Result {
				host, err := in.host("latest")
				if err != nil {
					return check.Skipped("there is no build for this machine")
				}
				version, r := askedFor(ctx, s, host, gone)
				if r.Status != check.OK {
					return r
				}
				mu.Lock()
				defer mu.Unlock()
				answered++
				if newest == "" || CompareVersions(version, newest) > 0 {
					newest = version
				}
				return r
			},
		})
		if _, local := s.(*directory); inside != nil && !local {
			checksInside = append(checksInside, inside(title, func() (string, []netip.Addr, bool) {
				address := addressOf(context.Background(), s)
				return address, gone.addresses(address), gone.reached()
			}, id))
		}
	}
	checks = append(checks, checksInside...)
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

// askedFor asks a source for its newest version, and says how the way there was.
func askedFor(ctx context.Context, s Source, host Platform, gone *way) (string, check.Result) {
	version, err := s.Latest(gone.traced(ctx), host)
	address := addressOf(ctx, s)
	r := check.Passed("%s: the newest is %s%s", s.Name(), version, gone.summary(address))
	if err != nil {
		r = check.Warned("%s: %s", s.Name(), strings.TrimPrefix(err.Error(), s.Name()+": ")).
			Hint(append(gone.remedies(address), "a firewall must allow HTTPS to it, or name another source in amp.sources; one that works is enough")...)
	}
	if address != "" {
		r.Details = append([]string{"address: " + publicURL(address)}, gone.steps(address)...)
	}
	return version, r
}

// mended adds the installation to a result about a missing or damaged Amp.
func (in *Installer) mended(r check.Result, want string) check.Result {
	return r.Mended(fmt.Sprintf("fetched Amp (%s)", want), func(ctx context.Context) error {
		_, err := in.Install(ctx, want)
		return err
	})
}
