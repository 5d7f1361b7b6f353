package amp

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// DefaultMaxLine is the length in bytes up to which a Decoder keeps a line.
const DefaultMaxLine = 16 << 20

// keepBuffer is how much memory stays reserved between lines.
const keepBuffer = 1 << 20

// errTooLong is in the Unknown event of a line longer than the decoder's limit.
var errTooLong = errors.New("the line is too long to be read whole")

// Decoder turns Amp's JSON lines into events while they are written to it. It
// holds at most one line, and of a line longer than MaxLine only what the outcome
// of a turn rests on. It never fails: what it cannot read is an Unknown event.
type Decoder struct {
	// Event is called for each line that is not blank.
	Event func(e Event)
	// MaxLine is the longest line kept whole, in bytes; DefaultMaxLine when zero.
	MaxLine int

	line []byte
	long *skim // set while the line is too long
	size int64 // of the line so far
}

// Write takes the next piece of the stream.
func (d *Decoder) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		piece, rest, whole := bytes.Cut(p, []byte{'\n'})
		d.piece(piece)
		if whole {
			d.finish()
		}
		p = rest
	}
	return n, nil
}

// Flush takes what was written since the last newline as a line.
func (d *Decoder) Flush() error {
	d.finish()
	return nil
}

func (d *Decoder) piece(piece []byte) {
	limit := d.MaxLine
	if limit <= 0 {
		limit = DefaultMaxLine
	}
	d.size += int64(len(piece))
	if d.long == nil && len(d.line)+len(piece) <= limit {
		d.line = append(d.line, piece...)
		return
	}
	if d.long == nil {
		d.long = newSkim(limit)
		d.long.write(d.line)
		d.line = nil
	}
	d.long.write(piece)
}

func (d *Decoder) finish() {
	line, long, size := d.line, d.long, d.size
	d.line, d.long, d.size = d.line[:0], nil, 0
	if cap(d.line) > keepBuffer {
		d.line = nil
	}
	var e Event
	switch {
	case long != nil:
		e = long.event(size)
	case len(bytes.TrimSpace(line)) == 0:
		return
	default:
		e = decodeLine(line)
	}
	if d.Event != nil {
		d.Event(e)
	}
}

// envelope is every kind of line in one: their fields do not clash.
type envelope struct {
	Type      string          `json:"type"`
	Subtype   string          `json:"subtype"`
	SessionID string          `json:"session_id"`
	Cwd       string          `json:"cwd"`
	Tools     json.RawMessage `json:"tools"`
	AgentMode string          `json:"agent_mode"`
	Message   json.RawMessage `json:"message"`
	Parent    *string         `json:"parent_tool_use_id"`
	IsError   bool            `json:"is_error"`
	Result    json.RawMessage `json:"result"`
	Error     json.RawMessage `json:"error"`
	NumTurns  json.Number     `json:"num_turns"`
	Duration  json.Number     `json:"duration_ms"`
}

type message struct {
	Content json.RawMessage `json:"content"`
	Usage   *Usage          `json:"usage"`
}

type block struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Thinking  string          `json:"thinking"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"`
	IsError   bool            `json:"is_error"`
}

func decodeLine(line []byte) Event {
	size := int64(len(line))
	var env envelope
	if err := lenient(line, &env); err != nil {
		return &Unknown{Type: env.Type, ThreadID: threadID(env.SessionID), Size: size, Err: err}
	}
	thread := threadID(env.SessionID)
	unreadable := func(err error) Event {
		return &Unknown{Type: env.Type, ThreadID: thread, Size: size, Err: err}
	}
	switch {
	case env.Type == "system" && env.Subtype == "init":
		e := &Init{ThreadID: thread, Dir: env.Cwd, Mode: env.AgentMode}
		_ = json.Unmarshal(env.Tools, &e.Tools) // for show only
		return e
	case env.Type == "user" || env.Type == "assistant":
		var m message
		if err := lenient(env.Message, &m); err != nil {
			return unreadable(err)
		}
		blocks, err := decodeBlocks(m.Content)
		if err != nil {
			return unreadable(err)
		}
		if env.Type == "user" {
			return userEvent(thread, blocks)
		}
		return assistantEvent(thread, env.Parent != nil && *env.Parent != "", blocks, m.Usage)
	case env.Type == "result":
		return resultEvent(&env, thread)
	case env.Type == "sesame":
		return &Sesame{Subtype: env.Subtype, Line: bytes.Clone(line)}
	}
	return &Unknown{Type: env.Type, ThreadID: thread, Size: size}
}

// decodeBlocks reads message content, which may be a bare string.
func decodeBlocks(raw json.RawMessage) ([]block, error) {
	if text, ok := asString(raw); ok {
		return []block{{Type: "text", Text: text}}, nil
	}
	var blocks []block
	if len(raw) == 0 {
		return nil, nil
	}
	err := lenient(raw, &blocks)
	return blocks, err
}

// lenient is json.Unmarshal that leaves out members of another type than
// expected: a field that changed its type costs that field, not the line.
func lenient(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		return nil
	}
	return err
}

func userEvent(thread string, blocks []block) Event {
	e := &User{ThreadID: thread}
	var texts []string
	for _, b := range blocks {
		switch b.Type {
		case "text":
			texts = append(texts, b.Text)
		case "tool_result":
			e.Results = append(e.Results, ToolResult{b.ToolUseID, contentText(b.Content), b.IsError})
		}
	}
	e.Text = strings.Join(texts, "\n")
	return e
}

func assistantEvent(thread string, subagent bool, blocks []block, usage *Usage) Event {
	e := &Assistant{ThreadID: thread, Subagent: subagent, Usage: usage}
	var texts, thoughts []string
	for _, b := range blocks {
		switch b.Type {
		case "text":
			texts = append(texts, b.Text)
		case "thinking":
			thoughts = append(thoughts, b.Thinking)
		case "tool_use":
			e.Tools = append(e.Tools, ToolUse{b.ID, b.Name, b.Input})
		}
	}
	e.Text, e.Thinking = strings.Join(texts, "\n"), strings.Join(thoughts, "\n")
	return e
}

func resultEvent(env *envelope, thread string) Event {
	e := &Result{ThreadID: thread, Subtype: env.Subtype, IsError: env.IsError || strings.HasPrefix(env.Subtype, "error")}
	e.Text = contentText(env.Result)
	if e.IsError && len(env.Error) > 0 {
		e.Text = contentText(env.Error)
	}
	if n, err := env.NumTurns.Int64(); err == nil {
		e.NumTurns = int(n)
	}
	if ms, err := env.Duration.Float64(); err == nil && ms > 0 && ms < 1e15 {
		e.Duration = time.Duration(ms * float64(time.Millisecond))
	}
	return e
}

// contentText is the text of a string, of text blocks, or of an error object;
// of anything else the JSON itself.
func contentText(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	if text, ok := asString(raw); ok {
		return text
	}
	var blocks []block
	if json.Unmarshal(raw, &blocks) == nil {
		texts := make([]string, 0, len(blocks))
		for _, b := range blocks {
			texts = append(texts, b.Text)
		}
		return strings.Join(texts, "\n")
	}
	var failure struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &failure) == nil && failure.Message != "" {
		return failure.Message
	}
	return string(raw)
}

func asString(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return text, err == nil
}
