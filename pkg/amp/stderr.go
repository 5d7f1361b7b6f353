package amp

import (
	"bytes"
	"strings"
	"sync"
)

const (
	tailLines = 40
	tailWidth = 2000 // bytes kept of a line
	lastLines = 5    // lines shown to people
)

// stderrTail keeps the last lines of Amp's stderr, cleaned of terminal codes.
type stderrTail struct {
	mu    sync.Mutex
	lines []string
	line  []byte
}

// Write takes the next piece.
func (t *stderrTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		piece, rest, whole := bytes.Cut(p, []byte{'\n'})
		t.line = append(t.line, piece[:min(len(piece), max(0, tailWidth-len(t.line)))]...)
		if whole {
			t.finish()
		}
		p = rest
	}
	return n, nil
}

func (t *stderrTail) finish() {
	text := cleanLine(string(t.line))
	t.line = t.line[:0]
	if text == "" {
		return
	}
	if t.lines = append(t.lines, text); len(t.lines) > tailLines {
		t.lines = t.lines[1:]
	}
}

// Lines are the last lines, the unfinished one included.
func (t *stderrTail) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finish()
	return append([]string(nil), t.lines...)
}

func cleanLine(line string) string {
	return OneLine(ansi().ReplaceAllString(line, ""), tailWidth)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return cleanLine(text[strings.LastIndexByte(text, '\n')+1:])
}

// errorLine is what stands behind the last "Error: " that begins a line, with
// the commander's own "error: " taken off; "" if there is none.
func errorLine(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if text, ok := strings.CutPrefix(lines[i], "Error: "); ok {
			return strings.TrimPrefix(text, "error: ")
		}
	}
	return ""
}
