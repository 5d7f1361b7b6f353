package amptest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// actor is the thread as the service runs it for builds since July. Its fields
// are guarded by the thread's mutex.
type actor struct {
	messages []object
	seq      int64
	journal  []journaled
	sockets  []*socket

	// The executor is the connection whose tools the model calls.
	executor   *socket
	executorID string
	tools      []string
	registered chan struct{}          // closed when the tools are there; replaced only then
	waiting    map[string]chan object // tool calls without a result, by id
	cancel     context.CancelFunc     // ends the turn that is running
	running    chan struct{}          // closed when it has ended
	state      object                 // the last agent_state
}

// journaled is a push that a resuming connection gets again.
type journaled struct {
	seq  int64
	data []byte
}

// newThreadID is "T-" and a random UUID.
func newThreadID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("T-%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// createActor answers POST /api/thread-actors: a new thread, or the given one.
func (s *Service) createActor(w http.ResponseWriter, r *http.Request) {
	if f := s.fault(); f.ThreadActorsStatus != 0 {
		message := f.ThreadActorsMessage
		if message == "" {
			message = "You are out of credit."
		}
		writeJSON(w, f.ThreadActorsStatus, object{"ok": false, "message": message, "error": object{"code": "out-of-credits", "message": message}})
		return
	}
	var req struct {
		AgentMode string `json:"agentMode"`
		ThreadID  string `json:"threadId"`
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		writeJSON(w, http.StatusBadRequest, object{"error": err.Error()})
		return
	}
	if req.ThreadID == "" {
		req.ThreadID = newThreadID()
	}
	t := s.openThread(req.ThreadID)
	t.mu.Lock()
	defer t.mu.Unlock()
	if req.AgentMode != "" {
		t.mode = req.AgentMode
	}
	writeJSON(w, http.StatusOK, object{
		"threadId": t.id, "wsToken": "ws-" + t.id, "ownerUserId": userID, "threadVersion": t.actor.seq,
		"usesThreadActors": true, "usesDtw": true, "executorType": "local-client",
		"agentMode": t.mode, "poolName": "default",
	})
}

// actorCredentials answers POST /api/user-actor-credentials.
func (s *Service) actorCredentials(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, object{"userId": userID, "wsToken": "ws-" + userID, "poolName": "default"})
}

// actorData is the thread as getThread shows it. The caller holds t.mu.
func (t *thread) actorData() object {
	return object{
		"v": t.actor.seq, "id": t.id, "created": t.created.UnixMilli(), "title": nil,
		"messages": t.actor.list(), "agentMode": t.mode, "archived": t.archived,
		"creatorUserID": userID, "usesThreadActors": true,
		"meta": object{
			"visibility": "private", "sharedGroupIDs": []any{},
			"usesDtw": true, "usesThreadActors": true, "executorType": "local-client",
		},
	}
}

// page answers getThread and its relatives with all there is.
func (t *thread) page() object {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.uploaded != nil {
		return object{"thread": object{"id": t.id, "data": t.uploaded}}
	}
	return object{
		"thread":   object{"id": t.id, "data": t.actorData()},
		"messages": t.actor.list(), "hasMoreBefore": false, "firstMessageIndex": 0, "nextMessageIndex": nil,
	}
}

func (a *actor) list() []object {
	return append([]object{}, a.messages...)
}

// push sends a notification to all connections of the thread. Those that carry
// the conversation are numbered and journaled. The caller holds t.mu.
func (t *thread) push(method string, params object) {
	a := &t.actor
	keep := method == "message_added" || method == "error_set"
	if keep {
		a.seq++
		params["seq"] = a.seq
	}
	data := notification(method, params)
	if keep {
		a.journal = append(a.journal, journaled{a.seq, data})
	}
	if method == "agent_state" {
		a.state = params
	}
	for _, c := range a.sockets {
		c.send(data)
	}
}

// pushExecutor sends a notification to the executor's connection only. The
// caller holds t.mu.
func (t *thread) pushExecutor(method string, params object) {
	if t.actor.executor != nil {
		t.actor.executor.send(notification(method, params))
	}
}

// addMessage keeps a message and tells everyone. The caller holds t.mu.
func (t *thread) addMessage(m object) {
	m["threadId"] = t.id
	t.actor.messages = append(t.actor.messages, m)
	t.push("message_added", object{"message": m})
}

func notification(method string, params object) []byte {
	data, err := json.Marshal(object{"jsonrpc": "2.0", "method": method, "params": params})
	if err != nil {
		// Only values that came from JSON or from this package get here.
		panic(fmt.Sprintf("amptest: marshal %s: %v", method, err))
	}
	return data
}

// join adds a connection and says where the thread stands: an observing
// connection waits for a first frame.
func (t *thread) join(c *socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &t.actor
	a.sockets = append(a.sockets, c)
	if a.state == nil {
		a.state = object{"state": "idle"}
	}
	c.send(notification("agent_state", a.state))
}

// leave removes a connection. A tool call that waits for it goes on waiting:
// the executor may come back.
func (t *thread) leave(c *socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &t.actor
	a.sockets = slices.DeleteFunc(a.sockets, func(o *socket) bool { return o == c })
	if a.executor == c {
		a.executor = nil
		a.forgetTools()
	}
}

// forgetTools makes turns wait for the next registration. The caller holds t.mu.
func (a *actor) forgetTools() {
	a.tools = nil
	if a.registered == nil || closed(a.registered) {
		a.registered = make(chan struct{})
	}
}
