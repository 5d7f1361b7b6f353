package session

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/atomicfile"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const (
	recordName  = "session.json"
	lockName    = "lock"
	dirPrivate  = 0o700
	filePrivate = 0o600
	maxRecord   = 16 << 20 // bytes of a session.json that is no accident
)

// Store is the directory that holds the sessions.
type Store struct {
	dir string
	now func() time.Time
}

// NewStore is the store below a state directory: <state>/sessions. Nothing is
// made until the first session is. A clock of nil is the system's.
func NewStore(state string, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{dir: filepath.Join(state, "sessions"), now: now}
}

// Dir is the folder of a session.
func (s *Store) Dir(id string) string { return filepath.Join(s.dir, id) }

// Files are the places of turn n of a session.
func (s *Store) Files(id string, n int) Files { return turnFiles(s.Dir(id), n) }

// Entry is a session as others see it: its record, and whether somebody works in
// it. A turn noted as running by nobody is shown as interrupted.
type Entry struct {
	Record
	InUse bool `json:"in_use"`
}

// Broken is a session whose session.json cannot be read.
type Broken struct {
	ID  string
	Err error
}

// Create makes a session from the record, gives it its id and times, and takes
// it in use. Close it.
func (s *Store) Create(r Record) (*Session, error) {
	if r.Workspace == "" || !filepath.IsAbs(r.Workspace) {
		return nil, fault.New(fault.Internal, "a session needs the absolute path of its workspace")
	}
	if err := os.MkdirAll(s.dir, dirPrivate); err != nil {
		return nil, stateFault(err)
	}
	now := s.now().UTC()
	for range 100 {
		r.ID = now.Format("20060102-150405-") + randomTail()
		err := os.Mkdir(s.Dir(r.ID), dirPrivate)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, stateFault(err)
		}
		return s.begin(r, now)
	}
	return nil, stateFault(errors.New("no free session id"))
}

// begin fills a folder. A kill in between leaves one without session.json, which
// is no session yet; Prune takes it away.
func (s *Store) begin(r Record, now time.Time) (*Session, error) {
	dir := s.Dir(r.ID)
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, stateFault(err)
	}
	r.SchemaVersion, r.Created, r.Updated = schemaVersion, now, now
	session := &Session{store: s, dir: dir, lock: lock, record: r.clone()}
	if err := session.save(); err != nil {
		_ = os.RemoveAll(dir)
		_ = session.Close()
		return nil, err
	}
	atomicfile.SyncDir(s.dir)
	return session, nil
}

// randomTail keeps sessions of one second apart.
func randomTail() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:])[:4])
}

// Open takes a session in use by its exact id; see Find for what people type.
// One that is in use already is the error session_busy. Close it.
func (s *Store) Open(id string) (*Session, error) {
	if !idPattern().MatchString(id) {
		return nil, notFound(id)
	}
	if _, err := os.Stat(s.Dir(id)); err != nil {
		return nil, notFound(id)
	}
	lock, err := s.lock(id)
	if err != nil {
		return nil, err
	}
	r, err := s.read(id)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	session := &Session{store: s, dir: s.Dir(id), lock: lock, record: r}
	session.interrupt()
	return session, nil
}

func (s *Store) lock(id string) (io.Closer, error) {
	lock, err := takeLock(filepath.Join(s.Dir(id), lockName))
	switch {
	case errors.Is(err, errBusy):
		return nil, fault.New(fault.SessionBusy, "session %s is in use", id).
			Hint("wait until its turn has ended, or begin another session with sesame run")
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound(id)
	case err != nil:
		return nil, stateFault(err)
	}
	return lock, nil
}

// read reads a session.json and changes nothing, whatever is in it.
func (s *Store) read(id string) (Record, error) {
	path := filepath.Join(s.Dir(id), recordName)
	fail := func(err error) (Record, error) {
		return Record{}, fault.New(fault.SessionNotFound, "session %s cannot be read: %s: %w", id, path, err).
			Hint("correct the file, or remove the session with sesame sessions rm %s", id)
	}
	f, err := os.Open(path)
	if err != nil {
		var inPath *fs.PathError
		if errors.As(err, &inPath) {
			err = inPath.Err
		}
		return fail(err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(data) > maxRecord {
		err = fmt.Errorf("it has more than %d bytes", maxRecord)
	}
	if err != nil {
		return fail(err)
	}
	r, err := parseRecord(id, data)
	if err != nil {
		return fail(err)
	}
	return r, nil
}

// Show is a session by what people type; see Find.
func (s *Store) Show(what string) (Entry, error) {
	id, err := s.Find(what)
	if err != nil {
		return Entry{}, err
	}
	r, err := s.read(id)
	if err != nil {
		return Entry{}, err
	}
	return s.entry(r), nil
}

func (s *Store) entry(r Record) Entry {
	e := Entry{Record: r, InUse: locked(filepath.Join(s.Dir(r.ID), lockName))}
	if n := len(e.Turns); n > 0 && e.Turns[n-1].Status == Running && !e.InUse {
		e.Turns[n-1].Status = Interrupted
	}
	return e
}

// List is every session, the last used first. Those that cannot be read are
// told beside them.
func (s *Store) List() ([]Entry, []Broken, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, nil, err
	}
	var entries []Entry
	var broken []Broken
	for _, id := range ids {
		r, err := s.read(id)
		switch {
		case err == nil:
			entries = append(entries, s.entry(r))
		case errors.Is(err, fs.ErrNotExist): // not one yet, or just removed
		default:
			broken = append(broken, Broken{id, err})
		}
	}
	slices.SortStableFunc(entries, func(a, b Entry) int {
		if c := b.Updated.Compare(a.Updated); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return entries, broken, nil
}

func (s *Store) ids() ([]string, error) {
	dirs, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, stateFault(err)
	}
	var ids []string
	for _, d := range dirs {
		if d.IsDir() && idPattern().MatchString(d.Name()) {
			ids = append(ids, d.Name())
		}
	}
	return ids, nil
}

// Find is the id that begins with what was typed, that ends with it (the four
// random characters are quicker to type), or whose thread it is.
func (s *Store) Find(what string) (string, error) {
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	if what == "" {
		return "", notFound(what)
	}
	var found []string
	for _, id := range ids {
		switch {
		case id == what:
			return id, nil
		case strings.HasPrefix(id, what), len(what) == 4 && strings.HasSuffix(id, "-"+what):
			found = append(found, id)
		case strings.HasPrefix(what, "T-"):
			if r, err := s.read(id); err == nil && r.ThreadID == what {
				found = append(found, id)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", notFound(what)
	case 1:
		return found[0], nil
	}
	e := fault.New(fault.SessionNotFound, "%q stands for %d sessions", what, len(found))
	const shown = 8
	list := strings.Join(found[:min(len(found), shown)], ", ")
	if len(found) > shown {
		list += ", …"
	}
	return "", e.Hint("give more of its id: %s", list)
}

// Newest is the last used session of a workspace that can be continued. The path
// is compared as it is: clean it and resolve its links first.
func (s *Store) Newest(workspace string) (Entry, error) {
	entries, _, err := s.List()
	if err != nil {
		return Entry{}, err
	}
	begun := false
	for _, e := range entries {
		if e.Workspace != workspace {
			continue
		}
		if e.ThreadID != "" {
			return e, nil
		}
		begun = true
	}
	if begun {
		return Entry{}, fault.New(fault.SessionNotFound, "no session of %s came as far as to have a thread to continue", workspace).
			Hint("begin one with sesame run")
	}
	return Entry{}, fault.New(fault.SessionNotFound, "there is no session of %s to continue", workspace).
		Hint("begin one with sesame run, or name one with --session; sesame sessions lists them")
}

func notFound(what string) error {
	return fault.New(fault.SessionNotFound, "there is no session %q", what).Hint("sesame sessions lists them")
}

func stateFault(err error) error {
	return fault.New(fault.Internal, "cannot keep the session: %w", err)
}
