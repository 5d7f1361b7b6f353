package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/atomicfile"
	"github.com/sesame-cli/sesame/pkg/config/inode"
)

const (
	recordFile = "amp.json"
	locksDir   = "locks"
	// workPrefix marks directories that a download, or a removal, is at work in.
	workPrefix = ".work-"
	// partsPrefix marks directories of what was sent so far, to be resumed from.
	partsPrefix = ".part-"
	// recordSchema is the version of amp.json's form.
	recordSchema = 1
)

// record is <version>/amp.json: what the file beside it was when it was verified.
type record struct {
	Schema      int       `json:"schema_version"`
	Version     string    `json:"version"`
	Platform    Platform  `json:"platform"`
	SHA256      string    `json:"sha256"`
	Size        int64     `json:"size"`
	Identity    identity  `json:"identity,omitzero"`
	Source      string    `json:"source"`
	URL         string    `json:"url"`
	Transport   string    `json:"transport_digest,omitempty"`
	InstalledAt time.Time `json:"installed_at"`
}

// identity is what tells cheaply that a file is still the one that was hashed: to
// write to it changes a time that nobody can set.
type identity struct {
	Inode    uint64 `json:"inode,omitempty"`
	Modified int64  `json:"mtime_ns"`
	Changed  int64  `json:"ctime_ns,omitempty"`
}

func identityOf(info fs.FileInfo) identity {
	id := identity{Modified: info.ModTime().UnixNano()}
	id.Inode, id.Changed = inode.Of(info)
	return id
}

// changedError says that a cached file is not what was verified.
type changedError struct{ path string }

func (e *changedError) Error() string { return e.path + " is not the file that was verified" }

// cache is the directory of the versions. A version is there or it is not: its
// directory is filled under another name and then renamed.
type cache struct {
	dir  string
	lock func(f *os.File, shared bool) error // flock
}

// open makes the directory where it is missing, and refuses one that others could put a binary into.
func (c cache) open() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if err := checkPrivate(c.dir); err != nil {
		return err
	}
	locks := filepath.Join(c.dir, locksDir)
	err := os.Mkdir(locks, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.show(locks)
}

// show lets those look into a directory of the cache who may look into the cache.
func (c cache) show(dir string) error {
	info, err := os.Stat(c.dir)
	if err != nil {
		return err
	}
	return os.Chmod(dir, info.Mode().Perm())
}

// checkPrivate fails when dir belongs to, or may be written to by, somebody else. Root is trusted.
func checkPrivate(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if runtime.GOOS == "windows" {
		return nil // the profile's own access list is what protects it
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s may be written to by others (mode %04o): try chmod 700", dir, info.Mode().Perm())
	}
	if !ownedByUs(info) {
		return fmt.Errorf("%s belongs to another user", dir)
	}
	return nil
}

// load returns the version's binary if it is what was verified. That is cheap as long as
// the file is the same; a copy of it, such as a restored cache, is hashed once. It fails with
// fs.ErrNotExist where the version is not in the cache, with a changedError where it was tampered with.
func (c cache) load(version string) (Binary, error) {
	r, info, err := c.record(version)
	if err != nil {
		return Binary{}, err
	}
	b := c.binary(r)
	if identityOf(info) == r.Identity {
		return b, nil
	}
	got, err := hashFile(b.Path)
	if err != nil {
		return Binary{}, err
	}
	if got != b.Digest {
		return Binary{}, &changedError{path: b.Path}
	}
	r.Identity = identityOf(info)
	// Where it cannot be noted it is hashed the next time as well.
	_ = c.update(r)
	return b, nil
}

// read is load without a look at whether the file is what was verified.
func (c cache) read(version string) (Binary, error) {
	r, _, err := c.record(version)
	if err != nil {
		return Binary{}, err
	}
	return c.binary(r), nil
}

// record reads a version's record. It must be whole and the file ours, executable, and of its size.
func (c cache) record(version string) (record, fs.FileInfo, error) {
	dir := filepath.Join(c.dir, version)
	for _, d := range []string{dir, c.dir} {
		if err := checkPrivate(d); err != nil {
			return record{}, nil, err
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return record{}, nil, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, nil, fmt.Errorf("%s: broken record: %w", dir, err)
	}
	if _, ok := parseSHA256(r.SHA256); !ok || r.Schema != recordSchema || r.Version != version {
		return record{}, nil, fmt.Errorf("%s: broken record", dir)
	}
	path := filepath.Join(dir, r.Platform.Executable())
	info, err := os.Lstat(path)
	if err != nil {
		return record{}, nil, err
	}
	switch {
	case !info.Mode().IsRegular(), info.Size() != r.Size:
		return record{}, nil, &changedError{path: path}
	case runtime.GOOS != "windows" && (info.Mode().Perm()&0o022 != 0 || !ownedByUs(info)):
		return record{}, nil, fmt.Errorf("%s could have been changed by others", path)
	case !mayExecute(path, info):
		return record{}, nil, fmt.Errorf("%s is not executable", path)
	}
	return r, info, nil
}

func (c cache) binary(r record) Binary {
	sum, _ := parseSHA256(r.SHA256)
	return Binary{
		Path:        filepath.Join(c.dir, r.Version, r.Platform.Executable()),
		Version:     r.Version,
		Platform:    r.Platform,
		Digest:      sum,
		Size:        r.Size,
		Source:      r.Source,
		URL:         r.URL,
		InstalledAt: r.InstalledAt,
	}
}

// update replaces the record of a published version.
func (c cache) update(r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(c.dir, r.Version, recordFile), append(data, '\n'), 0o644)
}

// parts is the directory of what was sent of a version so far. Whoever has its lock may use it.
func (c cache) parts(version string) string { return filepath.Join(c.dir, partsPrefix+version) }

// list returns the usable binaries, newest first. A cache that does not exist is empty.
func (c cache) list() ([]Binary, error) {
	versions, err := c.versions()
	if err != nil {
		return nil, err
	}
	var found []Binary
	for _, v := range versions {
		if b, err := c.load(v); err == nil {
			found = append(found, b)
		}
	}
	return found, nil
}

// versions returns the names of the versions' directories, usable or not, newest first.
func (c cache) versions() ([]string, error) {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(c.dir); err != nil {
		return nil, err
	}
	var versions []string
	for _, e := range entries {
		if e.IsDir() && ValidVersion(e.Name()) {
			versions = append(versions, e.Name())
		}
	}
	slices.SortFunc(versions, func(a, b string) int { return CompareVersions(b, a) })
	return versions, nil
}

// work makes a private directory in the cache's file system for a version. For one
// who has the version's lock, what an earlier, dead process left is removed.
func (c cache) work(version string, locked bool) (string, error) {
	if locked {
		c.sweep(version)
	}
	return os.MkdirTemp(c.dir, workPrefix+version+".")
}

// sweep removes what dead processes left of a version, whose lock the caller has.
func (c cache) sweep(version string) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), workPrefix+version+".") {
			_ = os.RemoveAll(filepath.Join(c.dir, e.Name())) // the next one tries again
		}
	}
}

// store adds the record to a work directory that has the file, and publishes it.
func (c cache) store(work string, r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := c.show(work); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(work, recordFile), append(data, '\n'), 0o644); err != nil {
		return err
	}
	// Who cannot make it can hold it while they run the version.
	unlock, _, err := c.take(r.Version+usedSuffix, true)
	if err != nil && !errors.Is(err, errLocked) {
		return err
	}
	if err == nil {
		unlock()
	}
	return c.publish(work, r.Version)
}

// publish moves a filled work directory to the version's place.
func (c cache) publish(work, version string) error {
	final := filepath.Join(c.dir, version)
	err := os.Rename(work, final)
	if err == nil {
		atomicfile.SyncDir(c.dir)
		return nil
	}
	// There is one already. Without locks, a faster process may have been first.
	if _, loadErr := c.load(version); loadErr == nil && c.sameFile(work, version) {
		return os.RemoveAll(work)
	}
	// Otherwise the caller found it wanting, and out of the way it goes in one step as well.
	old, tmpErr := os.MkdirTemp(c.dir, workPrefix+version+".")
	if tmpErr != nil {
		return errors.Join(err, tmpErr)
	}
	defer os.RemoveAll(old)
	if mvErr := os.Rename(final, filepath.Join(old, version)); mvErr != nil {
		return errors.Join(err, mvErr)
	}
	if err := os.Rename(work, final); err != nil {
		return err
	}
	atomicfile.SyncDir(c.dir)
	return nil
}

// sameFile reports whether a work directory has what is published already.
func (c cache) sameFile(work, version string) bool {
	there, err := c.read(version)
	if err != nil {
		return false
	}
	data, err := os.ReadFile(filepath.Join(work, recordFile))
	var r record
	return err == nil && json.Unmarshal(data, &r) == nil && r.SHA256 == there.Digest.Hex && r.Platform == there.Platform
}

// remove takes a version out of the cache, in one step for everybody else.
func (c cache) remove(version string) error {
	trash, err := os.MkdirTemp(c.dir, workPrefix+version+".")
	if err != nil {
		return err
	}
	defer os.RemoveAll(trash)
	return os.Rename(filepath.Join(c.dir, version), filepath.Join(trash, version))
}
