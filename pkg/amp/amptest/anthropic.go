package amptest

import (
	"encoding/json"
	"net/http"
	"strings"
)

// anthropicRequest is what matters of a request to Anthropic Messages.
type anthropicRequest struct {
	Model      string             `json:"model"`
	Stream     bool               `json:"stream"`
	Messages   []anthropicMessage `json:"messages"`
	Tools      []toolName         `json:"tools"`
	ToolChoice struct {
		Type string `json:"type"`
		Name string `json:"name"`
	} `json:"tool_choice"`
}

type toolName struct {
	Name string `json:"name"`
}

type anthropicMessage struct {
	Role    string           `json:"role"`
	Content anthropicContent `json:"content"`
}

// anthropicContent is a list of blocks, or a string that stands for one of text.
type anthropicContent []anthropicBlock

type anthropicBlock struct {
	Type      string           `json:"type"`
	Text      string           `json:"text"`
	ToolUseID string           `json:"tool_use_id"`
	Content   anthropicContent `json:"content"` // of a tool_result
}

func (c *anthropicContent) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*c = anthropicContent{{Type: "text", Text: text}}
		return nil
	}
	var blocks []anthropicBlock
	if err := json.Unmarshal(data, &blocks); err != nil {
		return err
	}
	*c = blocks
	return nil
}

// texts are the text blocks.
func (c anthropicContent) texts() []string {
	var out []string
	for _, b := range c {
		if b.Type == "text" {
			out = append(out, b.Text)
		}
	}
	return out
}

// ask reads the conversation.
func (r *anthropicRequest) ask(mode string) ask {
	a := ask{mode: mode, count: len(r.Messages)}
	for _, t := range r.Tools {
		a.tools = append(a.tools, t.Name)
	}
	for _, m := range r.Messages {
		if m.Role != "user" {
			continue
		}
		var results []string
		for _, b := range m.Content {
			if b.Type == "tool_result" {
				results = append(results, strings.Join(b.Content.texts(), "\n"))
			}
		}
		if len(results) > 0 {
			a.results = append(a.results, results...)
			continue
		}
		if text := genuine(m.Content.texts()); text != "" {
			a.text, a.results = text, nil
		}
	}
	return a
}

// anthropic answers Anthropic Messages, streamed or not.
func (s *Service) anthropic(w http.ResponseWriter, r *http.Request) {
	var req anthropicRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		anthropicError(w, http.StatusBadRequest, err.Error())
		return
	}
	a := req.ask(s.modeOf(r, req.Model)).respond()
	if req.ToolChoice.Type == "tool" {
		// The one forced call is the thread's title; it is no part of the script.
		a = answer{call: &call{name: req.ToolChoice.Name, input: json.RawMessage(`{"title":"A scripted thread"}`)}}
	} else if status := s.fault().ProviderStatus; status != 0 {
		a = answer{status: status}
	}
	switch {
	case a.status != 0:
		anthropicError(w, a.status, "scripted failure of the provider")
	case req.Stream:
		s.streamAnthropic(w, r, req.Model, &a)
	default:
		writeJSON(w, http.StatusOK, a.wholeAnthropic(req.Model))
	}
}

func anthropicError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, object{"type": "error", "error": object{"type": "api_error", "message": message}})
}

func anthropicUsage(out int) object {
	return object{
		"input_tokens": 100, "output_tokens": out,
		"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
	}
}

func (a *answer) stopReason() string {
	if a.call != nil {
		return "tool_use"
	}
	return "end_turn"
}

// size is the number of bytes that the model says.
func (a *answer) size() int {
	n := len(a.thinking)
	for _, t := range a.text {
		n += len(t)
	}
	return n
}

func (a *answer) wholeAnthropic(model string) object {
	content := []object{}
	if a.thinking != "" {
		content = append(content, object{"type": "thinking", "thinking": a.thinking, "signature": "c2lnbmVk"})
	}
	if len(a.text) > 0 {
		content = append(content, object{"type": "text", "text": strings.Join(a.text, "")})
	}
	if a.call != nil {
		content = append(content, object{"type": "tool_use", "id": newID("toolu_"), "name": a.call.name, "input": a.call.input})
	}
	return object{
		"id": newID("msg_"), "type": "message", "role": "assistant", "model": model, "content": content,
		"stop_reason": a.stopReason(), "stop_sequence": nil, "usage": anthropicUsage(tokens(a.size())),
	}
}

func (s *Service) streamAnthropic(w http.ResponseWriter, r *http.Request, model string, a *answer) {
	es := newEventStream(w)
	es.send("message_start", object{"message": object{
		"id": newID("msg_"), "type": "message", "role": "assistant", "model": model, "content": []any{},
		"stop_reason": nil, "stop_sequence": nil, "usage": anthropicUsage(1),
	}})
	index := 0
	block := func(start object, deltas func(delta func(object))) {
		es.send("content_block_start", object{"index": index, "content_block": start})
		deltas(func(d object) { es.send("content_block_delta", object{"index": index, "delta": d}) })
		es.send("content_block_stop", object{"index": index})
		index++
	}
	if a.thinking != "" {
		block(object{"type": "thinking", "thinking": "", "signature": ""}, func(delta func(object)) {
			delta(object{"type": "thinking_delta", "thinking": a.thinking})
			delta(object{"type": "signature_delta", "signature": "c2lnbmVk"})
		})
	}
	if len(a.text) > 0 {
		block(object{"type": "text", "text": ""}, func(delta func(object)) {
			for _, t := range a.text {
				delta(object{"type": "text_delta", "text": t})
				s.onDelta()
				if !pause(r.Context(), a.gap) {
					return
				}
			}
		})
	}
	if a.call != nil {
		block(object{"type": "tool_use", "id": newID("toolu_"), "name": a.call.name, "input": object{}}, func(delta func(object)) {
			delta(object{"type": "input_json_delta", "partial_json": string(a.call.input)})
		})
	}
	es.send("message_delta", object{
		"delta": object{"stop_reason": a.stopReason(), "stop_sequence": nil},
		"usage": anthropicUsage(tokens(a.size())),
	})
	es.send("message_stop", object{})
}
