package amp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// The modes of the guide that sesame treats by name.
const (
	ModeSmart = "smart"
	ModeDeep  = "deep"
)

const maxMode = 100 // bytes of a mode's name

// Mode is a mode as people know it.
type Mode struct {
	Name    string `json:"mode"`
	Purpose string `json:"purpose"`
	Model   string `json:"primary_model"` // "" where nobody says
}

// Modes are the modes of the guide, in its order, and large, which came later.
func Modes() []Mode {
	return []Mode{
		{ModeSmart, "general coding tasks (default)", "Claude Opus 4.6"},
		{"rush", "small, well-defined tasks", "Claude Haiku 4.5"},
		{ModeDeep, "complex problems requiring deep reasoning", "GPT-5.2 Codex"},
		{"large", "tasks that need a large context", ""},
		{"free", "experimentation (may have limitations)", ""},
	}
}

// successors are what today's builds call the modes of earlier ones.
func successors() map[string]string {
	return map[string]string{ModeSmart: "medium", "rush": "low", ModeDeep: "high", "large": "ultra"}
}

// ModeChoice is a mode asked for and what it is for one build.
type ModeChoice struct {
	Mode    string // as asked for
	AmpMode string // as the build is told; "" leaves it to the build
	Notice  string // one line for people, "" if there is nothing to say
}

// deep tells whether the settings must show deep mode to the build.
func (c ModeChoice) deep() bool { return c.Mode == ModeDeep || c.AmpMode == ModeDeep }

// Translate finds the build's name for a mode; "" is smart. Overrides, from the
// config key amp.modes, come before what sesame knows. A mode that the build
// lacks and nothing stands for is the error mode_unavailable; a name that no
// mode can have is usage.
func Translate(mode string, c *Capabilities, overrides map[string]string) (ModeChoice, error) {
	if mode == "" {
		mode = ModeSmart
	}
	if err := checkMode(mode); err != nil {
		return ModeChoice{}, err
	}
	choice := ModeChoice{Mode: mode, AmpMode: mode}
	if to, ok := overrides[mode]; ok && to != "" {
		if err := checkMode(to); err != nil {
			return ModeChoice{}, err
		}
		choice.AmpMode = to
		if to != mode {
			choice.Notice = fmt.Sprintf("mode %s is %s, by the configuration", mode, to)
		}
	}
	switch {
	case !c.Has(optMode):
		if mode == ModeSmart {
			choice.AmpMode = ""
			return choice, nil
		}
		return ModeChoice{}, fault.New(fault.ModeUnavailable, "mode %s is not available: %s has no modes", mode, c.name())
	case c.accepts(choice.AmpMode):
		return choice, nil
	}
	if to := successors()[choice.AmpMode]; to != "" && c.accepts(to) {
		choice.Notice = fmt.Sprintf("%s has no mode %s: using %s", c.name(), choice.AmpMode, to)
		choice.AmpMode = to
		return choice, nil
	}
	// free was never passed on to anything; the service refuses its name.
	if c.ModesChecked || choice.AmpMode == "free" {
		return ModeChoice{}, unavailable(choice.AmpMode, c)
	}
	choice.Notice = fmt.Sprintf("%s does not name a mode %s: leaving it to the service to know it", c.name(), choice.AmpMode)
	return choice, nil
}

func unavailable(mode string, c *Capabilities) *fault.Error {
	e := fault.New(fault.ModeUnavailable, "mode %s is not available in %s", mode, c.name())
	if len(c.Modes) > 0 {
		e = e.Hint("this Amp has the modes %s", strings.Join(c.Modes, ", "))
	}
	return e.Hint("sesame modes shows what each mode is for")
}

// name is the build in a sentence.
func (c *Capabilities) name() string {
	if c.Version == "" {
		return "this Amp"
	}
	return "Amp " + c.Version
}

// checkMode refuses what would be taken for an option or garble a line.
func checkMode(mode string) error {
	bad := len(mode) > maxMode || strings.HasPrefix(mode, "-") || strings.TrimSpace(mode) != mode ||
		strings.ContainsFunc(mode, func(r rune) bool { return !unicode.IsPrint(r) })
	if bad {
		return fault.New(fault.Usage, "%q cannot be the name of a mode", mode)
	}
	return nil
}

// ModeRow is a line of the table that `sesame modes` shows.
type ModeRow struct {
	Mode
	AmpMode   string `json:"amp_mode"` // what it becomes; "" when it is not available
	Available bool   `json:"available"`
	Notice    string `json:"notice,omitempty"`
}

// ModeTable shows the modes of the guide, those of the configuration and those
// that only the build has. Without capabilities (nil) nothing is said about the build.
func ModeTable(c *Capabilities, overrides map[string]string) []ModeRow {
	known := Modes()
	add := func(name, purpose string) {
		if !slices.ContainsFunc(known, func(m Mode) bool { return m.Name == name }) {
			known = append(known, Mode{Name: name, Purpose: purpose})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		add(name, "from the configuration")
	}
	if c != nil {
		for _, name := range c.Modes {
			add(name, "named by this Amp")
		}
	}
	rows := make([]ModeRow, 0, len(known))
	for _, m := range known {
		row := ModeRow{Mode: m}
		if c != nil {
			choice, err := Translate(m.Name, c, overrides)
			row.AmpMode, row.Available, row.Notice = choice.AmpMode, err == nil, choice.Notice
			if err != nil {
				row.Notice = err.Error()
			}
		}
		rows = append(rows, row)
	}
	return rows
}
