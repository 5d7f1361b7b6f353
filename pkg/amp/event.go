package amp

import (
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Event is one line of Amp's JSON stream: *Init, *User, *Assistant, *Result,
// *Sesame or *Unknown.
type Event interface{ event() }

// Init opens the stream. Builds since July 2026 send it late.
type Init struct {
	ThreadID string
	Dir      string
	Tools    []string
	Mode     string // "" where the build does not say
}

// User is a message of the user's side: the prompt, or what tools answered.
type User struct {
	ThreadID string
	Text     string
	Results  []ToolResult
}

// ToolResult is what a tool answered.
type ToolResult struct {
	ToolUseID string
	Text      string
	IsError   bool
}

// Assistant is a message of the model's.
type Assistant struct {
	ThreadID string
	Text     string // its text blocks, joined by newlines
	Thinking string // its thinking blocks, joined by newlines
	Tools    []ToolUse
	Usage    *Usage // nil where the message carries none
	Subagent bool   // the message belongs to a tool's own conversation
}

// ToolUse is a tool call.
type ToolUse struct {
	ID    string
	Name  string
	Input json.RawMessage
}

// Usage counts tokens.
type Usage struct {
	InputTokens              int64 `json:"input_tokens"`
	OutputTokens             int64 `json:"output_tokens"`
	CacheCreationInputTokens int64 `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int64 `json:"cache_read_input_tokens"`
}

func (u *Usage) add(more *Usage) {
	u.InputTokens += more.InputTokens
	u.OutputTokens += more.OutputTokens
	u.CacheCreationInputTokens += more.CacheCreationInputTokens
	u.CacheReadInputTokens += more.CacheReadInputTokens
}

// Result closes the stream and says how the turn went.
type Result struct {
	ThreadID string
	Subtype  string // "success" or "error_during_execution"
	IsError  bool
	Text     string // the last assistant message, or what went wrong
	NumTurns int
	Duration time.Duration
	// Truncated tells that Text was too long to be kept whole.
	Truncated bool
}

// Sesame is a line that sesame adds to the stream, {"type":"sesame","subtype":…}.
type Sesame struct {
	Subtype string
	Line    json.RawMessage
}

// Unknown is a line that is none of the others: of a type that came later, no
// JSON, or too long to be looked at.
type Unknown struct {
	Type     string // "" where it could not be read
	ThreadID string
	Size     int64 // bytes, the newline not counted
	Err      error // why it could not be read; nil for a type that is merely new
}

func (*Init) event()      {}
func (*User) event()      {}
func (*Assistant) event() {}
func (*Result) event()    {}
func (*Sesame) event()    {}
func (*Unknown) event()   {}

// Observer is told of events as they come, by one goroutine at a time. A slow
// one slows Amp down.
type Observer interface{ Event(e Event) }

// ObserverFunc is a function as an Observer.
type ObserverFunc func(e Event)

// Event calls f.
func (f ObserverFunc) Event(e Event) { f(e) }

const maxArgument = 120 // characters of a tool's argument that are shown

// Argument is the tool call's main argument for people: the command, path,
// pattern or question, on one line, cut to 120 characters, and free of control
// characters, since the model chose it.
func (t ToolUse) Argument() string {
	var input map[string]json.RawMessage
	if json.Unmarshal(t.Input, &input) != nil {
		return ""
	}
	for _, key := range []string{
		"cmd", "command", "path", "file_path", "absolute_path", "filePattern", "pattern", "query", "url",
		"description", "task", "prompt", "name", "title",
	} {
		var text string
		if raw, ok := input[key]; ok && json.Unmarshal(raw, &text) == nil && text != "" {
			return OneLine(text, maxArgument)
		}
	}
	return ""
}

// OneLine makes text from outside fit for a line on a terminal: white space
// becomes single spaces, control and invisible characters go, and what exceeds limit
// characters is cut with an ellipsis.
func OneLine(text string, limit int) string {
	var b strings.Builder
	count, space := 0, false
	for i, r := range text {
		if count >= limit {
			if strings.TrimSpace(text[i:]) != "" {
				b.WriteRune('…')
			}
			break
		}
		switch {
		case unicode.IsSpace(r):
			space = b.Len() > 0
			continue
		case r == utf8.RuneError, !unicode.IsPrint(r):
			continue
		}
		if space {
			b.WriteByte(' ')
			count, space = count+1, false
		}
		b.WriteRune(r)
		count++
	}
	return b.String()
}
