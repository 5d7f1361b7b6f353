package cmd

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

// fetchProgress shows how far Amp's fetching is: a bar on a terminal, a line now and
// then elsewhere, and nothing with --quiet.
type fetchProgress struct {
	app     *app
	verbose bool
	// background says that something else has the screen: warnings wait until it is done.
	background bool
	warnings   []string
	// events gets what happens as JSON lines as well, besides what people are shown; nil for none.
	events io.Writer

	bar  *progressbar.ProgressBar // nil when none is shown
	size int64                    // of what comes, in bytes; -1 when unknown
	told int64                    // steps that lines have told of

	emitted int64 // tenths that events have told of
}

const (
	barRoom     = 64       // columns that stand beside a bar
	barMost     = 40       // columns of the longest bar
	blindStep   = 10 << 20 // bytes from one line to the next where the size is unknown
	tenths      = 10
	noticeable  = 2 * time.Second // a wait that is told of
	barThrottle = 100 * time.Millisecond
)

func (p *fetchProgress) hooks() bootstrap.Events {
	if p.background {
		return bootstrap.Events{Warning: func(message string) { p.warnings = append(p.warnings, message) }}
	}
	return bootstrap.Events{
		Started:  p.started,
		Progress: p.progress,
		Done: func(b bootstrap.Binary) {
			p.end()
			p.emit(fetchEvent{Subtype: "fetch_done", Version: b.Version, Source: b.Source, URL: b.URL, Path: b.Path})
			p.app.say("amp %s is in %s", b.Version, b.Path)
		},
		Waiting: func(version string) {
			p.emit(fetchEvent{Subtype: "fetch_waiting", Version: version})
			p.app.say("another process is fetching amp %s: waiting for it", version)
		},
		Retrying: func(source string, err error, wait time.Duration) {
			p.end()
			p.emit(fetchEvent{Subtype: "fetch_retrying", Source: source, Error: err.Error()})
			if p.verbose || wait >= noticeable {
				p.app.say("%s: %s; trying again in %s", source, err, wait.Round(time.Second/tenths))
			}
		},
		Failed: func(source string, err error) {
			p.end()
			p.emit(fetchEvent{Subtype: "fetch_failed", Source: source, Error: err.Error()})
			if p.verbose {
				p.app.say("%s: %s", source, err)
			}
		},
		Warning: func(message string) {
			// The next progress draws the bar again, on a line of its own.
			if p.bar != nil {
				_ = p.bar.Clear()
			}
			p.app.warn("%s", message)
		},
	}
}

// fetchEvent is a line about the fetching of Amp. What does not apply is left out.
type fetchEvent struct {
	Type     string `json:"type"` // sesame
	Subtype  string `json:"subtype"`
	Version  string `json:"version,omitempty"`
	Source   string `json:"source,omitempty"`
	URL      string `json:"url,omitempty"`
	Size     int64  `json:"size,omitempty"` // on the wire, in bytes; -1 when unknown
	Received int64  `json:"received,omitempty"`
	Path     string `json:"path,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (p *fetchProgress) emit(e fetchEvent) {
	if p.events != nil {
		e.Type = "sesame"
		_ = printJSON(p.events, e) // whoever stopped reading gets the answer's failure to hear of
	}
}

// tell shows the warnings that had to wait.
func (p *fetchProgress) tell() {
	for _, message := range p.warnings {
		p.app.warn("%s", message)
	}
}

// started begins anew: another source may have taken over.
func (p *fetchProgress) started(s bootstrap.Started) {
	p.end()
	a := p.app
	p.size, p.told, p.emitted = s.Size, 0, 0
	if s.Size > 0 {
		p.emitted = s.Resumed * tenths / s.Size
	}
	p.emit(fetchEvent{Subtype: "fetch_started", Version: s.Version, Source: s.Source, URL: s.URL, Size: s.Size, Received: s.Resumed})
	if a.quiet {
		return
	}
	if !a.io.ErrTerminal || a.env.Get("TERM") == "dumb" {
		size := ""
		if s.Size > 0 {
			size = " (" + bytesText(s.Size) + ")"
		}
		if s.Resumed > 0 && s.Size > 0 {
			size = fmt.Sprintf(" (the rest of %s, from %d %% on)", bytesText(s.Size), s.Resumed*100/s.Size)
			p.told = s.Resumed * tenths / s.Size
		}
		a.say("fetching amp %s from %s%s", s.Version, s.Source, size)
		return
	}
	if p.verbose {
		a.say("fetching amp %s from %s", s.Version, s.URL)
	}
	size := s.Size
	if size <= 0 {
		size = -1
	}
	p.bar = progressbar.NewOptions64(
		size,
		progressbar.OptionSetWriter(a.io.ErrOut),
		progressbar.OptionSetDescription("fetching amp"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(min(barMost, max(1, a.io.Width()-barRoom))),
		progressbar.OptionThrottle(barThrottle),
		// Otherwise it draws by itself, from a goroutine, into whatever is said meanwhile.
		progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionClearOnFinish(),
	)
}

func (p *fetchProgress) progress(received int64) {
	if step := received * tenths / max(p.size, 1); p.size > 0 && step > p.emitted {
		p.emitted = step
		p.emit(fetchEvent{Subtype: "fetch_progress", Size: p.size, Received: received})
	}
	switch {
	case p.bar != nil:
		// A bar that cannot be drawn is no reason to stop fetching.
		_ = p.bar.Set64(received)
	case p.size > 0:
		if step := received * tenths / p.size; step > p.told && step < tenths {
			p.told = step
			p.app.say("fetching amp: %d %% of %s", step*tenths, bytesText(p.size))
		}
	default:
		if step := received / blindStep; step > p.told {
			p.told = step
			p.app.say("fetching amp: %s", bytesText(received))
		}
	}
}

// end takes the bar away.
func (p *fetchProgress) end() {
	if p.bar == nil {
		return
	}
	_ = p.bar.Clear()
	_ = p.bar.Exit()
	p.bar = nil
}

// bytesText is a size as people read it: "37.2 MB".
func bytesText(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, word := float64(n)/unit, 0
	words := []string{"kB", "MB", "GB", "TB"}
	// 999.95 would be printed as 1000.0.
	for value >= unit-0.05 && word < len(words)-1 {
		value, word = value/unit, word+1
	}
	return fmt.Sprintf("%.1f %s", value, words[word])
}
