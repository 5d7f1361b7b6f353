package amptest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
)

// eventStream writes server-sent events.
type eventStream struct {
	w   http.ResponseWriter
	seq int
}

func newEventStream(w http.ResponseWriter) *eventStream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	return &eventStream{w: w}
}

// send writes one event at once. Providers repeat its name as "type" and number
// it; who does not want the number ignores it.
func (s *eventStream) send(name string, fields object) {
	fields["type"] = name
	fields["sequence_number"] = s.seq
	s.seq++
	data, err := json.Marshal(fields)
	if err != nil {
		return
	}
	_, _ = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, data) // the peer may be gone
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}

// newID is prefix and 22 characters of base 32, which is part of base 62.
func newID(prefix string) string { return prefix + rand.Text()[:22] }

// tokens is a plausible number of tokens for so many bytes.
func tokens(bytes int) int { return bytes/4 + 1 }
