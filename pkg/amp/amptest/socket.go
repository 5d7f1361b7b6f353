package amptest

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"github.com/coder/websocket"
)

// socket is one websocket connection to a thread.
type socket struct {
	s   *Service
	t   *thread
	ws  *websocket.Conn
	out chan []byte
	// done ends with the connection, so that nobody waits to send to it.
	done <-chan struct{}
}

// rpc is a JSON-RPC request or notification of a client.
type rpc struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

func threadIDs() *regexp.Regexp {
	return regexp.MustCompile(`T-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
}

// threadInURL finds the thread's id, which stands in the path or in the query.
func threadInURL(r *http.Request) string { return threadIDs().FindString(r.URL.String()) }

// websocket serves a connection to a thread's actor until one side ends it.
func (s *Service) websocket(w http.ResponseWriter, r *http.Request) {
	t := s.thread(threadInURL(r))
	if t == nil {
		writeJSON(w, http.StatusNotFound, object{"error": "no such thread"})
		return
	}
	opts := &websocket.AcceptOptions{InsecureSkipVerify: true}
	// The real service echoes the first protocol offered; the others are data.
	if first, _, _ := strings.Cut(r.Header.Get("Sec-Websocket-Protocol"), ","); first != "" {
		opts.Subprotocols = []string{strings.TrimSpace(first)}
	}
	ws, err := websocket.Accept(w, r, opts)
	if err != nil {
		return // Accept has answered
	}
	ws.SetReadLimit(-1)
	ctx, cancel := context.WithCancel(s.life)
	defer cancel()
	c := &socket{s: s, t: t, ws: ws, out: make(chan []byte, 64), done: ctx.Done()}
	s.mu.Lock()
	s.sockets[c] = struct{}{}
	s.mu.Unlock()
	go c.write(ctx, cancel)
	t.join(c)
	c.read(ctx)
	t.leave(c)
	s.mu.Lock()
	delete(s.sockets, c)
	s.mu.Unlock()
	_ = ws.Close(websocket.StatusNormalClosure, "")
}

// send queues a frame. It keeps the order of calls.
func (c *socket) send(data []byte) {
	select {
	case c.out <- data:
	case <-c.done:
	}
}

func (c *socket) write(ctx context.Context, cancel func()) {
	defer cancel()
	for {
		select {
		case data := <-c.out:
			c.s.keepFrame(c.t.id, false, data)
			if err := c.ws.Write(ctx, websocket.MessageText, data); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (c *socket) read(ctx context.Context) {
	for {
		_, data, err := c.ws.Read(ctx)
		if err != nil {
			return
		}
		c.s.keepFrame(c.t.id, true, data)
		if string(data) == "ping" {
			c.send([]byte("pong"))
			continue
		}
		var req rpc
		if json.Unmarshal(data, &req) != nil || req.Method == "" {
			continue
		}
		c.handle(&req)
	}
}

// reply answers a request; a notification has no id and gets none.
func (c *socket) reply(req *rpc, result any) {
	if req.ID == nil {
		return
	}
	data, err := json.Marshal(object{"jsonrpc": "2.0", "id": req.ID, "result": result})
	if err == nil {
		c.send(data)
	}
}

// handle carries out one request.
func (c *socket) handle(req *rpc) {
	var p struct {
		Version    int64           `json:"version"`
		ExecutorID string          `json:"executorId"`
		Tools      []toolName      `json:"tools"`
		MessageID  string          `json:"messageId"`
		Content    json.RawMessage `json:"content"`
		AgentMode  string          `json:"agentMode"`
		ToolCallID string          `json:"toolCallId"`
		Run        object          `json:"run"`
	}
	_ = json.Unmarshal(req.Params, &p) // what is missing stays empty
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &t.actor
	switch req.Method {
	case "client_resume":
		for _, j := range a.journal {
			if j.seq > p.Version {
				c.send(j.data)
			}
		}
		c.reply(req, object{"replayThroughSeq": a.seq})
	case "executor_connect":
		a.executor = c
		if a.executorID = p.ExecutorID; a.executorID == "" {
			a.executorID = newID("E-")
		}
		a.forgetTools()
		c.reply(req, object{"ok": true})
		t.pushExecutor("executor_connected", object{
			"executorId": a.executorID, "registeredToolCount": 0, "guidanceInventory": []any{},
		})
	case "executor_tools_register":
		for _, tool := range p.Tools {
			a.tools = append(a.tools, tool.Name)
		}
		if !closed(a.registered) {
			close(a.registered)
		}
		c.reply(req, object{"ok": true})
	case "client_append_user_msg":
		if p.MessageID == "" {
			p.MessageID = newID("M-")
		}
		if p.AgentMode != "" {
			t.mode = p.AgentMode
		}
		c.reply(req, object{"ok": true, "messageId": p.MessageID})
		c.s.beginTurn(t, p.MessageID, p.Content)
	case "client_cancel":
		if a.cancel != nil {
			a.cancel()
		}
		c.reply(req, object{"ok": true})
	case "executor_tool_result":
		c.reply(req, object{"ok": true})
		t.pushExecutor("executor_tool_result_ack", object{"toolCallId": p.ToolCallID})
		if ch := a.waiting[p.ToolCallID]; ch != nil {
			delete(a.waiting, p.ToolCallID)
			ch <- p.Run // has room for one
		}
	default:
		c.reply(req, object{"ok": true})
	}
}

func closed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
