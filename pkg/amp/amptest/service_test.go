package amptest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
)

// call sends a request with the given key and returns status and body.
func call(t *testing.T, method, url, key string, body []byte, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestKey(t *testing.T) {
	s := amptest.StartT(t, amptest.WithKey("right"))
	body := []byte(`{"method":"getUserInfo","params":{}}`)
	url := s.URL() + "api/internal?getUserInfo"
	for _, tc := range []struct {
		name, key string
		header    []string
		want      int
	}{
		{"bearer", "right", nil, 200},
		{"x-api-key", "", []string{"X-Api-Key", "right"}, 200},
		{"wrong", "wrong", nil, 401},
		{"none", "", nil, 401},
		{"example", amptest.ExampleKey, nil, 401},
	} {
		if got, answer := call(t, "POST", url, tc.key, body, tc.header...); got != tc.want {
			t.Errorf("%s: %d %s", tc.name, got, answer)
		}
	}
	if got, _ := call(t, "GET", s.URL()+"api/nothing", "right", nil); got != 404 {
		t.Errorf("unknown path: %d", got)
	}
}

func TestRecordsDecodedRequests(t *testing.T) {
	observed := make(chan amptest.Request, 16)
	s := amptest.StartT(t, amptest.WithObserver(func(r amptest.Request) { observed <- r }))
	body := `{"method":"uploadThread","params":{"thread":{"id":"T-1","messages":[]}}}`
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, _ = zw.Write([]byte(body))
	_ = zw.Close()
	status, answer := call(t, "POST", s.URL()+"api/internal?uploadThread", s.Key(), packed.Bytes(), "Content-Encoding", "gzip")
	if status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	r := <-observed
	if string(r.Body) != body || r.Status != 200 || r.Internal() != "uploadThread" || r.Method != "POST" ||
		r.Header.Get("Authorization") != "Bearer "+s.Key() {
		t.Errorf("observed %+v", r)
	}
	if all := s.Requests(); len(all) != 1 || all[0].Path != "/api/internal?uploadThread" {
		t.Errorf("recorded %+v", all)
	}
	if status, answer := call(t, "GET", s.URL()+"api/threads/T-1", s.Key(), nil); status != 200 || answer != `{"id":"T-1","messages":[]}` {
		t.Errorf("thread: %d %s", status, answer)
	}
	if status, _ := call(t, "GET", s.URL()+"api/threads/T-2", s.Key(), nil); status != 404 {
		t.Errorf("no thread: %d", status)
	}
}

func TestInternal(t *testing.T) {
	s := amptest.StartT(t)
	for _, tc := range []struct{ body, want string }{
		{`{"method":"loadPlugins","params":{}}`, `{"ok":true,"result":[]}`},
		{`{"method":"getThread","params":{"thread":"T-9"}}`, `{"error":{"code":"thread-not-found","message":"Thread not found"},"ok":false}`},
		{`{"method":"setThreadLabels","params":{"thread":"T-1","labels":["ci"]}}`, `{"ok":true,"result":[{"name":"ci"}]}`},
		{`{"method":"getThreadLabels","params":{"thread":"T-1"}}`, `{"ok":true,"result":[{"name":"ci"}]}`},
		{`{"method":"uploadThread","params":{"thread":{"id":"T-1","v":2}}}`, `{"ok":true,"result":{}}`},
		{`{"method":"getThread","params":{"thread":"T-1"}}`, `{"ok":true,"result":{"thread":{"data":{"id":"T-1","v":2},"id":"T-1"}}}`},
		{`{"method":"somethingNew","params":{"thread":7}}`, `{"ok":true,"result":{}}`},
		{`no json`, `{"ok":true,"result":{}}`},
	} {
		if _, got := call(t, "POST", s.URL()+"api/internal?x", s.Key(), []byte(tc.body)); got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.body, got, tc.want)
		}
	}
}

func TestProvidersWithoutStream(t *testing.T) {
	s := amptest.StartT(t)
	_, got := call(t, "POST", s.URL()+"api/provider/anthropic/v1/messages", s.Key(),
		[]byte(`{"model":"m","messages":[{"role":"user","content":"THINK:hm\nRUN:ls"}],"tools":[{"name":"Bash"}]}`))
	for _, want := range []string{`"thinking":"hm"`, `"text":"THOUGHT: hm"`, `"name":"Bash"`, `"input":{"cmd":"ls"}`, `"stop_reason":"tool_use"`} {
		if !strings.Contains(got, want) {
			t.Errorf("anthropic: no %s in %s", want, got)
		}
	}
	_, got = call(t, "POST", s.URL()+"api/provider/anthropic/v1/messages", s.Key(),
		[]byte(`{"messages":[{"role":"user","content":"HTTP:500"}],"tool_choice":{"type":"tool","name":"set_title"}}`))
	if !strings.Contains(got, `"name":"set_title"`) {
		t.Errorf("title: %s", got)
	}
	_, got = call(t, "POST", s.URL()+"api/provider/openai/v1/responses", s.Key(),
		[]byte(`{"model":"gpt-5","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}]}`), "X-Amp-Mode", "deep")
	if !strings.Contains(got, `"text":"ECHO[deep]: hi (1 messages)"`) || !strings.Contains(got, `"status":"completed"`) {
		t.Errorf("openai: %s", got)
	}
	for path, body := range map[string]string{
		"anthropic/v1/messages": `{"messages":[{"role":"user","content":"HTTP:529"}]}`,
		"openai/v1/responses":   `{"input":[{"role":"user","content":"HTTP:529"}]}`,
	} {
		if status, _ := call(t, "POST", s.URL()+"api/provider/"+path, s.Key(), []byte(body)); status != 529 {
			t.Errorf("%s: %d", path, status)
		}
		if status, _ := call(t, "POST", s.URL()+"api/provider/"+path, s.Key(), []byte("no json")); status != 400 {
			t.Errorf("%s: %d for no JSON", path, status)
		}
	}
}

func TestDelay(t *testing.T) {
	s := amptest.StartT(t, amptest.WithFaults(amptest.Faults{Delay: time.Hour}))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", s.URL()+"api/telemetry", strings.NewReader("[]"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", s.Key())
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	s.SetFaults(amptest.Faults{})
	if status, _ := call(t, "POST", s.URL()+"api/telemetry", s.Key(), []byte("[]")); status != 200 {
		t.Errorf("healthy again: %d", status)
	}
}

func TestStartTLS(t *testing.T) {
	// httptest has a certificate at hand, for 127.0.0.1 and example.com.
	ts := httptest.NewTLSServer(http.NotFoundHandler())
	defer ts.Close()
	s := amptest.New()
	if err := s.StartTLS(t.Context(), ts.TLS.Certificates[0]); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	pool := x509.NewCertPool()
	pool.AddCert(ts.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "example.com"}}}
	defer client.CloseIdleConnections()
	url := "https://" + s.Addr() + "/actors/metadata"
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 200 || !strings.HasPrefix(s.URL(), "https://example.com:") {
		t.Errorf("%d from %s", resp.StatusCode, s.URL())
	}
}

func TestEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := amptest.New()
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err == nil {
		t.Error("started twice")
	}
	cancel()
	<-s.Done()
	if err := s.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	if resp, err := http.Get(s.URL()); err == nil {
		_ = resp.Body.Close()
		t.Error("still answers")
	}
}

// actorClient is a minimal executor.
type actorClient struct {
	t  *testing.T
	ws *websocket.Conn
}

func (c actorClient) send(frame string) {
	c.t.Helper()
	if err := c.ws.Write(c.t.Context(), websocket.MessageText, []byte(frame)); err != nil {
		c.t.Fatal(err)
	}
}

// until reads frames up to the first that contains s, and returns it.
func (c actorClient) until(s string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, data, err := c.ws.Read(ctx)
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", s, err)
		}
		if strings.Contains(string(data), s) {
			return string(data)
		}
	}
}

// openActor makes a thread and connects to it, or connects to the one given.
func openActor(t *testing.T, s *amptest.Service, thread string) (actorClient, string) {
	t.Helper()
	if thread == "" {
		_, answer := call(t, "POST", s.URL()+"api/thread-actors", s.Key(), []byte(`{"agentMode":"high"}`))
		var made struct{ ThreadID, AgentMode string }
		if err := json.Unmarshal([]byte(answer), &made); err != nil || made.ThreadID == "" || made.AgentMode != "high" {
			t.Fatalf("%s: %v", answer, err)
		}
		thread = made.ThreadID
	}
	url := strings.Replace(s.URL(), "http", "ws", 1) + "actors/gateway/threadActor/websocket/?rvt-key=" + thread
	ws, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"first", "second"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body // the websocket has it
	if ws.Subprotocol() != "first" {
		t.Errorf("subprotocol %q", ws.Subprotocol())
	}
	ws.SetReadLimit(-1)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return actorClient{t, ws}, thread
}

func TestThreadActor(t *testing.T) {
	s := amptest.StartT(t, amptest.WithFrames())
	c, thread := openActor(t, s, "")
	c.until(`"state":"idle"`)
	c.send("ping")
	c.until("pong")
	c.send(`{"jsonrpc":"2.0","id":1,"method":"executor_connect","params":{}}`)
	c.until("executor_connected")
	c.send(`{"jsonrpc":"2.0","id":2,"method":"client_append_user_msg","params":{"messageId":"M-1","content":[{"type":"text","text":"RUN:ls"}]}}`)
	c.until(`"working"`)
	// As in July, the tools come after the message.
	c.send(`{"jsonrpc":"2.0","id":3,"method":"executor_tools_register","params":{"tools":[{"name":"shell_command"}]}}`)
	lease := c.until("tool_lease")
	if !strings.Contains(lease, `"args":{"command":"ls"}`) {
		t.Errorf("lease %s", lease)
	}
	// The executor is lost in mid-call and comes back.
	_ = c.ws.CloseNow()
	c, _ = openActor(t, s, thread)
	c.until(`"running_tools"`)
	c.send(`{"jsonrpc":"2.0","id":4,"method":"client_resume","params":{"version":1}}`)
	c.until(`"tool_use"`)
	c.until(`"replayThroughSeq":2`)
	c.send(`{"jsonrpc":"2.0","id":5,"method":"executor_connect","params":{"executorId":"E-back"}}`)
	c.until(`"executorId":"E-back"`)
	var p struct{ Params struct{ ToolCallID string } }
	if err := json.Unmarshal([]byte(lease), &p); err != nil {
		t.Fatal(err)
	}
	c.send(`{"jsonrpc":"2.0","id":6,"method":"executor_tool_result","params":{"toolCallId":"` + p.Params.ToolCallID + `","run":{"status":"done","result":{"output":"file\n","exitCode":0}}}}`)
	c.until("executor_tool_result_ack")
	c.until("TOOL SAID: file")
	c.until(`"idle"`)

	_, tail := call(t, "POST", s.URL()+"api/internal?getThreadTail", s.Key(), []byte(`{"method":"getThreadTail","params":{"thread":"`+thread+`"}}`))
	var page struct {
		Result struct {
			Messages []struct{ Role string }
			Thread   struct{ Data struct{ AgentMode string } }
		}
	}
	if err := json.Unmarshal([]byte(tail), &page); err != nil || len(page.Result.Messages) != 4 || page.Result.Thread.Data.AgentMode != "high" {
		t.Errorf("tail %s: %v", tail, err)
	}
	var both [2]bool
	for _, f := range s.Frames() {
		both[0] = both[0] || f.FromPeer
		both[1] = both[1] || !f.FromPeer && f.Thread == thread
	}
	if !both[0] || !both[1] {
		t.Errorf("frames of both sides: %v", both)
	}
}

func TestCloseEndsTurns(t *testing.T) {
	s := amptest.New()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, _ := openActor(t, s, "")
	c.send(`{"id":1,"method":"executor_connect","params":{}}`)
	c.send(`{"id":2,"method":"executor_tools_register","params":{"tools":[{"name":"Bash"}]}}`)
	c.send(`{"id":3,"method":"client_append_user_msg","params":{"content":"SLOW:999"}}`)
	c.until("slow 1 of 999")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		if _, _, err := c.ws.Read(ctx); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		t.Error("the websocket outlives the service")
	}
}
