package bootstrap

import (
	"encoding/json"
	"strings"
)

// parseNPMRC reads the ini dialect of .npmrc. A key that is repeated with `[]`
// has several values, any other one its last. Sections mean nothing to npm and
// are passed over; ${NAME} and ${NAME?} come from lookup.
func parseNPMRC(text string, lookup func(string) (string, bool)) map[string][]string {
	values := map[string][]string{}
	inSection := false
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			inSection = true
			continue
		}
		if inSection {
			continue
		}
		rawKey, rawValue, assigned := strings.Cut(line, "=")
		key := expandNPM(unquoteINI(rawKey), lookup)
		value := "true" // a key alone is a switch
		if assigned {
			value = expandNPM(unquoteINI(rawValue), lookup)
		}
		if list, ok := strings.CutSuffix(key, "[]"); ok {
			values[list] = append(values[list], value)
		} else {
			values[key] = []string{value}
		}
	}
	return values
}

// unquoteINI undoes quotes, or, where there are none, escapes, and cuts off a comment.
func unquoteINI(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 1 && s[0] == '\'' && s[len(s)-1] == '\'' {
		s = s[1 : len(s)-1]
		return jsonString(s)
	}
	if len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"' {
		return jsonString(s)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ';', '#':
			return strings.TrimSpace(b.String())
		case '\\':
			if i+1 < len(s) && strings.IndexByte(`\;#`, s[i+1]) >= 0 {
				i++
				b.WriteByte(s[i])
			} else {
				b.WriteByte(c)
			}
		default:
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}

func jsonString(s string) string {
	var out string
	if json.Unmarshal([]byte(s), &out) == nil {
		return out
	}
	return s
}

// expandNPM replaces ${NAME}; an odd number of backslashes before it keeps it
// as it is, and so does a variable that is not set, unless a ? follows the name.
func expandNPM(s string, lookup func(string) (string, bool)) string {
	var b strings.Builder
	for {
		start := strings.Index(s, "${")
		if start < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := strings.IndexByte(s[start:], '}')
		if end < 0 {
			b.WriteString(s)
			return b.String()
		}
		end += start
		before := strings.TrimRight(s[:start], `\`)
		slashes := start - len(before)
		name, optional := strings.CutSuffix(s[start+2:end], "?")
		b.WriteString(before)
		b.WriteString(strings.Repeat(`\`, slashes/2))
		value, set := lookup(name)
		switch {
		case slashes%2 == 1 || (!set && !optional):
			b.WriteString(s[start : end+1])
		default:
			b.WriteString(value)
		}
		s = s[end+1:]
	}
}
