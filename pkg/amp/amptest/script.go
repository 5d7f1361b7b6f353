package amptest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ask is one model call, whichever protocol it came by.
type ask struct {
	mode    string
	count   int      // messages of the conversation, the newest one included
	text    string   // the newest user message
	results []string // outputs of the tools called since then
	tools   []string // names of the tools offered
}

// answer is what the model does in one call.
type answer struct {
	status   int      // HTTP status when the provider fails; nothing else counts then
	thinking string   // "" for none
	text     []string // deltas
	gap      time.Duration
	call     *call // nil ends the turn
}

// call is a tool call.
type call struct {
	name  string
	input json.RawMessage
}

// stepWords begin the lines of a message that are steps.
func stepWords() []string { return []string{"RUN:", "TOOL:", "THINK:", "SLOW:", "HTTP:"} }

// step is one line of the script.
type step struct{ word, arg string }

// steps finds the script in a message. Other lines are prose.
func steps(text string) []step {
	var out []step
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, word := range stepWords() {
			if arg, ok := strings.CutPrefix(line, word); ok {
				out = append(out, step{word, strings.TrimSpace(arg)})
				break
			}
		}
	}
	return out
}

// respond carries out the script from where the tool results say it has got to.
func (a ask) respond() answer {
	script := steps(a.text)
	if len(script) == 0 {
		return answer{text: []string{a.echo()}}
	}
	// Each tool call ends one model call, so the results already there are steps done.
	for range a.results {
		i := slices.IndexFunc(script, step.calls)
		if i < 0 {
			break
		}
		script = script[i+1:]
	}
	var out answer
	// What the last tool said belongs to the end of the script.
	if !slices.ContainsFunc(script, step.calls) {
		for _, result := range a.results {
			out.text = append(out.text, "TOOL SAID: "+plainOutput(result))
		}
	}
	for _, s := range script {
		switch s.word {
		case "HTTP:":
			status, err := strconv.Atoi(s.arg)
			if err != nil || status < 400 || status > 599 {
				status = http.StatusInternalServerError
			}
			return answer{status: status}
		case "THINK:":
			out.thinking += s.arg
			out.text = append(out.text, "THOUGHT: "+s.arg)
		case "SLOW:":
			n, err := strconv.Atoi(s.arg)
			if err != nil || n < 1 {
				n = 1
			}
			for i := range n {
				out.text = append(out.text, fmt.Sprintf("slow %d of %d", i+1, n))
			}
			out.gap = time.Second
		default:
			out.call = a.toolCall(s)
			if out.call == nil {
				out.text = append(out.text, "CANNOT: "+s.word+s.arg)
			}
			return out.lines()
		}
	}
	return out.lines()
}

// lines makes each delta but the first begin a line of its own.
func (a answer) lines() answer {
	for i := 1; i < len(a.text); i++ {
		a.text[i] = "\n" + a.text[i]
	}
	return a
}

// plainOutput is a tool's output without the wrapping that differs over builds
// and modes; an exit code other than 0 stays.
func plainOutput(result string) string {
	var run struct {
		Output   *string `json:"output"`
		ExitCode int     `json:"exitCode"`
	}
	if json.Unmarshal([]byte(result), &run) == nil && run.Output != nil {
		result = *run.Output
	} else if rest, ok := strings.CutPrefix(result, "<output>"); ok {
		var tail string
		result, tail, _ = strings.Cut(rest, "</output>")
		_, _ = fmt.Sscanf(strings.TrimSpace(tail), "<exitCode>%d</exitCode>", &run.ExitCode)
	}
	result = strings.TrimRight(result, "\n")
	if run.ExitCode != 0 {
		result += fmt.Sprintf(" (exit code %d)", run.ExitCode)
	}
	return result
}

func (a ask) echo() string {
	return fmt.Sprintf("ECHO[%s]: %s (%d messages)", a.mode, a.text, a.count)
}

func (s step) calls() bool { return s.word == "RUN:" || s.word == "TOOL:" }

// toolCall makes the call of a RUN or TOOL step, nil where it cannot be made.
func (a ask) toolCall(s step) *call {
	if s.word == "TOOL:" {
		name, input, _ := strings.Cut(s.arg, " ")
		if input = strings.TrimSpace(input); input == "" {
			input = "{}"
		}
		if !json.Valid([]byte(input)) {
			return nil
		}
		return &call{name: name, input: json.RawMessage(input)}
	}
	// The shell tool and its argument have two names over builds and modes.
	for _, shell := range [][2]string{{"shell_command", "command"}, {"Bash", "cmd"}} {
		if slices.Contains(a.tools, shell[0]) {
			input, err := json.Marshal(map[string]string{shell[1]: s.arg})
			if err != nil {
				return nil
			}
			return &call{name: shell[0], input: input}
		}
	}
	return nil
}

// genuine is the user's own words among the text blocks of a message. Amp adds
// blocks of context, under a headline or in tags; where all look like that, the
// last one is the user's.
func genuine(blocks []string) string {
	var own []string
	last := ""
	for _, b := range blocks {
		b = strings.TrimSpace(b)
		if b == "" {
			continue
		}
		last = b
		if strings.HasPrefix(b, "# User State") || strings.HasPrefix(b, "# Attached") ||
			strings.HasPrefix(b, "<") && strings.HasSuffix(b, ">") {
			continue
		}
		own = append(own, b)
	}
	if len(own) == 0 {
		return last
	}
	return strings.Join(own, "\n")
}
