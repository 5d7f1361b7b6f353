package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The trees that Amp's maker publishes: the first one since March 2026, the second before.
const (
	staticBase  = "https://static.ampcode.com/cli"
	storageBase = "https://storage.googleapis.com/amp-public-assets-prod-0/cli"
)

// maxSmallDocument bounds cli-version.txt and the checksum files, in bytes.
const maxSmallDocument = 4096

// tree is an HTTP tree: <base>/cli-version.txt, <base>/<v>/amp-<platform>[.exe][.gz]
// and <base>/<v>/<platform>-amp.sha256, which is of the uncompressed file.
type tree struct {
	name string
	base string // no slash at the end
	get  *getter
}

func (t *tree) Name() string { return t.name }

func (t *tree) Latest(ctx context.Context, _ Platform) (string, error) {
	address := t.base + "/cli-version.txt"
	data, err := t.get.text(ctx, address, nil, maxSmallDocument)
	if err != nil {
		return "", at(address, err)
	}
	v := strings.TrimSpace(string(data))
	if !ValidVersion(v) {
		if looksLikeHTML(data) {
			return "", at(address, errWebPage)
		}
		return "", at(address, errors.New("the answer is no version"))
	}
	return v, nil
}

func (t *tree) Open(ctx context.Context, req Request) (*Artifact, error) {
	dir := t.base + "/" + req.Version + "/"
	digest, err := t.digest(ctx, dir+checksumName(req.Platform))
	if err != nil {
		return nil, err
	}
	file := dir + binaryName(req.Platform)
	a, err := t.open(ctx, file+".gz", req)
	if err != nil && missing(err) {
		a, err = t.open(ctx, file, req)
	}
	if err != nil {
		return nil, err
	}
	a.Digest, a.Covers = digest, CoversFile
	return a, nil
}

// digest returns the zero Digest where the tree has no checksum: then the
// binary decides whether the version is missing or just unprotected.
func (t *tree) digest(ctx context.Context, address string) (Digest, error) {
	data, err := t.get.text(ctx, address, nil, maxSmallDocument)
	if err != nil {
		if missing(err) {
			return Digest{}, nil
		}
		return Digest{}, at(address, err)
	}
	digest, ok := parseSHA256(string(data))
	if !ok {
		if looksLikeHTML(data) {
			return Digest{}, at(address, errWebPage)
		}
		return Digest{}, at(address, errors.New("the answer is no sha256"))
	}
	return digest, nil
}

func (t *tree) open(ctx context.Context, address string, req Request) (*Artifact, error) {
	a, err := t.get.file(ctx, address, nil, req)
	if err != nil {
		return nil, at(address, err)
	}
	// Servers differ in whether they undo the compression of a .gz on the way, or
	// add one: the first bytes know. No executable begins like gzip does.
	a.Packing = RawOrGzip
	return a, nil
}

// missing reports whether err may mean that there is no such file. Buckets that
// may not be listed answer 403 for one.
func missing(err error) bool {
	var status *statusError
	return errors.Is(err, ErrNotFound) || (errors.As(err, &status) && status.status == http.StatusForbidden)
}

// at puts the address before what happened there.
func at(address string, err error) error {
	return fmt.Errorf("%s: %w", publicURL(address), err)
}

func binaryName(p Platform) string {
	if p == WindowsX64 {
		return "amp-" + string(p) + ".exe"
	}
	return "amp-" + string(p)
}

func checksumName(p Platform) string { return string(p) + "-amp.sha256" }

var errWebPage = errors.New("a web page came instead (a captive portal, or a proxy that wants a login?)")

func looksLikeHTML(head []byte) bool {
	head = bytes.ToLower(bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))))
	return bytes.HasPrefix(head, []byte("<!doctype")) || bytes.HasPrefix(head, []byte("<html")) ||
		bytes.HasPrefix(head, []byte("<head")) || bytes.HasPrefix(head, []byte("<?xml"))
}

func gzipMagic() []byte { return []byte{0x1f, 0x8b} }
