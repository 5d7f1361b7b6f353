package amp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/atomicfile"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/config/inode"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

const (
	probeSchema   = 1
	probeTimeout  = 20 * time.Second
	probeOutput   = 1 << 20 // bytes of help that are looked at
	nowhere       = "http://127.0.0.1:1/"
	keyVariable   = "AMP_API_KEY"
	filePrivate   = 0o600
	dirPrivate    = 0o700
	cachedEntries = "*.json"
)

// Prober asks Amp builds what they can do and remembers the answers.
type Prober struct {
	// Launcher starts the builds.
	Launcher Launcher
	// Env is their environment, PATH and HOME above all; AMP_API_KEY is taken out of it.
	Env []string
	// Dir is their working directory; "" leaves it to the launcher.
	Dir string
	// CacheDir keeps the answers, a file per build; "" forgets them.
	CacheDir string
	// ReadOnly looks into CacheDir and keeps nothing there.
	ReadOnly bool
	// heard is the version of the build at heardOf, for which CheckStarts starts it.
	heard   func(context.Context) (string, error)
	heardOf string
	// Timeout ends each of the up to three starts; 20 s when zero.
	Timeout time.Duration
}

// cached is an entry of the cache. The identity stands in it too, so that a
// file that was copied or renamed there is not believed.
type cached struct {
	SchemaVersion int          `json:"schema_version"`
	Identity      identity     `json:"identity"`
	Capabilities  Capabilities `json:"capabilities"`
}

// identity tells one state of a file from every other.
type identity struct {
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	ModTime int64  `json:"mtime_ns"`
	Inode   uint64 `json:"inode"`
	Changed int64  `json:"ctime_ns"`
}

// Probe tells what the build at path can do, from the cache where the file is
// still the one that was asked. The errors are usage (no executable, or no Amp),
// amp_crashed (it died or hung over its own help) and those of the launcher.
func (p *Prober) Probe(ctx context.Context, path string) (*Capabilities, error) {
	id, err := identify(path)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot use %s as Amp: %w", path, err)
	}
	if known := p.load(id); known != nil {
		return known, nil
	}
	c, err := p.ask(ctx, path)
	if err != nil {
		return nil, err
	}
	// A cache that cannot be written costs time at the next start, nothing else.
	_ = p.save(id, c)
	return c, nil
}

// Knows tells whether the answers of the build at path are in the cache.
func (p *Prober) Knows(path string) bool {
	id, err := identify(path)
	return err == nil && p.load(id) != nil
}

// Remember keeps what a turn taught about the build at path; see Outcome.Learned.
func (p *Prober) Remember(path string, c *Capabilities) error {
	id, err := identify(path)
	if err != nil {
		return fmt.Errorf("remember what amp can do: %w", err)
	}
	return p.save(id, c)
}

func identify(path string) (identity, error) {
	// npm puts a symbolic link into .bin; what counts is the file behind it.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return identity{}, err
	}
	if real, err = filepath.Abs(real); err != nil {
		return identity{}, err
	}
	info, err := os.Stat(real)
	if err != nil {
		return identity{}, err
	}
	if !info.Mode().IsRegular() {
		return identity{}, errors.New("it is not a file")
	}
	id := identity{Path: real, Size: info.Size(), ModTime: info.ModTime().UnixNano()}
	id.Inode, id.Changed = inode.Of(info)
	return id, nil
}

func (id identity) file(dir string) string {
	data, _ := json.Marshal(id) // numbers and a string: cannot fail
	sum := sha256.Sum256(data)
	return filepath.Join(dir, hex.EncodeToString(sum[:12])+".json")
}

func (p *Prober) load(id identity) *Capabilities {
	if p.CacheDir == "" {
		return nil
	}
	data, err := os.ReadFile(id.file(p.CacheDir))
	if err != nil {
		return nil
	}
	var entry cached
	if json.Unmarshal(data, &entry) != nil || entry.SchemaVersion != probeSchema || entry.Identity != id {
		return nil
	}
	c := entry.Capabilities
	if !slices.Contains(c.Flags, optExecute) {
		return nil
	}
	return &c
}

func (p *Prober) save(id identity, c *Capabilities) error {
	if p.CacheDir == "" || p.ReadOnly {
		return nil
	}
	data, err := json.Marshal(cached{probeSchema, id, *c})
	if err != nil {
		return fmt.Errorf("encode what amp can do: %w", err)
	}
	if err := os.MkdirAll(p.CacheDir, dirPrivate); err != nil {
		return fmt.Errorf("remember what amp can do: %w", err)
	}
	if err := atomicfile.Write(id.file(p.CacheDir), data, 0o600); err != nil {
		return fmt.Errorf("remember what amp can do: %w", err)
	}
	p.sweep(id)
	return nil
}

// sweep drops what is known of earlier states of the same path.
func (p *Prober) sweep(id identity) {
	files, err := filepath.Glob(filepath.Join(p.CacheDir, cachedEntries))
	if err != nil {
		return
	}
	for _, file := range files {
		if file == id.file(p.CacheDir) {
			continue
		}
		data, err := os.ReadFile(file)
		var entry cached
		if err == nil && (json.Unmarshal(data, &entry) != nil || entry.Identity.Path == id.Path) {
			_ = os.Remove(file)
		}
	}
}

// ask runs the build. A mode that does not exist makes a build that checks modes
// name them all, hidden ones too; one that does not check prints its help, and
// one start is saved.
func (p *Prober) ask(ctx context.Context, path string) (*Capabilities, error) {
	first, err := p.run(ctx, path, optMode, modeOfTheTest, "--help")
	help := first
	if err == nil && first.status.Code != 0 {
		help, err = p.run(ctx, path, "--help")
	}
	if err != nil {
		return nil, err
	}
	c := parseHelp(help.out)
	switch {
	case help.timedOut || (help.status.Signal != 0):
		return nil, help.crash(path)
	case !slices.Contains(c.Flags, optExecute):
		return nil, fault.New(fault.Usage, "%s is not Amp: its --help names no %s", path, optExecute).
			Hint("give --amp-path the amp executable, or leave it out to have Amp fetched")
	}
	c.ModesAccepted, c.ModesChecked = parseChoices(first.out + first.err)
	if p.heard != nil && p.heardOf == path {
		c.Version, err = p.heard(ctx)
		return &c, err
	}
	// One after the other: the starts may share a copy-on-write home.
	version, err := p.run(ctx, path, "--version")
	if err != nil {
		return nil, err
	}
	if version.status.Code == 0 {
		c.Version = versionText().FindString(ansi().ReplaceAllString(version.out, ""))
	}
	return &c, nil
}

// probed is what one start of a build gave.
type probed struct {
	out, err string
	status   sandbox.Status
	timedOut bool
}

func (r probed) crash(path string) error {
	e := fault.New(fault.AmpCrashed, "%s: %s --help ended with status %d", crashed, path, r.status.Code)
	if r.timedOut {
		e = fault.New(fault.AmpCrashed, "%s: %s --help did not end", crashed, path)
	}
	if last := strings.TrimSpace(ansi().ReplaceAllString(r.err, "")); last != "" {
		e.Message += ": " + lastLine(last)
	}
	return e.Hint("fetch Amp again with sesame amp install, or try another with --amp-version")
}

func (p *Prober) run(ctx context.Context, path string, args ...string) (probed, error) {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = probeTimeout
	}
	inner, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out, errs limited
	proc, err := p.Launcher.Start(inner, &sandbox.Command{
		Args:   append([]string{path}, args...),
		Dir:    p.Dir,
		Env:    p.env(),
		Stdin:  strings.NewReader(""),
		Stdout: &out,
		Stderr: &errs,
	})
	if err != nil {
		return probed{}, fmt.Errorf("start amp to see what it can do: %w", notStarted(path, err))
	}
	status, err := waitFor(inner, proc, killWait)
	if ctx.Err() != nil {
		return probed{}, fault.New(fault.Canceled, "stopped while asking what amp can do: %w", context.Cause(ctx))
	}
	timedOut := inner.Err() != nil
	if err != nil && !timedOut {
		return probed{}, err
	}
	return probed{out.String(), errs.String(), status, timedOut}, nil
}

// notStarted is the launcher's error for a build. One that cannot be executed has crashed as far as anybody cares.
func notStarted(path string, err error) error {
	var refused *sandbox.NoCommandError
	switch {
	case !errors.As(err, &refused):
		return err
	case refused.Tier == sandbox.Off:
		return fault.New(fault.AmpCrashed, "%s cannot be started: %w", path, refused).Hint("a script needs its interpreter (node)")
	}
	return fault.New(fault.AmpCrashed, "%s cannot be started in the sandbox: %w", path, refused).
		Hint("a script needs its interpreter (node) in a place that the sandbox shows: add it with `--allow-read`")
}

// env is the environment without the key: nothing that a help prints needs it,
// and a build that would connect anywhere finds nobody there.
func (p *Prober) env() []string {
	env := without(p.Env, keyVariable, "AMP_URL", "AMP_SETTINGS_FILE")
	return append(env, "AMP_URL="+nowhere, "AMP_SKIP_UPDATE_CHECK=1", "NO_COLOR=1")
}

// without is env without the named variables.
func without(env []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(names, name)
	})
}

// limited keeps the beginning of what is written to it.
type limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p[:min(len(p), max(0, probeOutput-l.buf.Len()))])
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
