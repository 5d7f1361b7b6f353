package session

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// trashPrefix marks folders on their way out, which no id looks like.
const trashPrefix = ".removed-"

// youngest is the age at which a folder without session.json is surely not being made.
const youngest = time.Minute

// Remove removes a session, a broken one too. One in use is the error session_busy.
func (s *Store) Remove(id string) error {
	if !idPattern().MatchString(id) {
		return notFound(id)
	}
	if _, err := os.Lstat(s.Dir(id)); err != nil {
		return notFound(id)
	}
	lock, err := s.lock(id)
	if err != nil {
		return err
	}
	// Out of sight in one step, so that nobody meets half a session. Where an
	// open file forbids the step (Windows), the lock has to go first.
	trash := filepath.Join(s.dir, trashPrefix+id)
	err = os.Rename(s.Dir(id), trash)
	_ = lock.Close()
	if err != nil {
		err = os.Rename(s.Dir(id), trash)
	}
	if err != nil {
		return fault.New(fault.Internal, "cannot remove session %s: %w", id, err)
	}
	if err := os.RemoveAll(trash); err != nil {
		return fault.New(fault.Internal, "cannot remove session %s: %w", id, err)
	}
	return nil
}

// Prune says which sessions go.
type Prune struct {
	// OlderThan removes sessions not used for that long; 0 asks for no age.
	OlderThan time.Duration
	// Keep spares that many of the last used of each workspace.
	Keep int
	// DryRun removes nothing and tells what would go.
	DryRun bool
}

// Prune removes sessions and returns their ids. Those in use and those that
// cannot be read stay. The error joins what could not be removed.
func (s *Store) Prune(p Prune) ([]string, error) {
	entries, _, err := s.List()
	if err != nil {
		return nil, err
	}
	if !p.DryRun {
		s.sweep()
	}
	var removed []string
	var errs []error
	kept := map[string]int{}
	for _, e := range entries {
		old := p.OlderThan <= 0 || s.now().Sub(e.Updated) > p.OlderThan
		if e.InUse || kept[e.Workspace] < p.Keep || !old {
			kept[e.Workspace]++
			continue
		}
		if p.DryRun {
			removed = append(removed, e.ID)
			continue
		}
		switch err := s.Remove(e.ID); {
		case err == nil:
			removed = append(removed, e.ID)
		case fault.CodeOf(err) == fault.SessionBusy, fault.CodeOf(err) == fault.SessionNotFound:
		default:
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// sweep takes away what kills left behind: removals and beginnings that did not
// come to their end. Failures cost disk space and nothing else.
func (s *Store) sweep() {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, d := range dirs {
		path := filepath.Join(s.dir, d.Name())
		if strings.HasPrefix(d.Name(), trashPrefix) {
			_ = os.RemoveAll(path)
			continue
		}
		if !idPattern().MatchString(d.Name()) {
			continue
		}
		info, err := d.Info()
		if err != nil || s.now().Sub(info.ModTime()) < youngest {
			continue
		}
		if _, err := os.Lstat(filepath.Join(path, recordName)); errors.Is(err, fs.ErrNotExist) {
			_ = s.Remove(d.Name())
		}
	}
}

// OpenByName is Find and Open.
func (s *Store) OpenByName(what string) (*Session, error) {
	id, err := s.Find(what)
	if err != nil {
		return nil, err
	}
	return s.Open(id)
}
