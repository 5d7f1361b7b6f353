package amptest

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// openaiRequest is what matters of a request to OpenAI Responses.
type openaiRequest struct {
	Model  string       `json:"model"`
	Stream bool         `json:"stream"`
	Input  []openaiItem `json:"input"`
	Tools  []toolName   `json:"tools"`
}

// openaiItem is a message (with or without a type), a function call, its
// output, or reasoning.
type openaiItem struct {
	Type    string           `json:"type"`
	Role    string           `json:"role"`
	Content anthropicContent `json:"content"` // blocks of input_text and output_text, or a string
	Output  anthropicContent `json:"output"`
}

// openaiTexts are the texts of an item's content.
func openaiTexts(c anthropicContent) []string {
	var out []string
	for _, b := range c {
		if strings.HasSuffix(b.Type, "text") {
			out = append(out, b.Text)
		}
	}
	return out
}

// ask reads the conversation. A function call counts as a message, as it does
// with the other protocols; its output too.
func (r *openaiRequest) ask(mode string) ask {
	a := ask{mode: mode}
	for _, t := range r.Tools {
		a.tools = append(a.tools, t.Name)
	}
	for _, it := range r.Input {
		switch {
		case it.Type == "function_call_output":
			a.results = append(a.results, strings.Join(openaiTexts(it.Output), "\n"))
			a.count++
		case it.Role == "user":
			a.count++
			if text := genuine(openaiTexts(it.Content)); text != "" {
				a.text, a.results = text, nil
			}
		case it.Role == "assistant" || it.Type == "function_call":
			a.count++
		}
	}
	return a
}

// openai answers OpenAI Responses, streamed or not.
func (s *Service) openai(w http.ResponseWriter, r *http.Request) {
	var req openaiRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		openaiError(w, http.StatusBadRequest, err.Error())
		return
	}
	a := req.ask(s.modeOf(r, req.Model)).respond()
	if status := s.fault().ProviderStatus; status != 0 {
		a = answer{status: status}
	}
	switch {
	case a.status != 0:
		openaiError(w, a.status, "scripted failure of the provider")
	case req.Stream:
		s.streamOpenAI(w, r, req.Model, &a)
	default:
		resp := newOpenAIResponse(req.Model)
		resp["output"] = a.openaiItems()
		resp.finish(a.size())
		writeJSON(w, http.StatusOK, resp)
	}
}

func openaiError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, object{"error": object{"message": message, "type": "server_error", "code": nil, "param": nil}})
}

// openaiResponse is the response object, which the first and the last event carry.
type openaiResponse object

func newOpenAIResponse(model string) openaiResponse {
	return openaiResponse{
		"id": newID("resp_"), "object": "response", "created_at": time.Now().Unix(), "model": model,
		"status": "in_progress", "output": []object{}, "error": nil, "incomplete_details": nil, "usage": nil,
	}
}

func (r openaiResponse) finish(size int) {
	out := tokens(size)
	r["status"] = "completed"
	r["usage"] = object{
		"input_tokens": 100, "input_tokens_details": object{"cached_tokens": 0},
		"output_tokens": out, "output_tokens_details": object{"reasoning_tokens": 0}, "total_tokens": 100 + out,
	}
}

// openaiItems are the finished output items of the answer.
func (a *answer) openaiItems() []object {
	items := []object{}
	if a.thinking != "" {
		items = append(items, object{
			"type": "reasoning", "id": newID("rs_"), "encrypted_content": "c2VhbGVk",
			"summary": []object{{"type": "summary_text", "text": a.thinking}},
		})
	}
	if len(a.text) > 0 {
		items = append(items, object{
			"type": "message", "id": newID("msg_"), "role": "assistant", "status": "completed",
			"content": []object{{"type": "output_text", "text": strings.Join(a.text, ""), "annotations": []any{}}},
		})
	}
	if a.call != nil {
		items = append(items, object{
			"type": "function_call", "id": newID("fc_"), "call_id": newID("call_"), "status": "completed",
			"name": a.call.name, "arguments": string(a.call.input),
		})
	}
	return items
}

func (s *Service) streamOpenAI(w http.ResponseWriter, r *http.Request, model string, a *answer) {
	es := newEventStream(w)
	resp := newOpenAIResponse(model)
	es.send("response.created", object{"response": resp})
	items := a.openaiItems()
	for i, it := range items {
		at := func(fields object) object {
			fields["item_id"], fields["output_index"] = it["id"], i
			return fields
		}
		es.send("response.output_item.added", object{"output_index": i, "item": beginning(it)})
		switch it["type"] {
		case "reasoning":
			part := object{"type": "summary_text", "text": a.thinking}
			es.send("response.reasoning_summary_part.added", at(object{"summary_index": 0, "part": object{"type": "summary_text", "text": ""}}))
			es.send("response.reasoning_summary_text.delta", at(object{"summary_index": 0, "delta": a.thinking}))
			es.send("response.reasoning_summary_text.done", at(object{"summary_index": 0, "text": a.thinking}))
			es.send("response.reasoning_summary_part.done", at(object{"summary_index": 0, "part": part}))
		case "message":
			part := object{"type": "output_text", "text": "", "annotations": []any{}}
			es.send("response.content_part.added", at(object{"content_index": 0, "part": part}))
			for _, t := range a.text {
				es.send("response.output_text.delta", at(object{"content_index": 0, "delta": t}))
				s.onDelta()
				if !pause(r.Context(), a.gap) {
					return
				}
			}
			whole := strings.Join(a.text, "")
			es.send("response.output_text.done", at(object{"content_index": 0, "text": whole}))
			part["text"] = whole
			es.send("response.content_part.done", at(object{"content_index": 0, "part": part}))
		case "function_call":
			es.send("response.function_call_arguments.delta", at(object{"delta": string(a.call.input)}))
			es.send("response.function_call_arguments.done", at(object{"name": a.call.name, "arguments": string(a.call.input)}))
		}
		es.send("response.output_item.done", object{"output_index": i, "item": it})
	}
	resp["output"] = items
	resp.finish(a.size())
	es.send("response.completed", object{"response": resp})
}

// beginning is the item as it is before its content has come.
func beginning(item object) object {
	out := object{}
	for k, v := range item {
		out[k] = v
	}
	switch item["type"] {
	case "reasoning":
		out["summary"] = []any{}
	case "message":
		out["content"], out["status"] = []any{}, "in_progress"
	case "function_call":
		out["arguments"], out["status"] = "", "in_progress"
	}
	return out
}
