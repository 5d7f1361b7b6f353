package amp

import (
	"encoding/json"
	"strings"
)

// maxName is how much of a key, and of a value other than the answer, is kept.
const maxName = 256

// skim reads a JSON object of any length, piece by piece, and keeps the scalar
// members at its top only: what type of line it is, of which thread, and how a
// turn ended. It checks no grammar beyond what it needs to find them.
type skim struct {
	limit  int // bytes kept of the answer
	fields map[string]string
	cut    map[string]bool // fields that were longer than what is kept

	depth    int
	inString bool
	escaped  bool
	value    bool   // the next token at the top is a value, not a key
	key      string // the key whose value comes
	token    []byte // the string or literal being read, as it is written
	full     bool   // token has reached its limit
}

func newSkim(limit int) *skim {
	return &skim{limit: limit, fields: map[string]string{}, cut: map[string]bool{}}
}

func (s *skim) write(p []byte) {
	for i := 0; i < len(p); {
		if s.inString {
			i += s.text(p[i:])
			continue
		}
		s.structure(p[i])
		i++
	}
}

// text takes string bytes up to and including the closing quote.
func (s *skim) text(p []byte) int {
	for i, c := range p {
		switch {
		case s.escaped:
			s.escaped = false
		case c == '\\':
			s.escaped = true
		case c == '"':
			s.keep(p[:i])
			s.inString = false
			if s.depth == 1 {
				s.endString()
			}
			return i + 1
		}
	}
	s.keep(p)
	return len(p)
}

func (s *skim) structure(c byte) {
	switch c {
	case '"':
		s.inString, s.escaped = true, false
		s.token, s.full = s.token[:0], false
	case '{', '[':
		s.depth++
		s.token = s.token[:0]
	case '}', ']':
		s.endLiteral()
		s.depth--
	case ':':
		if s.depth == 1 {
			s.value = true
		}
	case ',':
		if s.depth == 1 {
			s.endLiteral()
			s.value = false
		}
	case ' ', '\t', '\r':
	default:
		s.keep([]byte{c})
	}
}

// keep adds to the token, at the top only and up to its limit.
func (s *skim) keep(p []byte) {
	if s.depth != 1 {
		return
	}
	limit := maxName
	if s.value && (s.key == "result" || s.key == "error") {
		limit = s.limit
	}
	if room := limit - len(s.token); len(p) > room {
		p, s.full = p[:room], true
	}
	s.token = append(s.token, p...)
}

func (s *skim) endString() {
	text := unquote(s.token)
	if !s.value {
		s.key = text
	} else if _, again := s.fields[s.key]; again || len(s.fields) < maxName {
		s.fields[s.key], s.cut[s.key] = text, s.full
	}
	s.token, s.full = s.token[:0], false
}

func (s *skim) endLiteral() {
	if s.depth == 1 && s.value && len(s.token) > 0 && len(s.fields) < maxName {
		s.fields[s.key] = string(s.token)
	}
	s.token, s.full = s.token[:0], false
}

// unquote reads the inside of a JSON string that may have been cut anywhere.
func unquote(inside []byte) string {
	// A cut can leave half an escape, at most \ud83d\ude0, behind.
	for drop := 0; drop <= 12 && drop <= len(inside); drop++ {
		var text string
		whole := append(append([]byte{'"'}, inside[:len(inside)-drop]...), '"')
		if json.Unmarshal(whole, &text) == nil {
			return strings.TrimSuffix(text, "\ufffd")
		}
	}
	return ""
}

// event is what is known of the line.
func (s *skim) event(size int64) Event {
	thread := threadID(s.fields["session_id"])
	if s.fields["type"] != "result" {
		return &Unknown{Type: s.fields["type"], ThreadID: thread, Size: size, Err: errTooLong}
	}
	env := envelope{
		Subtype:  s.fields["subtype"],
		IsError:  s.fields["is_error"] == "true",
		NumTurns: json.Number(s.fields["num_turns"]),
		Duration: json.Number(s.fields["duration_ms"]),
	}
	e, _ := resultEvent(&env, thread).(*Result)
	field := "result"
	if _, ok := s.fields["error"]; ok && e.IsError {
		field = "error"
	}
	e.Text, e.Truncated = s.fields[field], s.cut[field]
	return e
}
