package amptest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// Versions of JavaScript builds that are worth a test: the oldest and the last
// one still published.
const (
	Feb10JS = "0.0.1770734955-g93e689"
	May4JS  = "0.0.1777897475-g2324e1"
)

// jsPackage is the npm package of the JavaScript builds.
const jsPackage = "@sourcegraph/amp"

// latestTTL is how long the answer to "latest" is taken as known.
const latestTTL = time.Hour

// Build is a published Amp build.
type Build struct {
	Name    string // short, for the names of subtests
	Version string // "latest" for the newest
	Native  bool   // thread actors; otherwise JavaScript, which needs node
}

// Builds are the builds that tests drive, one of each kind.
func Builds() []Build {
	return []Build{
		{Name: "feb10-js", Version: Feb10JS},
		{Name: "may4-js", Version: May4JS},
		{Name: "native", Version: "latest", Native: true},
	}
}

// NativeSource fetches the native build of a version ("latest" for the newest)
// and returns the path of the executable.
type NativeSource func(ctx context.Context, version string) (string, error)

// Install makes sure that the build is in the test cache and returns the path
// of its executable. Native builds come from the given source, nil meaning
// [Native].
func (b Build) Install(ctx context.Context, native NativeSource) (string, error) {
	switch {
	case !b.Native:
		return JavaScript(ctx, b.Version)
	case native != nil:
		return native(ctx, b.Version)
	default:
		return Native(ctx, b.Version)
	}
}

// CacheDir is where builds are kept from one test run to the next:
// $SESAME_TEST_CACHE/amp, or sesame-test/amp in the user's cache directory.
func CacheDir() (string, error) {
	root := os.Getenv("SESAME_TEST_CACHE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the test cache: %w", err)
		}
		root = filepath.Join(cache, "sesame-test")
	}
	return filepath.Join(root, "amp"), nil
}

// JavaScript installs a JavaScript build with npm and returns the path of its
// script, which has a node shebang. It fails where npm or node is missing.
func JavaScript(ctx context.Context, version string) (string, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", fmt.Errorf("run a JavaScript build of Amp: %w", err)
	}
	dir, err := install(version, func(tmp string) error {
		_, err := npm(ctx, tmp, "install", "--ignore-scripts", "--prefix", tmp, jsPackage+"@"+version)
		return err
	})
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "node_modules", ".bin", "amp")
	if runtime.GOOS == "windows" {
		return bin + ".cmd", nil
	}
	path, err := filepath.EvalSymlinks(bin)
	if err != nil {
		return "", fmt.Errorf("find Amp in its package: %w", err)
	}
	return path, nil
}

// Native fetches a native build for this machine with npm and returns the path
// of its executable. It fails where npm is missing.
func Native(ctx context.Context, version string) (string, error) {
	pkg, err := nativePackage()
	if err != nil {
		return "", err
	}
	if version == "latest" {
		if version, err = latest(ctx, pkg); err != nil {
			return "", err
		}
	}
	name := "amp"
	if runtime.GOOS == "windows" {
		name = "amp.exe"
	}
	// npm checks the tarball against the registry's digest.
	dir, err := install(version+"-"+runtime.GOOS+"-"+runtime.GOARCH, func(tmp string) error {
		out, err := npm(ctx, tmp, "pack", "--pack-destination", tmp, pkg+"@"+version)
		if err != nil {
			return err
		}
		lines := strings.Fields(out)
		if len(lines) == 0 {
			return errors.New("npm pack named no file")
		}
		tarball := filepath.Join(tmp, filepath.Base(lines[len(lines)-1]))
		if err := unpack(tarball, "package/"+name, filepath.Join(tmp, name)); err != nil {
			return err
		}
		return os.Remove(tarball)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

func nativePackage() (string, error) {
	system := runtime.GOOS
	if system == "windows" {
		system = "win32"
	}
	switch runtime.GOARCH {
	case "amd64":
		return "@ampcode/cli-" + system + "-x64", nil
	case "arm64":
		return "@ampcode/cli-" + system + "-arm64", nil
	}
	return "", fmt.Errorf("no native build of Amp for %s/%s", runtime.GOOS, runtime.GOARCH)
}

// latest is the newest version of a package. Test processes ask once an hour
// between them, and take the last answer where nothing answers.
func latest(ctx context.Context, pkg string) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("make the test cache: %w", err)
	}
	file := filepath.Join(cache, "latest-"+filepath.Base(pkg))
	unlock, err := lockedfile.MutexAt(file + ".lock").Lock()
	if err != nil {
		return "", fmt.Errorf("lock the test cache: %w", err)
	}
	defer unlock()
	known, readErr := os.ReadFile(file)
	info, statErr := os.Stat(file)
	if readErr == nil && statErr == nil && time.Since(info.ModTime()) < latestTTL {
		return string(known), nil
	}
	out, err := npm(ctx, cache, "view", pkg, "version")
	if err != nil {
		if readErr == nil {
			return string(known), nil
		}
		return "", err
	}
	version := strings.TrimSpace(out)
	if err := os.WriteFile(file, []byte(version), 0o600); err != nil {
		return "", fmt.Errorf("note the newest version: %w", err)
	}
	return version, nil
}

// install makes the directory of that name in the cache with fill, unless it is
// there. A directory is there whole or not at all, and one process makes it.
func install(name string, fill func(tmp string) error) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("make the test cache: %w", err)
	}
	// The lock file stays: unlinking it would let two processes hold "the" lock.
	unlock, err := lockedfile.MutexAt(dir + ".lock").Lock()
	if err != nil {
		return "", fmt.Errorf("lock the test cache: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err // made while we waited, or unreadable
	}
	tmp, err := os.MkdirTemp(cache, ".new-*")
	if err != nil {
		return "", fmt.Errorf("make the test cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := fill(tmp); err != nil {
		return "", fmt.Errorf("install Amp %s: %w", name, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("install Amp %s: %w", name, err)
	}
	return dir, nil
}

// npm runs npm in dir and returns its standard output. The registry is the one
// of npm's own configuration.
func npm(ctx context.Context, dir string, args ...string) (string, error) {
	path, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("fetch a build of Amp: %w", err)
	}
	args = append(args, "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// npm's children may hold the pipes after npm was killed.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("npm %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// unpack takes one executable out of a gzip-compressed tar file.
func unpack(tarball, member, dest string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return fmt.Errorf("unpack Amp: %w", err)
	}
	defer func() { _ = f.Close() }()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("unpack Amp: %w", err)
	}
	tr := tar.NewReader(zr)
	for {
		head, err := tr.Next()
		if err != nil {
			return fmt.Errorf("find %s in Amp's package: %w", member, err)
		}
		if head.Name != member {
			continue
		}
		out, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
		if err != nil {
			return fmt.Errorf("unpack Amp: %w", err)
		}
		_, err = io.Copy(out, tr)
		if err = errors.Join(err, out.Close()); err != nil {
			return fmt.Errorf("unpack Amp: %w", err)
		}
		return nil
	}
}
