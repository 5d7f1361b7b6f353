package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/sesame-cli/sesame/pkg/config/atomicfile"
)

// Session is a session in use: nobody else can be, until it is closed or its
// process ends in whatever way. Its methods may be called from several goroutines.
type Session struct {
	store *Store
	dir   string
	lock  io.Closer

	mu     sync.Mutex
	record Record
}

// Dir is the session's folder.
func (s *Session) Dir() string { return s.dir }

// Record is what is known of the session now.
func (s *Session) Record() Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.clone()
}

// Update changes the record and writes it. When the writing fails the record
// stays as it was. The id, the times and the turns are not the caller's to change.
func (s *Session) Update(change func(r *Record)) error {
	return s.change(func(r *Record) {
		id, created, turns := r.ID, r.Created, r.Turns
		change(r)
		r.ID, r.Created, r.Turns = id, created, turns
	})
}

func (s *Session) change(change func(r *Record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.record
	s.record = before.clone()
	change(&s.record)
	s.record.SchemaVersion, s.record.Updated = schemaVersion, s.store.now().UTC()
	if err := s.save(); err != nil {
		s.record = before
		return err
	}
	return nil
}

// SetThread notes Amp's thread: from then on the session can be continued.
func (s *Session) SetThread(id string) error {
	if s.Record().ThreadID == id {
		return nil
	}
	return s.change(func(r *Record) { r.ThreadID = id })
}

// BeginTurn makes the folder of the next turn and notes the turn as running.
func (s *Session) BeginTurn(mode string) (Turn, Files, error) {
	n := 1
	for _, t := range s.Record().Turns {
		n = max(n, t.N+1)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "turns"), dirPrivate); err != nil {
		return Turn{}, Files{}, stateFault(err)
	}
	// A kill between the folder and the record leaves a folder that no turn owns.
	for {
		err := os.Mkdir(filepath.Join(s.dir, "turns", strconv.Itoa(n)), dirPrivate)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return Turn{}, Files{}, stateFault(err)
		}
		n++
	}
	turn := Turn{N: n, Status: Running, Mode: mode, Started: s.store.now().UTC()}
	err := s.change(func(r *Record) { r.Turns = append(r.Turns, turn) })
	if err != nil {
		return Turn{}, Files{}, err
	}
	return turn, turnFiles(s.dir, n), nil
}

// EndTurn notes how turn t ended; its number says which one it is.
func (s *Session) EndTurn(t Turn) error {
	t.Ended = s.store.now().UTC()
	found := false
	err := s.change(func(r *Record) {
		for i := range r.Turns {
			if r.Turns[i].N == t.N {
				r.Turns[i], found = t, true
			}
		}
	})
	if err == nil && !found {
		return fmt.Errorf("session %s has no turn %d", s.record.ID, t.N)
	}
	return err
}

// interrupt corrects turns of a process that is gone: we hold its lock.
func (s *Session) interrupt() {
	for i := range s.record.Turns {
		if s.record.Turns[i].Status == Running {
			s.record.Turns[i].Status = Interrupted
		}
	}
}

// Close lets others use the session.
func (s *Session) Close() error { return s.lock.Close() }

// save puts the whole record in place of the old one: a reader finds the one or
// the other, also after a loss of power.
func (s *Session) save() error {
	data, err := json.MarshalIndent(&s.record, "", "  ")
	if err != nil {
		return stateFault(err)
	}
	if err := atomicfile.Write(filepath.Join(s.dir, recordName), append(data, '\n'), filePrivate); err != nil {
		return stateFault(err)
	}
	return nil
}
