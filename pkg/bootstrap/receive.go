package bootstrap

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"path/filepath"
	"strings"
)

const (
	// copyBuffer is the size of reads and writes, in bytes.
	copyBuffer = 256 << 10
	// maxBinary bounds Amp's file, about ten times of what it is, in bytes.
	maxBinary = 1 << 30
	// maxTarEntries bounds how long an archive may keep us busy.
	maxTarEntries = 10_000
)

var (
	errTooLarge   = fmt.Errorf("larger than %d MB: no build of amp is", maxBinary>>20)
	errUnverified = errors.New("refused: the source has no checksum for it")
)

// writeError is a failure of this machine's disk, which no other source can mend.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// receive unpacks a into dst while it hashes both what comes and what is
// written. It returns the sha256 and the size of the file, and an error unless
// everything is as the source, and the pin if there is one, says. What is in
// dst after an error must not be used.
func receive(ctx context.Context, a *Artifact, platform Platform, pin Digest, dst io.Writer, progress func(int64)) (string, int64, error) {
	if a.Digest.IsZero() && pin.IsZero() {
		return "", 0, errUnverified
	}
	out := &fileSink{dst: dst, sum: newHash("sha256")}
	in := &wire{ctx: ctx, src: a.Body, size: a.Size, progress: progress}
	if !a.Digest.IsZero() {
		h := newHash(a.Digest.Algorithm)
		if h == nil {
			return "", 0, fmt.Errorf("refused: unknown checksum algorithm %q", a.Digest.Algorithm)
		}
		switch {
		case a.Covers == CoversTransport:
			in.sum = h
		case a.Digest.Algorithm != "sha256": // that one is taken anyway
			out.extra = h
		}
	}
	err := unpack(a.Packing, in, out, platform)
	var local *writeError
	if ctx.Err() != nil || errors.As(err, &local) || in.err != nil || errors.Is(err, errTooLarge) {
		return "", 0, in.explain(err)
	}
	// A broken stream shows in the archive first, but the digest is what explains
	// it; so the rest is read whatever the archive looked like.
	if _, drainErr := io.CopyBuffer(io.Discard, io.LimitReader(in, maxBinary), make([]byte, copyBuffer)); drainErr != nil {
		return "", 0, in.explain(drainErr)
	}
	html := looksLikeHTML(in.head) || looksLikeHTML(out.head)
	compare := func(what string, want Digest, got string) error {
		if want.IsZero() || want.Hex == got {
			return nil
		}
		return &DigestError{What: what, Algorithm: want.Algorithm, Want: want.Hex, Got: got, HTML: html}
	}
	if in.sum != nil {
		if err := compare("package", a.Digest, sumOf(in.sum)); err != nil {
			return "", 0, err
		}
	}
	if err != nil {
		return "", 0, err
	}
	sum := sumOf(out.sum)
	if a.Covers == CoversFile {
		got := sum
		if out.extra != nil {
			got = sumOf(out.extra)
		}
		if err := compare("file", a.Digest, got); err != nil {
			return "", 0, err
		}
	}
	if err := compare("pinned file", pin, sum); err != nil {
		return "", 0, err
	}
	return sum, out.size, nil
}

// unpack copies Amp's file from what is sent to dst.
func unpack(packing Packing, src io.Reader, dst io.Writer, platform Platform) error {
	switch packing {
	case Raw:
		return copyFile(dst, src)
	case Gzip, NPMTarball:
		z, err := gzip.NewReader(bufio.NewReaderSize(src, copyBuffer))
		if err != nil {
			return fmt.Errorf("not gzip: %w", err)
		}
		defer z.Close()
		if packing == NPMTarball {
			return untar(dst, z, "package/"+platform.Executable())
		}
		return copyFile(dst, z)
	}
	return fmt.Errorf("unknown packing %d", packing)
}

func copyFile(dst io.Writer, src io.Reader) error {
	// Without the wrapping, io.Copy would let a file or the network do it in small pieces.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, copyBuffer))
	return err
}

// untar copies the one entry name, and reads the archive to its end: an odd
// entry after it spoils it as well as one before.
func untar(dst io.Writer, src io.Reader, name string) error {
	limited := &io.LimitedReader{R: src, N: 2 * maxBinary}
	archive := tar.NewReader(limited)
	found := false
	for count := 0; ; count++ {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("broken archive: %w", err)
		}
		if count >= maxTarEntries {
			return fmt.Errorf("refused the archive: more than %d entries", maxTarEntries)
		}
		if err := checkEntry(entry); err != nil {
			return err
		}
		if path.Clean(entry.Name) != name || entry.Typeflag != tar.TypeReg {
			continue
		}
		if found {
			return fmt.Errorf("refused the archive: %s is in it twice", name)
		}
		found = true
		if err := copyFile(dst, archive); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("the archive has no %s", name)
	}
	// What follows the archive's end is part of what the digest is of.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return err
	}
	if limited.N <= 0 {
		return errTooLarge
	}
	return nil
}

// checkEntry refuses what no package has. Nothing is ever written to an entry's
// own path, but an archive that tries is not one to take an executable from.
func checkEntry(entry *tar.Header) error {
	switch entry.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeXGlobalHeader:
	default:
		return fmt.Errorf("refused the archive: %q is neither a file nor a directory", entry.Name)
	}
	if entry.Typeflag != tar.TypeXGlobalHeader &&
		(!filepath.IsLocal(entry.Name) || path.IsAbs(entry.Name) || strings.Contains(entry.Name, "..") ||
			strings.ContainsAny(entry.Name, "\\\x00:")) {
		return fmt.Errorf("refused the archive: it has an entry named %q", entry.Name)
	}
	if entry.Size > maxBinary {
		return errTooLarge
	}
	return nil
}

// headLen is how much of a stream is kept to say what it was instead.
const headLen = 64

// wire is the stream as it is sent: counted, hashed, held to the promised size.
type wire struct {
	ctx      context.Context //nolint:containedctx // lives for one call of receive
	src      io.Reader
	size     int64
	received int64
	sum      hash.Hash // nil when the digest is of the file
	head     []byte
	progress func(int64)
	err      error // of the source, not of what was made of its bytes
}

func (w *wire) Read(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if err := w.ctx.Err(); err != nil {
		w.err = err
		return 0, err
	}
	n, err := w.src.Read(p)
	if n > 0 {
		w.received += int64(n)
		if len(w.head) < headLen {
			w.head = append(w.head, p[:min(n, headLen-len(w.head))]...)
		}
		if w.sum != nil {
			w.sum.Write(p[:n])
		}
		w.progress(w.received)
	}
	switch {
	case w.size >= 0 && w.received > w.size:
		err = fmt.Errorf("more came than the %d bytes that were promised", w.size)
	case errors.Is(err, io.EOF) && w.size >= 0 && w.received < w.size:
		err = io.ErrUnexpectedEOF
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// explain says how far the stream came when it was the source that failed.
func (w *wire) explain(err error) error {
	if w.err == nil || w.ctx.Err() != nil {
		return err
	}
	cause := w.err
	if errors.Is(cause, io.ErrUnexpectedEOF) {
		cause = errors.New("the connection ended early")
	}
	if w.size >= 0 {
		return fmt.Errorf("%w (after %d of %d bytes)", cause, w.received, w.size)
	}
	return fmt.Errorf("%w (after %d bytes)", cause, w.received)
}

// fileSink is Amp's file as it is written: counted, hashed, bounded.
type fileSink struct {
	dst   io.Writer
	sum   hash.Hash
	extra hash.Hash // what the source's digest is compared with; nil without one
	size  int64
	head  []byte
}

func (s *fileSink) Write(p []byte) (int, error) {
	if s.size+int64(len(p)) > maxBinary {
		return 0, errTooLarge
	}
	if len(s.head) < headLen {
		s.head = append(s.head, p[:min(len(p), headLen-len(s.head))]...)
	}
	s.sum.Write(p)
	if s.extra != nil {
		s.extra.Write(p)
	}
	n, err := s.dst.Write(p)
	s.size += int64(n)
	if err != nil {
		return n, &writeError{err: err}
	}
	return n, nil
}

// isExecutable reports whether the system goos starts a file that begins with
// head: its native format, or a script that names its interpreter.
func isExecutable(head []byte, goos string) bool {
	if bytes.HasPrefix(head, []byte("#!")) && goos != "windows" {
		return true
	}
	var magics []string
	switch goos {
	case "darwin":
		magics = []string{"\xcf\xfa\xed\xfe", "\xce\xfa\xed\xfe", "\xca\xfe\xba\xbe"}
	case "windows":
		magics = []string{"MZ"}
	default:
		magics = []string{"\x7fELF"}
	}
	for _, magic := range magics {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return false
}
