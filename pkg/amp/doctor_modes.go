package amp

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tailscale/hujson"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const modesGroup = "modes"

// probeTurn is how long a short turn may take.
const probeTurn = 2 * time.Minute

// CheckAbilitiesID is the check of what the build can do, which those of the modes need.
const CheckAbilitiesID = "modes.known"

// CheckModes is a check of what the build at path can do, and one for each mode: what it becomes there. Only
// the mode that is configured has to be had.
func (p *Prober) CheckModes(path, configured string, overrides map[string]string, needs ...string) []check.Check {
	var caps *Capabilities
	var once sync.Once
	var err error
	abilities := func(ctx context.Context) (*Capabilities, error) {
		once.Do(func() { caps, err = p.Probe(ctx, path) })
		return caps, err
	}
	checks := []check.Check{{
		ID: CheckAbilitiesID, Group: modesGroup, Title: "known", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			c, err := abilities(ctx)
			if err != nil {
				return check.Failed(err)
			}
			r := check.Passed("%s has %s", c.name(), strings.Join(c.Modes, ", "))
			if len(c.Modes) == 0 {
				r = check.Warned("%s names no modes", c.name())
			}
			r.Details = []string{"its options: " + strings.Join(c.Flags, " ")}
			return r
		},
	}}
	known := Modes()
	names := slices.Sorted(maps.Keys(overrides))
	if configured != "" {
		names = append(names, configured)
	}
	for _, name := range names {
		if !slices.ContainsFunc(known, func(m Mode) bool { return m.Name == name }) {
			known = append(known, Mode{Name: name})
		}
	}
	for _, m := range known {
		checks = append(checks, check.Check{
			ID: "modes." + m.Name, Group: modesGroup, Title: m.Name, Needs: []string{CheckAbilitiesID},
			Run: func(ctx context.Context) check.Result {
				c, err := abilities(ctx)
				if err != nil {
					return check.Failed(err)
				}
				return modeResult(m.Name, m.Name == configured, c, overrides)
			},
		})
	}
	return checks
}

func modeResult(name string, configured bool, c *Capabilities, overrides map[string]string) check.Result {
	choice, err := Translate(name, c, overrides)
	const free = "free"
	switch {
	case err == nil && choice.AmpMode == free && configured:
		return check.Warned("Amp refuses it for turns like these").Hint("choose another one with `--mode`, or in the configuration")
	case err == nil && choice.AmpMode == free:
		return check.Skipped("Amp refuses it for turns like these")
	case err != nil && configured:
		return check.Failed(err).Hint("choose another one with `--mode`, or in the configuration")
	case err != nil && overrides[name] != "":
		return check.Warned("%v", err).Hint("correct amp.modes in the configuration")
	case err != nil:
		return check.Skipped("not in %s", c.name())
	case !c.accepts(choice.AmpMode):
		return check.Warned("%s", choice.Notice).Hint("`sesame modes` shows what this Amp has")
	case choice.AmpMode == name:
		return check.Passed("%s", name)
	}
	return check.Passed("%s on this Amp", choice.AmpMode)
}

// brokenSettings is what no build takes for settings.
const brokenSettings = "{broken"

// CheckDeep tells whether what turns deep mode on stands where the build reads it. file is that place inside;
// broken is a launcher that has a file there which is no JSON: a build that complains of it reads it.
func (p *Prober) CheckDeep(path, userFile, file string, broken Launcher, needs ...string) check.Check {
	reader := *p
	reader.Launcher = broken
	return check.Check{
		ID: "modes.settings", Group: modesGroup, Title: "deep's setting", Needs: needs,
		Run: func(ctx context.Context) check.Result {
			settings, err := SessionSettings(userFile, ModeChoice{Mode: ModeDeep, AmpMode: ModeDeep})
			if err != nil {
				return check.Failed(err)
			}
			doc, err := hujson.Parse(settings)
			if err != nil {
				return check.Failed(settingsFault(userFile, err))
			}
			if doc.Find("/"+experimentalModes) == nil {
				return check.Failed(fmt.Errorf("%s is not among the session's settings", experimentalModes))
			}
			ran, err := reader.run(ctx, path, optSettings, file, "permissions", "list")
			switch {
			case err != nil:
				return check.Failed(err)
			case strings.Contains(ran.out+ran.err, file):
				return check.Passed("written, and read by this Amp")
			case ran.timedOut:
				return check.Warned("this Amp did not say in time whether it reads the session's settings")
			}
			return check.Warned("this Amp does not read the session's settings: deep mode may not be on").
				Hint("use another version with `--amp-version`")
		},
	}
}

// BrokenSettings is the file that CheckDeep wants in the place of the settings.
func BrokenSettings() []byte { return []byte(brokenSettings) }

// CheckTurn asks a mode for one short turn, which may cost. run returns how it ended.
func CheckTurn(mode string, run func(context.Context) error, needs ...string) check.Check {
	return check.Check{
		ID: "probe." + mode, Group: "real turns", Title: mode, Needs: needs, Limit: probeTurn,
		Run: func(ctx context.Context) check.Result {
			err := run(ctx)
			if err == nil {
				return check.Passed("answers: this account has access to it")
			}
			r := check.Failed(err)
			if code := fault.CodeOf(err); code == fault.TurnFailed || code == fault.ModeUnavailable {
				r = r.Hint("does your account have access to " + mode + " mode? see https://ampcode.com/settings")
			}
			return r
		},
	}
}
