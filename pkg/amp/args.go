package amp

import (
	"fmt"
	"slices"
	"strings"
)

// arguments are Amp's arguments for one start, and what could not be asked of it.
type arguments struct {
	list    []string
	stream  bool // the turn is followed as JSON
	notices []string
}

// arguments composes the start of a turn. The prompt is not among them: it goes
// in on stdin, where nothing takes it for an option and no process list shows it.
func (o *TurnOptions) arguments(c *Capabilities, plain bool) arguments {
	a := arguments{list: []string{o.Path}}
	add := func(words ...string) { a.list = append(a.list, words...) }
	notice := func(format string, args ...any) { a.notices = append(a.notices, fmt.Sprintf(format, args...)) }
	if o.ThreadID != "" {
		add("threads", "continue", o.ThreadID)
	}
	// July's builds take the option and hide it, so the help does not decide here;
	// a build that refuses it is noticed and asked again without.
	if !c.refused(optAllowAll) {
		add(optAllowAll)
	}
	if c.Has(optNoArchive) {
		add(optNoArchive)
	}
	if o.SettingsFile != "" && c.Has(optSettings) {
		add(optSettings, o.SettingsFile)
	}
	for _, value := range o.MCPConfig {
		if c.Has(optMCPConfig) {
			add(optMCPConfig, value)
		} else {
			notice("%s takes no %s: leaving it out", c.name(), optMCPConfig)
		}
	}
	// Beside a thread that keeps its mode, the option does nothing but make builds to February refuse the stream.
	if o.Mode.AmpMode != "" && c.Has(optMode) && (o.ThreadID == "" || !c.KeepsMode()) {
		add(optMode, o.Mode.AmpMode)
	}
	for _, label := range o.Labels {
		if c.Has(optLabel) {
			add(optLabel, label)
		} else {
			notice("%s takes no %s: leaving out %s", c.name(), optLabel, OneLine(label, maxMode))
		}
	}
	switch {
	case !c.Has(optStream):
		notice("%s has no %s: showing its last message only", c.name(), optStream)
	case plain || o.ThreadID == "" && !c.streams(o.Mode.AmpMode):
		notice("%s refuses %s here in mode %s: showing the last message of this turn only",
			c.name(), optStream, o.Mode.AmpMode)
	default:
		add(optStream)
		a.stream = true
		if o.Thinking && c.Has(optThinking) {
			add(optThinking)
		} else if o.Thinking {
			notice("%s has no %s: thinking is not shown", c.name(), optThinking)
		}
	}
	add(o.Args...)
	// Last, because its value is optional and it would swallow a word after it.
	add("-x")
	return a
}

func (c *Capabilities) refused(option string) bool {
	return slices.Contains(c.FlagsRefused, option)
}

// environment is Amp's whole environment: what the caller gives, and the driver's own.
func (o *TurnOptions) environment(c *Capabilities) []string {
	own := []string{
		"AMP_URL=" + o.ServiceURL,
		keyVariable + "=" + o.Key,
		"AMP_SKIP_UPDATE_CHECK=1",
		"AMP_REMOTE_CONTROL_TERMINAL=0",
	}
	if o.SettingsFile != "" && !c.Has(optSettings) {
		own = append(own, "AMP_SETTINGS_FILE="+o.SettingsFile)
	}
	drop := []string{"AMP_SETTINGS_FILE"}
	for _, entry := range own {
		name, _, _ := strings.Cut(entry, "=")
		drop = append(drop, name)
	}
	return append(without(o.Env, drop...), own...)
}
