package cmd

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// table is rows of cells; the first row is the headings.
type table [][]string

// print writes the rows with their columns aligned. Cells are made harmless: they may
// come from files that strangers wrote.
func (t table) print(w io.Writer) error {
	const gap = 2
	var widths []int
	rows := make([][]string, len(t))
	for i, row := range t {
		for j, cell := range row {
			cell = strings.NewReplacer("\n", " ", "\t", " ").Replace(printable(cell))
			rows[i] = append(rows[i], cell)
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for j, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[j]+gap-utf8.RuneCountInString(cell)))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// when is a point in time as people want to see it: on a terminal how long ago, for
// programs exactly.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if !a.io.OutTerminal {
		return t.UTC().Format(time.RFC3339)
	}
	return ago(a.now().Sub(t))
}

func ago(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < -time.Minute:
		return "in the future" // of a clock that was wrong
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	default:
		return fmt.Sprintf("%d days ago", d/day)
	}
}

// counted is "1 session", "2 sessions".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
