// Package session keeps sessions: a folder per session with session.json, the
// logs of its turns, and a lock. What it writes survives a kill at any instant.
package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/regex"
)

// schemaVersion is the version of session.json. A newer one is not touched.
const schemaVersion = 1

// Status is how a turn stands.
type Status string

// The statuses. Interrupted is never written at the time: it is what a turn is
// that is noted as running while nobody runs it.
const (
	Running     Status = "running"
	Success     Status = "success"
	Failed      Status = "error"
	TimedOut    Status = "timeout"
	Canceled    Status = "canceled"
	Crashed     Status = "crashed"
	Interrupted Status = "interrupted"
)

// Record is what session.json says.
type Record struct {
	SchemaVersion int    `json:"schema_version"`
	ID            string `json:"id"`
	// ThreadID is Amp's thread; "" until Amp named it, and until then nothing can be continued.
	ThreadID   string    `json:"thread_id"`
	Workspace  string    `json:"workspace"`
	Mode       string    `json:"mode"`
	AmpMode    string    `json:"amp_mode"`
	AmpVersion string    `json:"amp_version"`
	AmpPath    string    `json:"amp_path"`
	ServiceURL string    `json:"service_url"`
	Labels     []string  `json:"labels,omitempty"`
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
	// Policy sums up the sandbox, so that later turns run under the same or a
	// stricter one. The package does not look into it.
	Policy json.RawMessage `json:"policy,omitempty"`
	Turns  []Turn          `json:"turns"`
}

// Turn is one turn of a session.
type Turn struct {
	N          int       `json:"n"` // from 1
	Status     Status    `json:"status"`
	Mode       string    `json:"mode,omitempty"`
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"`
	ErrorCode  string    `json:"error_code,omitempty"`
	Error      string    `json:"error,omitempty"`
	NumTurns   int       `json:"num_turns,omitempty"`
	DurationMS int64     `json:"duration_ms,omitempty"`
}

// Status is how the session's last turn stands; "" before the first.
func (r *Record) Status() Status {
	if len(r.Turns) == 0 {
		return ""
	}
	return r.Turns[len(r.Turns)-1].Status
}

// clone shares nothing with r that either could change.
func (r *Record) clone() Record {
	c := *r
	c.Labels, c.Turns, c.Policy = slices.Clone(r.Labels), slices.Clone(r.Turns), slices.Clone(r.Policy)
	return c
}

var idPattern = regex.Lazy(`^\d{8}-\d{6}-[a-z2-7]{4}$`)

// parseRecord reads session.json and refuses what could lead anywhere else.
func parseRecord(id string, data []byte) (Record, error) {
	var r Record
	var head struct {
		SchemaVersion int `json:"schema_version"`
	}
	if err := json.Unmarshal(data, &head); err == nil && head.SchemaVersion > schemaVersion {
		return r, fmt.Errorf("it has format %d, and this sesame knows formats up to %d", head.SchemaVersion, schemaVersion)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, err
	}
	switch {
	case r.SchemaVersion < 1:
		return r, errors.New("it has no schema_version")
	case r.ID != id:
		return r, fmt.Errorf("it belongs to session %q", r.ID)
	case r.Workspace == "" || !filepath.IsAbs(r.Workspace):
		return r, errors.New("it names no workspace")
	}
	return r, nil
}

// Files are the places of one turn.
type Files struct {
	Dir    string // turns/<n>
	Events string // Amp's JSON lines
	Stderr string // what Amp wrote there
}

func turnFiles(dir string, n int) Files {
	turn := filepath.Join(dir, "turns", strconv.Itoa(n))
	return Files{turn, filepath.Join(turn, "events.jsonl"), filepath.Join(turn, "stderr.log")}
}
