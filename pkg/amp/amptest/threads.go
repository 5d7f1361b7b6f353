package amptest

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// thread is a conversation. Builds to May upload theirs whole; for builds since
// July the service itself is where it lives.
type thread struct {
	id      string
	created time.Time

	mu       sync.Mutex
	uploaded json.RawMessage // as a build to May sent it; nil for the others
	mode     string
	archived bool
	labels   []string
	actor    actor
}

// thread returns the thread of that id, or nil.
func (s *Service) thread(id string) *thread {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.threads[id]
}

// openThread returns the thread of that id and makes it where it is missing.
func (s *Service) openThread(id string) *thread {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.threads[id]
	if t == nil {
		t = &thread{id: id, created: time.Now()}
		t.actor.forgetTools()
		s.threads[id] = t
	}
	return t
}

// upload keeps what a build to May knows of the thread.
func (t *thread) upload(data json.RawMessage) {
	var head struct {
		AgentMode string `json:"agentMode"`
		Messages  []struct {
			AgentMode string `json:"agentMode"`
		} `json:"messages"`
	}
	_ = json.Unmarshal(data, &head) // an odd thread has no mode
	t.mu.Lock()
	defer t.mu.Unlock()
	t.uploaded = data
	for _, m := range head.Messages {
		if m.AgentMode != "" {
			t.mode = m.AgentMode
		}
	}
	if head.AgentMode != "" {
		t.mode = head.AgentMode
	}
}

// data is the thread in the form that its generation of builds expects.
func (t *thread) data() any {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.uploaded != nil {
		return t.uploaded
	}
	return t.actorData()
}

// downloadThread answers GET /api/threads/<id>.
func (s *Service) downloadThread(w http.ResponseWriter, r *http.Request) {
	t := s.thread(r.PathValue("id"))
	if t == nil {
		writeJSON(w, http.StatusNotFound, object{"error": "thread not found"})
		return
	}
	writeJSON(w, http.StatusOK, t.data())
}

// modeOf is the mode of the thread that a model call belongs to. Builds from
// Apr 27 on do not send it: they upload it with the thread, after the first
// turn. Until then the model tells.
func (s *Service) modeOf(r *http.Request, model string) string {
	if mode := r.Header.Get("X-Amp-Mode"); mode != "" {
		return mode
	}
	if t := s.thread(r.Header.Get("X-Amp-Thread-Id")); t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.mode != "" {
			return t.mode
		}
	}
	switch {
	case strings.HasPrefix(model, "gpt-"):
		return "deep"
	case strings.HasPrefix(model, "claude-haiku-"):
		return "rush"
	case model == "claude-opus-4-6": // these builds have a newer one for smart
		return "large"
	default:
		return "smart"
	}
}
