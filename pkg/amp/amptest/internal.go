package amptest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// internalCall is the body of POST /api/internal. The fields of params that
// matter here have the same names over all methods.
type internalCall struct {
	Method string `json:"method"`
	Params struct {
		Thread   json.RawMessage `json:"thread"` // an id, or the thread itself
		ThreadID string          `json:"threadID"`
		Archived *bool           `json:"archived"`
		Labels   []string        `json:"labels"`
	} `json:"params"`
}

// threadID finds the thread's id wherever the method puts it.
func (c *internalCall) threadID() string {
	if c.Params.ThreadID != "" {
		return c.Params.ThreadID
	}
	var id string
	if json.Unmarshal(c.Params.Thread, &id) == nil {
		return id
	}
	var whole struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(c.Params.Thread, &whole)
	return whole.ID
}

// internal answers the service's RPC.
func (s *Service) internal(w http.ResponseWriter, r *http.Request) {
	var c internalCall
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		// Params of an unknown shape are not worth a failure.
		name, _, _ := strings.Cut(r.URL.RawQuery, "&")
		c = internalCall{Method: strings.TrimSuffix(name, "=")}
		if m, err := url.QueryUnescape(c.Method); err == nil {
			c.Method = m
		}
	}
	if status := s.fault().UserInfoStatus; c.Method == "getUserInfo" && status != 0 {
		writeJSON(w, status, rpcError("internal-error", "the service is told to fail"))
		return
	}
	result := s.internalResult(&c)
	if result == nil {
		writeJSON(w, http.StatusOK, rpcError("thread-not-found", "Thread not found"))
		return
	}
	writeJSON(w, http.StatusOK, object{"ok": true, "result": result})
}

func rpcError(code, message string) object {
	return object{"ok": false, "error": object{"code": code, "message": message}}
}

// internalResult is the result of a method, nil where its thread is not there.
func (s *Service) internalResult(c *internalCall) any {
	switch c.Method {
	case "getUserInfo":
		return userInfo()
	case "getUserFreeTierStatus":
		return object{"canUseAmpFree": false, "isDailyGrantEnabled": false}
	case "userDisplayBalanceInfo":
		return object{"displayText": "Signed in as a@b.c. Balance: $10.00"}
	case "loadPlugins", "loadSkills":
		return []any{}
	case "uploadThread":
		if id := c.threadID(); id != "" {
			s.openThread(id).upload(c.Params.Thread)
		}
		return object{}
	case "getThreadLinkInfo":
		return object{"creatorUserID": userID}
	}
	t := s.thread(c.threadID())
	switch c.Method {
	case "archiveThread":
		if t != nil && c.Params.Archived != nil {
			t.mu.Lock()
			t.archived = *c.Params.Archived
			t.mu.Unlock()
		}
		return object{}
	case "getThread", "getThreadTail", "getThreadMessagesPage":
		if t == nil {
			return nil
		}
		return t.page()
	case "getThreadLabels", "setThreadLabels":
		// Labels may be set before a build to May uploads the thread.
		return s.openThread(c.threadID()).setLabels(c.Params.Labels)
	case "addThreadLabels":
		t := s.openThread(c.threadID())
		return t.setLabels(append(t.labelNames(), c.Params.Labels...))
	}
	return object{}
}

func userInfo() object {
	return object{
		"id": userID, "email": "a@b.c", "username": "a", "firstName": "A", "lastName": "B",
		"features": []any{}, "team": nil, "mysteriousMessage": nil,
	}
}

// setLabels sets the labels unless they are nil, and returns those that hold.
func (t *thread) labelNames() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.labels)
}

func (t *thread) setLabels(names []string) []object {
	t.mu.Lock()
	defer t.mu.Unlock()
	if names != nil {
		t.labels = names
	}
	out := []object{}
	for _, name := range t.labels {
		out = append(out, object{"name": name})
	}
	return out
}
