package config

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Redacted stands in output where a key was.
const Redacted = "[redacted]"

const (
	keyPrefix = "sgamp_" // what the service's keys begin with
	leastTail = 20       // characters behind it that make it a key and not a word
	mostTail  = 1024     // a longer run of characters is cut off, not waited for
	leastKey  = 4        // a shorter "key" would blacken ordinary text
)

// Redactor replaces keys in everything that sesame writes: those that it was told
// of, and whatever has the shape of one. It is safe for concurrent use.
type Redactor struct {
	mu      sync.RWMutex
	secrets [][]byte
}

// Add makes the redactor know a key, also as it looks inside JSON and URLs.
func (r *Redactor) Add(key Key) {
	secret := key.Reveal()
	if len(secret) < leastKey {
		return
	}
	forms := []string{secret, url.QueryEscape(secret), url.PathEscape(secret)}
	if quoted, err := json.Marshal(secret); err == nil {
		forms = append(forms, strings.Trim(string(quoted), `"`))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, form := range forms {
		if !slices.ContainsFunc(r.secrets, func(s []byte) bool { return string(s) == form }) {
			r.secrets = append(r.secrets, []byte(form))
		}
	}
}

// String is s without keys.
func (r *Redactor) String(s string) string {
	out, _, _ := r.clean(nil, []byte(s), true)
	return string(out)
}

// Writer passes on to w what is written to it, without keys, also when a key comes
// in pieces. What could be the beginning of a key is held back until the next
// write; Flush at the end.
func (r *Redactor) Writer(w io.Writer) *RedactedWriter {
	return &RedactedWriter{redactor: r, to: w}
}

// RedactedWriter is made by Redactor.Writer. It is safe for concurrent use.
type RedactedWriter struct {
	redactor *Redactor
	to       io.Writer

	mu         sync.Mutex
	held       []byte
	swallowing bool // inside the tail of something with a key's shape that is already replaced
}

// Write never reports fewer bytes than it was given without an error.
func (w *RedactedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.pass(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes what was held back.
func (w *RedactedWriter) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pass(nil, true)
}

func (w *RedactedWriter) pass(p []byte, end bool) error {
	if w.swallowing {
		rest := bytes.TrimLeftFunc(p, isKeyRune)
		if w.swallowing = len(rest) == 0 && !end; w.swallowing {
			return nil
		}
		p = rest
	}
	data := p
	if len(w.held) > 0 {
		data = append(w.held, p...)
	}
	out, rest, swallow := w.redactor.clean(make([]byte, 0, len(data)), data, end)
	w.held, w.swallowing = slices.Clone(rest), swallow
	if len(out) == 0 {
		return nil
	}
	_, err := w.to.Write(out)
	return err
}

// clean appends data without keys to out. Unless it is the end, rest is the tail
// that may belong to a key, and swallow says that a replaced one is not over yet.
func (r *Redactor) clean(out, data []byte, end bool) (cleaned, rest []byte, swallow bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	hold := len(data)
	if !end {
		hold = r.holdFrom(data)
	}
	for from := 0; ; {
		start, stop := r.next(data, from)
		if start < 0 || start >= hold {
			if from >= hold {
				return out, data[from:], false
			}
			return append(out, data[from:hold]...), data[hold:], false
		}
		out = append(append(out, data[from:start]...), Redacted...)
		from = stop
		if stop == len(data) && !end && isShape(data[start:stop]) {
			return out, nil, true
		}
	}
}

// next finds the first key at or behind from; of two at one place, the longer.
func (r *Redactor) next(data []byte, from int) (start, stop int) {
	start = -1
	for _, secret := range r.secrets {
		i := bytes.Index(data[from:], secret)
		if i < 0 {
			continue
		}
		i += from
		if start < 0 || i < start || i == start && i+len(secret) > stop {
			start, stop = i, i+len(secret)
		}
	}
	for at := from; ; {
		i := bytes.Index(data[at:], []byte(keyPrefix))
		if i < 0 || start >= 0 && at+i > start {
			return start, stop
		}
		i += at
		at = i + len(keyPrefix)
		tail := runLength(data[at:])
		if tail >= leastTail && (start < 0 || i < start || at+tail > stop) {
			return i, at + tail
		}
	}
}

// holdFrom is where a key may begin that the data does not hold the end of.
func (r *Redactor) holdFrom(data []byte) int {
	hold := len(data)
	for _, secret := range r.secrets {
		hold = min(hold, partial(data, secret))
	}
	hold = min(hold, partial(data, []byte(keyPrefix)))
	// A shape that reaches the end may go on; a hopelessly long one is not waited for.
	run := len(data)
	for run > 0 && isKeyRune(rune(data[run-1])) && len(data)-run < mostTail {
		run--
	}
	if i := bytes.Index(data[run:], []byte(keyPrefix)); i >= 0 && len(data)-run < mostTail {
		hold = min(hold, run+i)
	}
	return hold
}

// partial is the first place from which all the rest of data is the beginning of secret.
func partial(data, secret []byte) int {
	for i := max(0, len(data)-len(secret)+1); i < len(data); i++ {
		if bytes.HasPrefix(secret, data[i:]) {
			return i
		}
	}
	return len(data)
}

func runLength(data []byte) int {
	for i, c := range data {
		if !isKeyRune(rune(c)) {
			return i
		}
	}
	return len(data)
}

func isShape(b []byte) bool { return bytes.HasPrefix(b, []byte(keyPrefix)) }

func isKeyRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}
