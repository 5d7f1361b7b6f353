package amptest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// beginTurn adds the user's message and starts the turn that it asks for. A
// turn that still runs is ended first: its Amp may be long dead. The caller
// holds t.mu.
func (s *Service) beginTurn(t *thread, messageID string, content json.RawMessage) {
	a := &t.actor
	before := a.running
	if a.cancel != nil {
		a.cancel()
	}
	ctx, cancel := context.WithCancel(s.life)
	ended := make(chan struct{})
	a.cancel, a.running = cancel, ended
	go func() {
		defer close(ended)
		defer cancel()
		if before != nil {
			<-before
		}
		s.turn(ctx, t, messageID, content)
	}()
}

// turn plays the model until the script ends, the provider fails, or ctx ends.
func (s *Service) turn(ctx context.Context, t *thread, messageID string, content json.RawMessage) {
	var blocks anthropicContent
	_ = json.Unmarshal(content, &blocks) // an odd message has no text
	t.mu.Lock()
	t.addMessage(object{"role": "user", "content": content, "messageId": messageID, "agentMode": t.mode})
	t.push("agent_state", object{"state": "working"})
	t.mu.Unlock()

	tools, ok := t.awaitTools(ctx)
	if !ok {
		t.halt()
		return
	}
	ask := ask{text: genuine(blocks.texts()), tools: tools}
	for {
		t.mu.Lock()
		ask.mode, ask.count = t.mode, len(t.actor.messages)
		t.mu.Unlock()
		out := ask.respond()
		if status := s.fault().ProviderStatus; status != 0 {
			out = answer{status: status}
		}
		if out.status != 0 {
			t.fail(fmt.Sprintf("%d scripted failure of the provider", out.status))
			return
		}
		run, ok := s.step(ctx, t, &out, tools)
		if !ok {
			t.halt()
			return
		}
		if out.call == nil {
			break
		}
		ask.results = append(ask.results, runOutput(run))
	}
	t.mu.Lock()
	t.push("agent_state", object{"state": "idle"})
	t.mu.Unlock()
}

// awaitTools waits for the executor's tools: builds of July register them after
// the first message.
func (t *thread) awaitTools(ctx context.Context) ([]string, bool) {
	for {
		t.mu.Lock()
		tools, registered := t.actor.tools, t.actor.registered
		t.mu.Unlock()
		if closed(registered) {
			return tools, true
		}
		select {
		case <-registered:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// fail ends the turn with an error.
func (t *thread) fail(message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push("error_set", object{"error": object{"message": message, "code": "provider_error"}})
	t.push("agent_state", object{"state": "error"})
}

// halt ends the turn because it was cancelled.
func (t *thread) halt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push("agent_state", object{"state": "idle"})
}

// step plays one model call and, where it calls a tool, the tool: the result is
// the tool's run. ok is false when ctx ended.
func (s *Service) step(ctx context.Context, t *thread, out *answer, tools []string) (run object, ok bool) {
	id := newID("M-")
	var blocks []object
	if out.thinking != "" {
		blocks = append(blocks, object{"type": "thinking", "thinking": out.thinking, "signature": "c2lnbmVk", "provider": "anthropic"})
	}
	t.mu.Lock()
	t.push("inference_tools", object{"messageId": id, "agentMode": t.mode, "tools": tools})
	t.push("agent_state", object{"state": "streaming", "messageId": id})
	t.mu.Unlock()
	delta := func(blocks []object, state string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		p := object{"messageId": id, "role": "assistant", "blocks": blocks, "state": state}
		if state == "complete" {
			p["usage"] = actorUsage(out)
		}
		t.push("delta", p)
	}
	for i := range out.text {
		said := object{"type": "text", "text": strings.Join(out.text[:i+1], "")}
		delta(append(blocks[:len(blocks):len(blocks)], said), "generating")
		s.onDelta()
		if !pause(ctx, out.gap) {
			return nil, false
		}
	}
	if len(out.text) > 0 {
		blocks = append(blocks, object{"type": "text", "text": strings.Join(out.text, "")})
	}
	callID := newID("TU-")
	if out.call != nil {
		blocks = append(blocks, object{
			"type": "tool_use", "complete": true, "id": callID, "name": out.call.name, "input": out.call.input,
		})
	}
	delta(blocks, "complete")
	result := make(chan object, 1)
	t.mu.Lock()
	t.addMessage(object{
		"role": "assistant", "content": blocks, "messageId": id,
		"state": object{"type": "complete", "stopReason": out.stopReason()}, "usage": actorUsage(out),
	})
	if out.call != nil {
		if t.actor.waiting == nil {
			t.actor.waiting = map[string]chan object{}
		}
		t.actor.waiting[callID] = result
		t.push("agent_state", object{"state": "running_tools"})
		t.pushExecutor("tool_lease", object{"toolCallId": callID, "toolName": out.call.name, "args": out.call.input, "messageId": id})
	}
	t.mu.Unlock()
	if out.call == nil {
		return nil, true
	}
	select {
	case run = <-result:
	case <-ctx.Done():
		return nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addMessage(object{
		"role": "user", "messageId": newID("M-"), "agentMode": t.mode,
		"content": []object{{"type": "tool_result", "toolUseID": callID, "run": run}},
	})
	return run, true
}

func actorUsage(a *answer) object {
	return object{
		"model": "scripted", "maxInputTokens": 200000, "inputTokens": 100, "outputTokens": tokens(a.size()),
		"cacheCreationInputTokens": 0, "cacheReadInputTokens": 0, "totalInputTokens": 100,
		"timestamp": time.Now().UTC().Format(time.RFC3339Nano),
	}
}

// runOutput is what a tool said, from the record of its run.
func runOutput(run object) string {
	for _, key := range []string{"result", "error", "reason"} {
		switch v := run[key].(type) {
		case nil:
		case string:
			return v
		default:
			data, err := json.Marshal(v)
			if err == nil {
				return string(data)
			}
		}
	}
	data, _ := json.Marshal(run) // it came from JSON
	return string(data)
}
