package amp

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"
)

// Turns without a JSON stream: builds to February refuse one for a new thread in
// any mode but smart. Sesame then says what it knows in lines of its own type and
// puts no words into Amp's mouth.

// answer keeps the beginning of a plain turn's stdout, which is the last message.
type answer struct {
	buf bytes.Buffer
}

// Write takes the next piece.
func (a *answer) Write(p []byte) (int, error) {
	a.buf.Write(p[:min(len(p), max(0, DefaultMaxLine-a.buf.Len()))])
	return len(p), nil
}

// String is the message without the newline that Amp adds; "" for nil.
func (a *answer) String() string {
	if a == nil {
		return ""
	}
	return strings.TrimRight(a.buf.String(), "\r\n")
}

// lastThreads are the threads that Amp noted as its last in its home. Builds note them under
// different names, and leave alone what another build noted: the one that changes in a turn is the turn's.
type lastThreads struct {
	Last    string `json:"lastThreadId"`
	Execute string `json:"lastExecuteThreadId"`
}

// changed is the thread that is noted now and was not before, "" if there is none.
func (now lastThreads) changed(before lastThreads) string {
	if id := threadID(now.Execute); id != "" && now.Execute != before.Execute {
		return id
	}
	if now.Last != before.Last {
		return threadID(now.Last)
	}
	return ""
}

func (t *turn) lastThreads() lastThreads {
	var noted lastThreads
	if t.o.ReadHome == nil {
		return noted
	}
	data, err := t.o.ReadHome(path.Join(".local", "share", "amp", "session.json"))
	if err != nil || len(data) > 1<<20 || json.Unmarshal(data, &noted) != nil {
		return lastThreads{}
	}
	return noted
}

// plainResult makes the result of a plain turn and its lines in the stream.
// Amp exits with 0 and an empty stdout when the model failed.
func (t *turn) plainResult(text string) {
	failure := errorLine(t.out.Stderr)
	switch {
	case strings.TrimSpace(text) != "" && t.out.Exit.Code == 0:
		t.result = &Result{ThreadID: t.out.ThreadID, Subtype: "success", Text: text}
		t.out.Result = text
	case failure != "" && t.out.Exit.Code == 0:
		t.result = &Result{ThreadID: t.out.ThreadID, Subtype: "error_during_execution", IsError: true, Text: failure}
	}
	lines := t.logs.lines(&Decoder{Event: t.event})
	emit := func(fields map[string]any) {
		fields["type"] = "sesame"
		if t.out.ThreadID != "" {
			fields["session_id"] = t.out.ThreadID
		}
		data, err := json.Marshal(fields)
		if err == nil {
			_, _ = lines.Write(append(data, '\n')) // finish tells of failures
		}
	}
	emit(map[string]any{"subtype": "plain_turn", "mode": t.o.Mode.Mode, "amp_mode": t.o.Mode.AmpMode})
	if t.result != nil {
		emit(map[string]any{"subtype": "answer", "is_error": t.result.IsError, "text": t.result.Text})
	}
	if err := lines.finish(); err != nil && t.out.OutputErr == nil {
		t.out.OutputErr = err
	}
}
