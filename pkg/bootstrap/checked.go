package bootstrap

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/atomicfile"
)

// checkedFile, in the cache, remembers when the sources were last asked.
const checkedFile = "checked.json"

// checked is when the sources were asked for the newest version, and what they said.
type checked struct {
	At     time.Time `json:"checked_at"`
	Latest string    `json:"latest"`
}

// checked returns the zero value when nothing usable is there: then it is time to ask.
func (c cache) checked() checked {
	var s checked
	data, err := os.ReadFile(filepath.Join(c.dir, checkedFile))
	if err != nil || json.Unmarshal(data, &s) != nil {
		return checked{}
	}
	return s
}

func (c cache) setChecked(s checked) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(c.dir, checkedFile), append(data, '\n'), 0o600)
}

// fresh reports whether the sources need not be asked yet. A time to come is of a clock that was wrong.
func (s checked) fresh(now time.Time, interval time.Duration) bool {
	age := now.Sub(s.At)
	return age >= 0 && age < interval
}
