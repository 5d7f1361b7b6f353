//go:build unix

package sandbox

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Without mounts a home cannot be laid over the host's. The sandbox gets a directory of its own instead, which
// lasts with the workspace and looks like the home: links lead to what is only read there, toolchains above all; small
// files, such as settings, are copies; and the directories that programs write to are its own.

// mirrored are directories of the home that are made with their entries one by one, since programs add to them.
var mirrored = []string{
	"", ".config", ".local", ".local/share", ".local/bin", ".local/lib", ".local/lib/python3*", ".local/lib/python3*/site-packages",
	".cargo", ".cargo/bin", "go", "go/bin", ".pyenv", ".pyenv/shims",
}

// ownCaches are not taken over: programs make them and fill them by themselves.
var ownCaches = []string{
	".cache", ".npm", ".local/state", ".cargo/registry", ".cargo/git", "go/pkg", ".m2", ".gradle", ".ivy2", ".sbt", ".nuget", ".deno", ".yarn", ".pnpm-store",
	".local/share/pnpm", ".local/share/virtualenv", ".local/share/uv", ".bundle", ".gem", "Library",
}

// What is small enough to be copied: a file; and of a directory in .config, all its files.
const maxCopied, maxCopiedFiles = 64 << 10, 32

// mirror makes the home's entries. What an earlier turn left there is not trusted: every path is
// resolved within the root.
type mirror struct {
	root   *os.Root
	host   string
	reads  func(path string) bool // that the sandbox may read it, with all below: nothing else is copied
	shows  func(path string) bool // that it may read something in it
	allow  []string               // relative paths that the policy names
	strict bool                   // only toolchains are shown
	made   map[string]stamp
	record string // file that keeps made
}

// stamp says what an entry was made of, so that it is made again when that changes, and not when it was removed inside.
type stamp struct {
	Link bool  `json:",omitempty"`
	Time int64 `json:",omitempty"` // of the host's file, in nanoseconds
	Own  int64 `json:",omitempty"` // of the copy
}

func (o *ownPlaces) openMirror() (*mirror, error) {
	root, err := openOwn(o.home)
	if err != nil {
		return nil, err
	}
	h := &mirror{root: root, host: o.policy.Home, reads: o.reads, shows: o.shows, strict: o.policy.Profile == Strict, made: map[string]stamp{}, record: filepath.Join(filepath.Dir(o.home), "home.json")}
	for _, path := range slices.Concat(o.policy.AllowRead, o.policy.AllowWrite) {
		if rel, err := filepath.Rel(h.host, path); err == nil && filepath.IsLocal(rel) && path != h.host {
			h.allow = append(h.allow, rel)
		}
	}
	if data, err := os.ReadFile(h.record); err == nil {
		_ = json.Unmarshal(data, &h.made) // a record that cannot be read is made anew
	}
	return h, nil
}

func (h *mirror) fill() error {
	for _, pattern := range mirrored {
		dirs := []string{pattern}
		if strings.Contains(pattern, "*") {
			found, err := fs.Glob(os.DirFS(h.host), pattern)
			if err != nil {
				return err
			}
			dirs = found
		}
		for _, dir := range dirs {
			if err := h.fillDir(dir); err != nil {
				return err
			}
		}
	}
	for _, rel := range h.allow {
		h.link(rel)
	}
	data, err := json.Marshal(h.made)
	if err != nil {
		return err
	}
	next := h.record + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, h.record)
}

// inTheWay tells errors of what an earlier turn put in the place of something, or closed: it has that, then.
func inTheWay(err error) bool {
	return errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) || strings.Contains(err.Error(), "escapes")
}

func (h *mirror) fillDir(dir string) error {
	path := filepath.Join(h.host, dir)
	if !isReal(path) {
		return nil // there is none; or it is a link, to which one leads, too
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil //nolint:nilerr // not ours to read
	}
	if dir != "" {
		if err := h.root.MkdirAll(dir, 0o700); err != nil && !inTheWay(err) {
			return err
		}
	}
	for _, e := range entries {
		rel := filepath.Join(dir, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			err = h.linkOnce(rel)
		case h.own(rel):
		case !e.IsDir() && !h.granted(rel):
		case e.Type().IsRegular():
			err = h.file(rel, e)
		case e.IsDir() && dir == ".config" && h.shown(rel):
			err = h.settings(rel)
		case e.IsDir() && h.shown(rel):
			err = h.linkOnce(rel)
		}
		if err != nil && !inTheWay(err) {
			return err
		}
	}
	return nil
}

// granted tells whether the sandbox may read an entry and all below it.
func (h *mirror) granted(rel string) bool { return h.reads(filepath.Join(h.host, rel)) }

// shown tells whether the sandbox may read something of a directory.
func (h *mirror) shown(rel string) bool { return h.granted(rel) || h.shows(filepath.Join(h.host, rel)) }

// own tells whether an entry is a directory that is made here, or one on the way to such.
func (h *mirror) own(rel string) bool {
	for _, pattern := range slices.Concat(mirrored[1:], ownCaches) {
		if ok, err := filepath.Match(pattern, rel); ok && err == nil {
			return true
		}
	}
	return false
}

// file copies a small file, and links to others.
func (h *mirror) file(rel string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return nil //nolint:nilerr // it has just gone
	}
	if info.Size() > maxCopied || h.strict {
		return h.linkOnce(rel) // what is in the strict profile's home cannot be executed: a link is to what can
	}
	was, ok := h.made[rel]
	if ok && was.Time == info.ModTime().UnixNano() {
		return nil
	}
	if ok {
		now, err := h.root.Lstat(rel)
		if err != nil || !now.Mode().IsRegular() || now.ModTime().UnixNano() != was.Own {
			return nil //nolint:nilerr // it was changed inside: that is what counts
		}
	}
	data, err := os.ReadFile(filepath.Join(h.host, rel))
	if err != nil {
		return nil //nolint:nilerr // not ours to read
	}
	if !ok {
		if _, err := h.root.Lstat(rel); err == nil {
			return nil
		}
	}
	next := rel + ".sesame-new"
	_ = h.root.Remove(next)
	f, err := h.root.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	own, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return err
	}
	if err := h.root.Rename(next, rel); err != nil {
		return err
	}
	h.made[rel] = stamp{Time: info.ModTime().UnixNano(), Own: own.ModTime().UnixNano()}
	return nil
}

// settings copies a directory of settings if it is small, and links to others.
func (h *mirror) settings(rel string) error {
	if _, ok := h.made[rel]; ok {
		return h.files(rel)
	}
	n := 0
	err := filepath.WalkDir(filepath.Join(h.host, rel), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if n++; err != nil || n > maxCopiedFiles || !e.IsDir() && info.Size() > maxCopied {
			return fs.ErrInvalid
		}
		return nil
	})
	if err != nil {
		return h.linkOnce(rel)
	}
	if err := h.root.MkdirAll(rel, 0o700); err != nil {
		return err
	}
	h.made[rel] = stamp{}
	return h.files(rel)
}

// files copies what is in a directory of settings.
func (h *mirror) files(rel string) error {
	if h.made[rel].Link {
		return nil
	}
	return filepath.WalkDir(filepath.Join(h.host, rel), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // not ours to read
		}
		r, err := filepath.Rel(h.host, path)
		switch {
		case err != nil:
			return err
		case e.IsDir() && !h.shown(r):
			return fs.SkipDir
		case e.Type().IsRegular() && !h.granted(r):
			return nil
		case e.IsDir():
			if _, ok := h.made[r]; !ok {
				if err := h.root.MkdirAll(r, 0o700); err != nil {
					return err
				}
				h.made[r] = stamp{}
			}
			return nil
		case e.Type().IsRegular():
			return h.file(r, e)
		case e.Type()&fs.ModeSymlink != 0:
			return h.linkOnce(r)
		}
		return nil
	})
}

// linkOnce links to the host's entry, unless that was done before: then it was removed inside.
func (h *mirror) linkOnce(rel string) error {
	if _, ok := h.made[rel]; ok {
		return nil
	}
	h.made[rel] = stamp{Link: true}
	return h.root.Symlink(filepath.Join(h.host, rel), rel)
}

// link has an entry lead to the host's, whatever is there.
func (h *mirror) link(rel string) {
	target := filepath.Join(h.host, rel)
	if text, err := h.root.Readlink(rel); err == nil && text == target {
		return
	}
	for i, r := range rel {
		if r != '/' {
			continue
		}
		dir := rel[:i]
		if text, err := h.root.Readlink(dir); err == nil && text == filepath.Join(h.host, dir) {
			return // what leads to the host's directory leads to what is in it
		}
		if info, err := h.root.Lstat(dir); err == nil && !info.IsDir() {
			_ = h.root.Remove(dir) // an earlier turn's way to send us elsewhere
		}
		_ = h.root.Mkdir(dir, 0o700)
	}
	_ = h.root.RemoveAll(rel)
	if h.root.Symlink(target, rel) == nil {
		h.made[rel] = stamp{Link: true}
	}
}
