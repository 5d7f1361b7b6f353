package amp

import (
	"slices"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/regex"
)

// The options of Amp that sesame knows what to do with.
const (
	optExecute    = "--execute"
	optMode       = "--mode"
	optStream     = "--stream-json"
	optThinking   = "--stream-json-thinking"
	optAllowAll   = "--dangerously-allow-all"
	optNoArchive  = "--no-archive-after-execute"
	optSettings   = "--settings-file"
	optLabel      = "--label"
	optMCPConfig  = "--mcp-config"
	modeOfTheTest = "sesame-probe" // a mode that no build has
)

// Capabilities is what one Amp build can do, as far as the build itself told:
// by its help, by how it took a mode that does not exist, and by what it
// refused in earlier turns. Nothing in it comes from the build's date.
type Capabilities struct {
	// Version is what --version says, "0.0.<unix seconds>-g<hash>"; "" where it says something else.
	Version string `json:"version"`
	// Flags are the long options that the help names, sorted, with their dashes.
	Flags []string `json:"flags"`
	// Modes are the modes that the help names, in its order.
	Modes []string `json:"modes"`
	// ModesChecked tells that the build refuses a mode that is not in ModesAccepted;
	// otherwise the mode goes to the service unchecked.
	ModesChecked bool `json:"modes_checked"`
	// ModesAccepted are the modes that a checking build takes, the ones that its help hides included.
	ModesAccepted []string `json:"modes_accepted,omitempty"`
	// FlagsRefused are options that the build refused when they were used.
	FlagsRefused []string `json:"flags_refused,omitempty"`
	// StreamRefused are modes in which the build refused --stream-json.
	StreamRefused []string `json:"stream_refused,omitempty"`
}

// Has tells whether the build takes the long option, written "--label".
func (c *Capabilities) Has(option string) bool {
	return slices.Contains(c.Flags, option) && !slices.Contains(c.FlagsRefused, option)
}

// KeepsMode tells that a thread keeps the mode that it began with. It goes with
// the check of modes: builds that leave the mode to the service also take a new
// one for each turn, and their default where they are given none.
func (c *Capabilities) KeepsMode() bool { return c.ModesChecked }

// accepts tells whether the build itself lets the mode pass.
func (c *Capabilities) accepts(mode string) bool {
	if slices.Contains(c.Modes, mode) {
		return true
	}
	return c.ModesChecked && slices.Contains(c.ModesAccepted, mode)
}

// streams tells whether a new thread in the mode may be followed as JSON.
func (c *Capabilities) streams(mode string) bool {
	return c.Has(optStream) && !slices.Contains(c.StreamRefused, mode)
}

var (
	ansi = regex.Lazy("\x1b(?:\\[[0-9;?=<>]*[A-Za-z]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[()][A-Za-z0-9]|[=>78])")
	// An option's own line is indented a little and begins with the dash; its description is not.
	optionLine  = regex.Lazy(`^\s{1,8}(-{1,2}[A-Za-z][\w-]*(?:[ ,]|$).*|--[\w-]+=.*)$`)
	longOption  = regex.Lazy(`(?:^|[\s,])(--[A-Za-z][\w-]*)`)
	inBrackets  = regex.Lazy(`\(([^()]*)\)`)
	modeName    = regex.Lazy(`^[A-Za-z0-9][\w.-]{0,63}$`)
	choices     = regex.Lazy(`Allowed choices are ([^\n]*)`)
	versionText = regex.Lazy(`\b\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?\b`)
)

// parseHelp reads the text of --help. It takes what it understands and never
// fails: a help that it does not understand leaves Flags empty.
func parseHelp(text string) Capabilities {
	var c Capabilities
	text = ansi().ReplaceAllString(text, "")
	var option, description string
	inOptions := false
	finish := func() {
		if option == optMode && len(c.Modes) == 0 {
			c.Modes = parseModes(description)
		}
		option, description = "", ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if line != "" && line[0] != ' ' && line[0] != '\t' {
			finish()
			heading := strings.ToLower(line)
			inOptions = strings.HasSuffix(heading, "options:")
			continue
		}
		if !inOptions {
			continue
		}
		if m := optionLine().FindStringSubmatch(line); m != nil {
			finish()
			// A layout with the description on the same line has two spaces before it.
			names, same, _ := strings.Cut(m[1], "  ")
			description = strings.TrimSpace(same)
			for _, long := range longOption().FindAllStringSubmatch(names, -1) {
				option = long[1]
				c.Flags = append(c.Flags, option)
			}
			continue
		}
		description += " " + strings.TrimSpace(line)
	}
	finish()
	slices.Sort(c.Flags)
	c.Flags = slices.Compact(c.Flags)
	return c
}

// parseModes finds the names in "Set the agent mode (deep, rush, or a plugin mode …) — …".
func parseModes(description string) []string {
	m := inBrackets().FindStringSubmatch(description)
	if m == nil {
		return nil
	}
	return names(m[1])
}

// names takes the single words of a list and leaves its prose out.
func names(list string) []string {
	var out []string
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		word = strings.TrimSpace(strings.TrimPrefix(word, "or "))
		if modeName().MatchString(word) && !slices.Contains(out, word) && word != "case-insensitive" {
			out = append(out, word)
		}
	}
	return out
}

// parseChoices finds the modes that a build names when it refuses one.
func parseChoices(refusal string) (modes []string, refused bool) {
	m := choices().FindStringSubmatch(ansi().ReplaceAllString(refusal, ""))
	if m == nil {
		return nil, false
	}
	return names(strings.TrimSuffix(strings.TrimSpace(m[1]), ".")), true
}
