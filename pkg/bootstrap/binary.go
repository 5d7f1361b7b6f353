package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Binary is an Amp that can be started.
type Binary struct {
	Path     string // absolute, no symbolic link
	Version  string // "" where it was given by path
	Platform Platform
	Digest   Digest // sha256 of the file; zero where it was given by path
	Size     int64  // of the file, in bytes
	Source   string // what it came from: a source's name, or "path"
	URL      string // without secrets
	// InstalledAt is when it came into the cache; zero where it was given by path.
	InstalledAt time.Time
}

// SourcePath is the Source of a binary that was given by path.
const SourcePath = "path"

// FromPath takes the executable that a user names: a native build or a script
// with a #! line. It fails with [fault.BootstrapFailed] for what cannot be started.
func FromPath(path string) (Binary, error) {
	refuse := func(format string, args ...any) (Binary, error) {
		return Binary{}, fault.New(fault.BootstrapFailed, "bootstrap failed: the amp executable "+format, args...).
			Hint("give the path of an amp executable with --amp-path or amp.path, or leave it out to have one fetched")
	}
	if path == "" {
		return refuse("has an empty path")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return refuse("%s: %w", path, err)
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return refuse("%s: %w", path, fs.ErrNotExist)
		}
		return refuse("%s: %w", path, err)
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return refuse("%s: %w", path, err)
	}
	if info.IsDir() {
		return refuse("%s is a directory", path)
	}
	if !info.Mode().IsRegular() {
		return refuse("%s is not a regular file", path)
	}
	if !mayExecute(resolved, info) {
		return refuse("%s is not executable: try chmod +x", path)
	}
	head, err := readHead(resolved)
	if err != nil {
		return refuse("%s: %w", path, err)
	}
	script := runtime.GOOS == "windows" && (hasSuffixFold(resolved, ".cmd") || hasSuffixFold(resolved, ".bat"))
	if !script && !isExecutable(head, runtime.GOOS) {
		return refuse("%s is neither a program for %s nor a script with a #! line", path, runtime.GOOS)
	}
	return Binary{Path: resolved, Size: info.Size(), Source: SourcePath}, nil
}

// CheckPin fails with [fault.BootstrapFailed] when a binary is not the one with that sha256, in hex.
func CheckPin(b Binary, sha256 string) error {
	got, err := hashFile(b.Path)
	if err != nil {
		return fault.New(fault.BootstrapFailed, failedPrefix+"%w", err)
	}
	if want, ok := parseSHA256(sha256); !ok || got != want {
		return notPinned(b.Path, sha256, got)
	}
	return nil
}

// notPinned is the fault of a file that is not the one with the sha256 that is wanted, in hex.
func notPinned(path, sha256 string, got Digest) error {
	return fault.New(fault.BootstrapFailed, failedPrefix+"%s: %w", path,
		&DigestError{What: pinnedFile, Algorithm: "sha256", Want: sha256, Got: got.Hex}).Hint("%s", pinHint)
}

// pinHint is what there is to do about a pin that does not fit.
const pinHint = "if this is the amp that you mean, put its digest into amp.sha256 together with amp.version"

func hasSuffixFold(s, suffix string) bool { return strings.HasSuffix(strings.ToLower(s), suffix) }

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headLen)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

// hashFile returns the sha256 of a file.
func hashFile(path string) (Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Digest{}, err
	}
	defer f.Close()
	h := newHash("sha256")
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, copyBuffer)); err != nil {
		return Digest{}, fmt.Errorf("%s: %w", path, err)
	}
	return Digest{Algorithm: "sha256", Hex: sumOf(h)}, nil
}
