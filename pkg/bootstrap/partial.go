package bootstrap

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"
)

const (
	// partialSchema is the version of the form of a partial's state.
	partialSchema = 1
	// partialPause is from one note of how far a partial is to the next.
	partialPause = 100 * time.Millisecond
)

// Have is what an earlier attempt left of a file.
type Have struct {
	Bytes     int64  // from its beginning
	Size      int64  // of the whole
	Validator string // what the server called this state of it
}

// partial is a file as it was sent up to some byte, and the note that says so.
// The note is only ever behind: what it tells of is written before.
type partial struct {
	path  string // of the bytes; the note is beside it
	url   string
	noted time.Time
}

type partialState struct {
	Schema    int    `json:"schema_version"`
	URL       string `json:"url"`
	Validator string `json:"validator"`
	Size      int64  `json:"size"`
	Bytes     int64  `json:"bytes"`
}

// newPartial is that of a URL, which has no secrets, in a directory.
func newPartial(dir, url string) *partial {
	sum := sha256.Sum256([]byte(url))
	return &partial{path: filepath.Join(dir, hex.EncodeToString(sum[:8])), url: url}
}

func (p *partial) notePath() string { return p.path + ".json" }

// have returns the zero value where nothing can be built upon.
func (p *partial) have() Have {
	data, err := os.ReadFile(p.notePath())
	if err != nil {
		return Have{}
	}
	var s partialState
	if json.Unmarshal(data, &s) != nil || s.Schema != partialSchema || s.URL != p.url || s.Validator == "" || s.Bytes <= 0 || s.Bytes >= s.Size {
		return Have{}
	}
	if info, err := os.Lstat(p.path); err != nil || !info.Mode().IsRegular() || info.Size() < s.Bytes {
		return Have{}
	}
	return Have{Bytes: s.Bytes, Size: s.Size, Validator: s.Validator}
}

// open returns the file with its first keep bytes and nothing after them.
func (p *partial) open(keep int64) (*os.File, error) {
	f, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(keep); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// note remembers how far the file is, unless it just did. Where it cannot, there
// is less to resume from and nothing else is lost.
func (p *partial) note(a *Artifact, bytes int64, now time.Time) {
	if a.Validator == "" || a.Size < 0 || now.Sub(p.noted) < partialPause {
		return
	}
	p.noted = now
	data, err := json.Marshal(partialState{partialSchema, p.url, a.Validator, a.Size, bytes})
	if err != nil {
		return
	}
	tmp := p.notePath() + ".new"
	if os.WriteFile(tmp, data, 0o600) == nil {
		_ = os.Rename(tmp, p.notePath())
	}
}

// remove forgets the file.
func (p *partial) remove() {
	for _, path := range []string{p.notePath() + ".new", p.notePath(), p.path} {
		_ = os.Remove(path) // whatever is left is swept away with its directory
	}
}
