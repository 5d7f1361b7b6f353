package bootstrap

import (
	"context"
	"errors"
	"io"
)

// Source is a place that Amp can be fetched from.
type Source interface {
	// Name is how people know the source: "static", "npm", a base URL, a directory.
	Name() string
	// Latest returns the newest version that the source has for the platform.
	Latest(ctx context.Context, platform Platform) (string, error)
	// Open begins to send a build. It fails with ErrNotFound where the source
	// lacks the version or the platform.
	Open(ctx context.Context, req Request) (*Artifact, error)
}

// Request names the build that is wanted.
type Request struct {
	Version  string
	Platform Platform
	// Have tells what is left of an earlier attempt at a URL (as Artifact.URL has it), so that
	// the source may send the rest only. Nil wants everything.
	Have func(url string) Have
}

// have is what is left of the URL.
func (r Request) have(url string) Have {
	if r.Have == nil {
		return Have{}
	}
	return r.Have(url)
}

// Artifact is a build on its way: the bytes as they are sent, how they are
// packed, and what they must come to. A source hands on what it was told; the
// Installer is what checks it.
type Artifact struct {
	Body     io.ReadCloser // what is sent, still packed, from Offset on
	Offset   int64         // what Request.Have said, or 0 for everything
	Size     int64         // of the whole, in bytes; -1 when unknown
	Packing  Packing
	Digest   Digest // zero when the source has none: refused without a pin
	Covers   Coverage
	URL      string   // where it comes from, without secrets
	Warnings []string // what a person should know about the way it came

	// Validator names this state of the file: what was got under it may be completed another
	// time. "" where the source has no such name.
	Validator string
	// More sends the bytes [from, to) of the same state, besides Body. Nil where the source cannot.
	More func(ctx context.Context, from, to int64) (io.ReadCloser, error)
}

// Packing is what has to be undone to get Amp's file out of the stream.
type Packing int

// The packings.
const (
	Raw        Packing = iota // the file itself
	Gzip                      // the file, compressed
	NPMTarball                // package/amp in a gzipped tar
	RawOrGzip                 // the first bytes tell
)

// Coverage says which bytes a digest is of.
type Coverage int

// The coverages.
const (
	CoversFile      Coverage = iota // Amp's file, unpacked
	CoversTransport                 // the bytes as they are sent
)

// ErrNotFound says that a source lacks a version, or a platform of it.
var ErrNotFound = errors.New("not found")
