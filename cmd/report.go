package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// reports marks the commands that print a Report with -o json, whatever happens.
const reports = "sesame_reports"

// Status is how a turn ended, in the words of -o json.
type Status string

// The statuses.
const (
	StatusSuccess  Status = "success"
	StatusError    Status = "error"
	StatusTimeout  Status = "timeout"
	StatusCanceled Status = "canceled"
	StatusCrashed  Status = "crashed"
)

// Report is the object that -o json prints for a turn. The command fills in what it
// knows as it comes to know it; status and error follow from the error it returns.
type Report struct {
	SchemaVersion int           `json:"schema_version"`
	SessionID     string        `json:"session_id"`
	ThreadID      string        `json:"thread_id"`
	Mode          string        `json:"mode"`
	AmpMode       string        `json:"amp_mode"`
	AmpVersion    string        `json:"amp_version"`
	Workspace     string        `json:"workspace"`
	Status        Status        `json:"status"`
	Result        string        `json:"result"`
	Error         *ReportError  `json:"error"`
	NumTurns      int           `json:"num_turns"`
	DurationMS    int64         `json:"duration_ms"`
	Usage         any           `json:"usage"` // null where Amp told none
	Sandbox       ReportSandbox `json:"sandbox"`
	Logs          ReportLogs    `json:"logs"`
}

// ReportError is why the turn did not end well.
type ReportError struct {
	Code    fault.Code `json:"code"`
	Message string     `json:"message"`
	Hint    string     `json:"hint"` // one line each
}

// ReportSandbox is what held the turn and what it refused.
type ReportSandbox struct {
	Tier    sandbox.Tier     `json:"tier"`
	Denials []sandbox.Denial `json:"denials"`
}

// ReportLogs are the files of the turn's output; "" where there is none.
type ReportLogs struct {
	Stderr string `json:"stderr"`
	Events string `json:"events"`
}

func newReport() *Report {
	return &Report{SchemaVersion: 1, Sandbox: ReportSandbox{Denials: []sandbox.Denial{}}}
}

func statusOf(err error) Status {
	if err == nil {
		return StatusSuccess
	}
	switch fault.CodeOf(err) {
	case fault.Timeout:
		return StatusTimeout
	case fault.Canceled:
		return StatusCanceled
	case fault.AmpCrashed:
		return StatusCrashed
	default:
		return StatusError
	}
}

// finishReport completes the report with how the command ended and prints it in the
// form that was asked for; as text there is none.
func (a *app) finishReport(err error) error {
	r := a.report
	r.Status = statusOf(err)
	if err != nil {
		r.Error = &ReportError{fault.CodeOf(err), err.Error(), strings.Join(fault.HintsOf(err), "\n")}
	}
	var object any = r
	switch a.wantedOutput() {
	case config.JSON:
	case config.StreamJSON:
		object = struct {
			Type    string `json:"type"`
			Subtype string `json:"subtype"`
			*Report
		}{"sesame", "report", r}
	default:
		return nil
	}
	return printJSON(a.io.Out, object)
}

// wantedOutput is the configured output. Where an error came before there was a
// configuration, the command line is read again without minding what is wrong with it,
// and then what else there is.
func (a *app) wantedOutput() config.Output {
	if a.output != "" {
		return a.output
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.Usage = func() {}
	wanted := flags.StringArrayP("output", "o", nil, "")
	file := flags.String("config", "", "")
	// So that their values, and what stands together with them, are not mistaken for others.
	flags.BoolP("quiet", "q", false, "")
	flags.BoolP("verbose", "v", false, "")
	flags.StringP("cd", "C", "", "")
	flags.StringP("mode", "m", "", "")
	flags.StringP("output-file", "O", "", "")
	_ = flags.Parse(a.args) // what is wrong is told already
	for _, format := range slices.Backward(*wanted) {
		// Others are slips, too: `-x and so on` is no wish for the format "n".
		switch output := config.Output(format); output {
		case config.Text, config.JSON, config.StreamJSON:
			return output
		}
	}
	dirs, err := a.dirs()
	if err != nil {
		return config.Output(a.env.Get("SESAME_OUTPUT"))
	}
	if *file != "" {
		if *file, err = a.absolute(*file); err != nil {
			*file = ""
		}
	}
	cfg, _ := config.Load(config.Options{Env: a.env, Dirs: dirs, ConfigFile: *file, Dir: a.cwd}) // likewise
	return cfg.Output
}

// printJSON writes one line; a "<" in it stays a "<".
func printJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}
