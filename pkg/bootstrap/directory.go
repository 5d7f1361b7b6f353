package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// directory is a source for machines without a network: the layout of the HTTP
// tree in a directory. cli-version.txt may be missing; then the newest version
// there counts.
type directory struct {
	dir string
}

func (d *directory) Name() string { return d.dir }

func (d *directory) Latest(_ context.Context, platform Platform) (string, error) {
	file := filepath.Join(d.dir, "cli-version.txt")
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		v := strings.TrimSpace(string(data))
		if !ValidVersion(v) {
			return "", fmt.Errorf("%s: it holds no version", file)
		}
		return v, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return "", err
	}
	newest := ""
	for _, e := range entries {
		if ValidVersion(e.Name()) && d.has(e.Name(), platform) && CompareVersions(e.Name(), newest) > 0 {
			newest = e.Name()
		}
	}
	if newest == "" {
		return "", fmt.Errorf("%s: no version of amp for %s: %w", d.dir, platform, ErrNotFound)
	}
	return newest, nil
}

func (d *directory) has(version string, platform Platform) bool {
	file := filepath.Join(d.dir, version, binaryName(platform))
	for _, f := range []string{file, file + ".gz"} {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

func (d *directory) Open(_ context.Context, req Request) (*Artifact, error) {
	dir := filepath.Join(d.dir, req.Version)
	digest, err := d.digest(filepath.Join(dir, checksumName(req.Platform)))
	if err != nil {
		return nil, err
	}
	// Raw first: here the disk is what is waited for, not a network.
	file := filepath.Join(dir, binaryName(req.Platform))
	packing := Raw
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		packing = Gzip
		f, err = os.Open(file + ".gz")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", file, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", f.Name())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Artifact{
		Body:    f,
		Size:    info.Size(),
		Packing: packing,
		Digest:  digest,
		Covers:  CoversFile,
		URL:     f.Name(),
	}, nil
}

func (d *directory) digest(file string) (Digest, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Digest{}, nil
	}
	if err != nil {
		return Digest{}, err
	}
	digest, ok := parseSHA256(string(data))
	if !ok {
		return Digest{}, fmt.Errorf("%s: it holds no sha256", file)
	}
	return digest, nil
}
