package cmd

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
)

// fetchProgress shows how far Amp's fetching is: a bar on a terminal, a line now and
// then elsewhere, and nothing with --quiet.
type fetchProgress struct {
	app     *app
	verbose bool

	bar  *progressbar.ProgressBar // nil when none is shown
	size int64                    // of what comes, in bytes; -1 when unknown
	told int64                    // steps that lines have told of
}

const (
	barRoom     = 64       // columns that stand beside a bar
	barMost     = 40       // columns of the longest bar
	blindStep   = 10 << 20 // bytes from one line to the next where the size is unknown
	tenths      = 10
	barThrottle = 100 * time.Millisecond
)

func (p *fetchProgress) events() bootstrap.Events {
	return bootstrap.Events{
		Started:  p.started,
		Progress: p.progress,
		Done: func(b bootstrap.Binary) {
			p.end()
			p.app.say("amp %s is in %s", b.Version, b.Path)
		},
		Waiting: func(version string) {
			p.app.say("another process is fetching amp %s: waiting for it", version)
		},
		Failed: func(source string, err error) {
			p.end()
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

// started begins anew: another source may have taken over.
func (p *fetchProgress) started(s bootstrap.Started) {
	p.end()
	a := p.app
	p.size, p.told = s.Size, 0
	if a.quiet {
		return
	}
	if !a.io.ErrTerminal || a.env.Get("TERM") == "dumb" {
		size := ""
		if s.Size > 0 {
			size = " (" + bytesText(s.Size) + ")"
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
