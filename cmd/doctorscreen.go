package cmd

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// doctorScreen is what the doctor shows.
type doctorScreen struct {
	outcomes []check.Outcome
	took     time.Duration
	done     []string // by --fix
	verbose  bool
	quiet    bool // only what is not as it should be
	style    screenStyle
}

// screenStyle is what the terminal can show.
type screenStyle struct {
	width int // columns
	color bool
	utf8  bool
}

// widest keeps lines readable where a terminal is very wide.
const widest = 120

// screenStyle is the style of stdout, where the doctor's screen goes.
func (a *app) screenStyle() screenStyle {
	return screenStyle{
		width: min(a.io.Width(), widest),
		color: a.io.OutTerminal && a.env.Get("NO_COLOR") == "" && a.env.Get("TERM") != "dumb",
		utf8:  speaksUTF8(a.env),
	}
}

// speaksUTF8 asks the variables of the locale, of which the first that is set counts.
func speaksUTF8(env config.Env) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(env.Get(name)); value != "" {
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return env.Get("WT_SESSION") != "" // Windows has no such variables, but a terminal that can
}

type mark struct{ symbol, ascii, color string }

func markOf(s check.Status) mark {
	switch s {
	case check.OK:
		return mark{"✓", "[ok]", "32"}
	case check.Warn:
		return mark{"⚠", "[warn]", "33"}
	case check.Fail:
		return mark{"✗", "[FAIL]", "31"}
	default:
		return mark{"○", "[skip]", "2"}
	}
}

func (s screenStyle) paint(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// mark is a status's symbol, all of one width.
func (s screenStyle) mark(status check.Status) string {
	m := markOf(status)
	if s.utf8 {
		return s.paint(m.color, m.symbol)
	}
	const widestMark = len("[warn]")
	return s.paint(m.color, m.ascii) + strings.Repeat(" ", widestMark-len(m.ascii))
}

func (s screenStyle) markWidth() int {
	if s.utf8 {
		return 1
	}
	return len("[warn]")
}

func (d *doctorScreen) print(a *app) error {
	// Groups in the order of their first check, each in one place.
	var groups []string
	members := map[string][]check.Outcome{}
	for _, o := range d.outcomes {
		if d.quiet && (o.Status == check.OK || o.Status == check.Skip) {
			continue
		}
		if members[o.Group] == nil {
			groups = append(groups, o.Group)
		}
		members[o.Group] = append(members[o.Group], o)
	}
	var b strings.Builder
	if build := readBuild(); !d.quiet {
		fmt.Fprintf(&b, "sesame %s on %s\n\n", build.Version, build.Platform)
	}
	for _, group := range groups {
		b.WriteString(d.style.paint("1", group) + "\n")
		for _, o := range d.folded(members[group]) {
			d.outcome(&b, o)
		}
		b.WriteByte('\n')
	}
	for _, line := range d.done {
		b.WriteString("mended " + oneLine(line) + "\n")
	}
	b.WriteString(d.summary() + "\n")
	if n := d.mendable(); n > 0 {
		fmt.Fprintf(&b, "%d can be mended by `sesame doctor --fix`\n", n)
	}
	// All of it at once: what strangers wrote is in it, and perhaps a key.
	if _, err := io.WriteString(a.io.Out, a.redactor.String(b.String())); err != nil {
		return fmt.Errorf("write the checks: %w", err)
	}
	return nil
}

// folded makes one of the checks that were skipped one after the other for the same reason.
func (d *doctorScreen) folded(outcomes []check.Outcome) []check.Outcome {
	if d.verbose {
		return outcomes
	}
	var shown []check.Outcome
	for i := 0; i < len(outcomes); i++ {
		o, n := outcomes[i], 0
		for i+1 < len(outcomes) && o.Status == check.Skip && outcomes[i+1].Status == check.Skip && outcomes[i+1].Summary == o.Summary {
			i++
			n++
		}
		if n > 0 {
			o.Summary += fmt.Sprintf(" (and %d more)", n)
		}
		shown = append(shown, o)
	}
	return shown
}

// outcome is a check's line, and below it what belongs to it.
func (d *doctorScreen) outcome(b *strings.Builder, o check.Outcome) {
	titles := 0
	for _, other := range d.outcomes {
		titles = max(titles, len(other.Title))
	}
	margin := 2 + d.style.markWidth() + 1
	column := margin + titles + 2
	fmt.Fprintf(b, "  %s %-*s", d.style.mark(o.Status), titles+2, o.Title)
	summary := oneLine(o.Summary)
	if d.verbose {
		summary += fmt.Sprintf(" (%s)", roundly(o.Duration))
	}
	d.wrapped(b, summary, column, column)
	if d.verbose {
		for _, line := range o.Details {
			b.WriteString(strings.Repeat(" ", column))
			d.wrapped(b, oneLine(line), column, column+2)
		}
	}
	if o.Status == check.OK {
		return
	}
	for _, line := range o.Remedy {
		arrow := "-> "
		if d.style.utf8 {
			arrow = "→ "
		}
		indent := margin + utf8.RuneCountInString(arrow)
		b.WriteString(strings.Repeat(" ", margin) + d.style.paint("36", strings.TrimSpace(arrow)) + " ")
		d.wrapped(b, oneLine(line), indent, indent)
	}
}

// wrapped writes text that begins at column from, and goes on at column indent in the
// next lines. What stands in backquotes is to be copied and stays in one piece.
func (d *doctorScreen) wrapped(b *strings.Builder, text string, from, indent int) {
	at := from
	for i, word := range unbroken(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case at+1+n > d.style.width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	b.WriteByte('\n')
}

// unbroken splits at spaces outside of backquotes.
func unbroken(text string) []string {
	quoted := false
	return strings.FieldsFunc(text, func(r rune) bool {
		if r == '`' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
}

// oneLine is a text that strangers may have written, without what would leave its line.
func oneLine(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(printable(s))
}

// mendable is how many there are that --fix would do something about.
func (d *doctorScreen) mendable() int {
	n := 0
	for _, o := range d.outcomes {
		if o.Fix != nil && len(d.done) == 0 {
			n++
		}
	}
	return n
}

func (d *doctorScreen) summary() string {
	count := map[check.Status]int{}
	for _, o := range d.outcomes {
		count[o.Status]++
	}
	var parts []string
	for _, p := range []struct {
		status check.Status
		words  string
	}{{check.Fail, "failed"}, {check.Warn, "to look at"}, {check.Skip, "skipped"}, {check.OK, "ok"}} {
		if n := count[p.status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p.words))
		}
	}
	return fmt.Sprintf("%s (%s)", strings.Join(parts, ", "), roundly(d.took))
}

// roundly is a duration as a person wants it.
func roundly(t time.Duration) string {
	if t < time.Second {
		return fmt.Sprintf("%dms", t.Milliseconds())
	}
	return fmt.Sprintf("%.1fs", t.Seconds())
}

// doctorReport is what --json prints.
type doctorReport struct {
	SchemaVersion int                    `json:"schema_version"`
	Sesame        build                  `json:"sesame"`
	Status        check.Status           `json:"status"` // ok, warn or fail
	DurationMS    int64                  `json:"duration_ms"`
	Mended        []string               `json:"mended,omitempty"` // by --fix
	Checks        map[string]checkReport `json:"checks"`           // by id
}

type checkReport struct {
	Group      string       `json:"group"`
	Title      string       `json:"title"`
	Status     check.Status `json:"status"`
	Code       fault.Code   `json:"code,omitempty"` // of a failure
	Summary    string       `json:"summary"`
	Details    []string     `json:"details,omitempty"`
	Remedy     []string     `json:"remedy,omitempty"`
	DurationMS int64        `json:"duration_ms"`
}

func (d *doctorScreen) printJSON(a *app) error {
	r := doctorReport{
		SchemaVersion: 1, Sesame: readBuild(), Status: check.Worst(d.outcomes),
		DurationMS: d.took.Milliseconds(), Mended: d.done, Checks: map[string]checkReport{},
	}
	for _, o := range d.outcomes {
		r.Checks[o.ID] = checkReport{o.Group, o.Title, o.Status, o.Code, o.Summary, o.Details, o.Remedy, o.Duration.Milliseconds()}
	}
	var b strings.Builder
	if err := printJSON(&b, r); err != nil {
		return err
	}
	if _, err := io.WriteString(a.io.Out, a.anonymous(a.redactor.String(b.String()))); err != nil {
		return fmt.Errorf("write the checks: %w", err)
	}
	return nil
}

// anonymous takes out who the user is: such a text is pasted into issues that everybody reads.
func (a *app) anonymous(text string) string {
	if home := a.env.Get("HOME"); len(home) > 1 {
		text = strings.ReplaceAll(text, home, "~")
	}
	// Not what stands before the @ of a URL, which the redactor of URLs dealt with.
	address := regexp.MustCompile(`(^|[^:/\w.+-])([\w.+-])[\w.+-]*@([\w-]*[A-Za-z][\w-]*\.)`)
	return address.ReplaceAllString(text, "$1$2…@$3")
}
