package cmd

import (
	"strings"

	"github.com/sesame-cli/sesame/pkg/amp"
)

// display shows a turn on stderr as it happens: a line for each tool call, what Amp says
// on the way, and its thinking if that is wanted.
type display struct {
	app      *app
	thinking bool
	running  map[string]string // tool calls under way, by id
}

// Event shows one event.
func (d *display) Event(e amp.Event) {
	if d.app.quiet {
		return
	}
	switch e := e.(type) {
	case *amp.Assistant:
		if d.thinking && e.Thinking != "" {
			d.block("thinking", e.Thinking)
		}
		// The last message is the answer and goes to stdout; what comes with a tool call is on the way there.
		if len(e.Tools) > 0 && strings.TrimSpace(e.Text) != "" {
			d.block("amp", e.Text)
		}
		for _, t := range e.Tools {
			d.tool(t)
		}
	case *amp.User:
		for _, r := range e.Results {
			if name, ok := d.running[r.ToolUseID]; ok && r.IsError {
				d.app.line("  failed", name+": "+amp.OneLine(r.Text, 200))
			}
			delete(d.running, r.ToolUseID)
		}
	}
}

func (d *display) tool(t amp.ToolUse) {
	if d.running == nil {
		d.running = map[string]string{}
	}
	name := amp.OneLine(t.Name, 60)
	d.running[t.ID] = name
	text := name
	if arg := t.Argument(); arg != "" {
		text += "  " + arg
	}
	d.app.line("tool", text)
}

func (d *display) block(label, text string) {
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		d.app.line(label, line)
	}
}
