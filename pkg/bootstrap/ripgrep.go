package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	ripgrepVersion = "15.0.0"
	// ripgrepPackage is the version of the npm packages @vscode/ripgrep-<os>-<cpu> that has it: the
	// builds of microsoft/ripgrep-prebuilt, which are those that Amp would fetch for itself.
	ripgrepPackage = "1.18.0"
	// ripgrepPause is how long a failure to fetch it is not repeated.
	ripgrepPause = 24 * time.Hour
)

// ripgrepSHA256 is of the executable: nothing else is ever started.
func ripgrepSHA256(p Platform) string {
	return map[Platform]string{
		LinuxX64:         "193906679498de4d939345b937fa24e0e69a03c244bd70c859f5e41232713f21",
		LinuxX64Baseline: "193906679498de4d939345b937fa24e0e69a03c244bd70c859f5e41232713f21",
		LinuxARM64:       "e152ea689d6e8420357e592f0d8253b96476c164118ca3e6e13074fa1705ddda",
		DarwinX64:        "f999495980a5e6f1e7d26461ef5768b4013a62df610ed7d77a8b2de247a5b228",
		DarwinARM64:      "6ef40346bf31fcce79d9614c7745c198542925a0c7d4911e1ffe794c53392ac1",
		WindowsX64:       "f9dde63498b3193f098355dbec97af99dc4f6b8fa0df5ed04114a03012c042cb",
	}[p]
}

// ripgrepFile is its name on the platform.
func ripgrepFile(p Platform) string {
	return strings.Replace(p.Executable(), "amp", "rg", 1)
}

// Ripgrep returns the path of a ripgrep for Amp, in dir, and fetches it where it is
// missing: from npm, or a mirror or directory (ripgrep/15.0.0/<platform>-rg in it), if they are
// among the sources. It is hashed every time. A failure is not repeated for a day, but returned again.
func (in *Installer) Ripgrep(ctx context.Context, dir string) (string, error) {
	host, err := in.host(Latest)
	if err != nil {
		return "", err
	}
	c := cache{dir: dir, lock: flock}
	want := Digest{Algorithm: "sha256", Hex: ripgrepSHA256(host)}
	path := filepath.Join(dir, ripgrepVersion+"-"+string(host), ripgrepFile(host))
	there := func() bool {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || checkPrivate(dir) != nil || checkPrivate(filepath.Dir(path)) != nil {
			return false
		}
		got, err := hashFile(path)
		return err == nil && got == want && mayExecute(path, info)
	}
	if there() {
		return path, nil
	}
	if err := c.open(); err != nil {
		return "", err
	}
	unlock, _, err := c.wait(ctx, ripgrepVersion, func() {})
	if err != nil {
		return "", err
	}
	defer unlock()
	if there() {
		return path, nil
	}
	failed := filepath.Join(dir, "failed")
	if info, err := os.Stat(failed); err == nil {
		if age := in.now().Sub(info.ModTime()); age >= 0 && age < ripgrepPause {
			return "", errors.New("ripgrep could not be fetched lately, and is not tried again for a day")
		}
	}
	if err := in.fetchRipgrep(ctx, c, host, want, path); err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			_ = os.WriteFile(failed, nil, 0o600)
			_ = os.Chtimes(failed, in.now(), in.now())
		}
		return "", err
	}
	_ = os.Remove(failed)
	return path, nil
}

func (in *Installer) fetchRipgrep(ctx context.Context, c cache, host Platform, want Digest, path string) error {
	var failures []error
	for _, s := range in.sources {
		var source Source
		req := Request{Platform: host}
		switch s := s.(type) {
		case *npm:
			source = &npm{network: s.network, scope: "@vscode", prefix: "ripgrep-"}
			req.Version = ripgrepPackage
			if host == LinuxX64Baseline {
				req.Platform = LinuxX64
			}
		case *directory:
			source = ripgrepDirectory{s}
		case *tree:
			if s.base == staticBase || s.base == storageBase {
				continue // Amp's own trees have none that is known by its digest
			}
			source = ripgrepTree{s}
		default:
			continue
		}
		err := in.takeRipgrep(ctx, c, source, req, want, path)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return errors.New("none of amp.sources has ripgrep")
	}
	return errors.Join(failures...)
}

// takeRipgrep gets it from one source and publishes it in one step.
func (in *Installer) takeRipgrep(ctx context.Context, c cache, source Source, req Request, want Digest, path string) error {
	work, err := c.work(ripgrepVersion, true)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	a, err := source.Open(ctx, req)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	spooled, err := newPartial(work, a.URL).open(0)
	if err != nil {
		return err
	}
	defer spooled.Close()
	d := &download{artifact: a, spool: newSpool(spooled, 0)}
	running, stop := d.start(ctx)
	defer stop()
	made := filepath.Join(work, "new", filepath.Base(path))
	if err := os.Mkdir(filepath.Dir(made), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	w := &wire{ctx: running, spool: d.spool, progress: func() {}}
	got, err := receive(w, a, "package/bin/"+filepath.Base(path), want, func() (*os.File, error) { return file, nil })
	if err != nil {
		return fmt.Errorf("%s: %w", a.URL, err)
	}
	if got.raw {
		if _, err := io.Copy(file, io.NewSectionReader(spooled, 0, got.size)); err != nil {
			return err
		}
	}
	if err := file.Close(); err != nil {
		return err
	}
	if _, err := settle(made); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Rename(filepath.Dir(made), filepath.Dir(path))
}

// ripgrepName is its place in a mirror or a directory.
func ripgrepName(p Platform) string {
	return "ripgrep/" + ripgrepVersion + "/" + string(p) + "-" + ripgrepFile(p)
}

// ripgrepTree is the ripgrep of a mirror of Amp.
type ripgrepTree struct{ *tree }

func (t ripgrepTree) Open(ctx context.Context, req Request) (*Artifact, error) {
	return t.open(ctx, t.base+"/"+ripgrepName(req.Platform), req)
}

// ripgrepDirectory is the ripgrep of a directory that is a source of Amp.
type ripgrepDirectory struct{ *directory }

func (d ripgrepDirectory) Open(_ context.Context, req Request) (*Artifact, error) {
	file := filepath.Join(d.dir, filepath.FromSlash(ripgrepName(req.Platform)))
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Artifact{Body: f, Size: info.Size(), Packing: Raw, URL: file}, nil
}
