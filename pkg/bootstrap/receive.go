package bootstrap

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

const (
	// copyBuffer is the size of reads and writes, in bytes.
	copyBuffer = 256 << 10
	// writebackStep is how much is written before the disk is told to begin with it, in bytes.
	writebackStep = 8 << 20
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

// received is what came of an artifact.
type received struct {
	sum  string // sha256 of Amp's file, in hex
	size int64
	raw  bool // what was sent is Amp's file, and nothing was unpacked
}

// checksums says what has to be hashed to verify a. It fails when nothing would.
func checksums(a *Artifact, pin Digest) (onWire, onFile hash.Hash, err error) {
	if a.Digest.IsZero() {
		if pin.IsZero() {
			return nil, nil, errUnverified
		}
		return nil, nil, nil
	}
	h := newHash(a.Digest.Algorithm)
	switch {
	case h == nil:
		return nil, nil, fmt.Errorf("refused: unknown checksum algorithm %q", a.Digest.Algorithm)
	case a.Covers == CoversTransport:
		return h, nil, nil
	case a.Digest.Algorithm == "sha256": // that one is taken anyway
		return nil, nil, nil
	}
	return nil, h, nil
}

// receive unpacks what comes out of the wire into the file that create makes, while it
// hashes both what comes and what is written. It returns an error unless everything is
// as the source, and the pin if there is one, says. What was written before an error must not be used.
func receive(in *wire, a *Artifact, entry string, pin Digest, create func() (*os.File, error)) (received, error) {
	onWire, onFile, err := checksums(a, pin)
	if err != nil {
		return received{}, err
	}
	in.sum = onWire
	out := &fileSink{create: create, sum: newHash("sha256"), extra: onFile}
	raw, err := unpack(a.Packing, in, in.spool.file, out, entry)
	var local *writeError
	if in.ctx.Err() != nil || errors.As(err, &local) || in.err != nil || errors.Is(err, errTooLarge) {
		return received{}, in.because(err)
	}
	// A broken stream shows in the archive first, but the digest is what explains
	// it; so the rest is read whatever the archive looked like.
	if _, drainErr := io.CopyBuffer(io.Discard, in, make([]byte, copyBuffer)); drainErr != nil {
		return received{}, in.because(drainErr)
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
			return received{}, err
		}
	}
	if err != nil {
		return received{}, err
	}
	sum := sumOf(out.sum)
	if a.Covers == CoversFile {
		got := sum
		if out.extra != nil {
			got = sumOf(out.extra)
		}
		if err := compare("file", a.Digest, got); err != nil {
			return received{}, err
		}
	}
	if err := compare(pinnedFile, pin, sum); err != nil {
		return received{}, err
	}
	return received{sum: sum, size: out.size, raw: raw}, nil
}

// unpack copies the program from what is sent to dst, and reports whether that was all that there was to do.
func unpack(packing Packing, src io.Reader, spooled *os.File, dst *fileSink, entry string) (raw bool, err error) {
	buffered := bufio.NewReaderSize(src, copyBuffer)
	if packing == RawOrGzip {
		packing = Raw
		if head, err := buffered.Peek(2); err == nil && bytes.Equal(head, gzipMagic()) {
			packing = Gzip
		}
	}
	switch packing {
	case Raw:
		// It is in the spool, and hashing is all that is left.
		dst.file, dst.written = spooled, true
		_, err := buffered.WriteTo(dst)
		return true, err
	case Gzip, NPMTarball:
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return false, fmt.Errorf("not gzip: %w", err)
		}
		defer z.Close()
		ahead := newAhead(dst)
		if packing == NPMTarball {
			err = untar(ahead, z, entry)
		} else {
			err = copyFile(ahead, z)
		}
		// What the writer met is the cause of what its caller saw.
		if writeErr := ahead.close(); writeErr != nil {
			err = writeErr
		}
		return false, err
	}
	return false, fmt.Errorf("unknown packing %d", packing)
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

// wire is the stream as it is sent, read from the spool: hashed, and its progress told.
type wire struct {
	ctx      context.Context //nolint:containedctx // lives for one attempt
	spool    *spool
	sum      hash.Hash // nil when the digest is of the file
	head     []byte
	progress func()
	err      error // of the source or the spool, not of what was made of the bytes
}

func (w *wire) Read(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.spool.Read(p)
	w.came(p[:n], err)
	return n, err
}

// WriteTo does without the buffer that Read needs.
func (w *wire) WriteTo(dst io.Writer) (total int64, err error) {
	for w.err == nil {
		p, err := w.spool.next()
		w.came(p, err)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			break
		}
		n, err := dst.Write(p)
		if total += int64(n); err != nil {
			return total, err
		}
	}
	return total, w.err
}

// came takes note of what was read.
func (w *wire) came(p []byte, err error) {
	if len(w.head) < headLen {
		w.head = append(w.head, p[:min(len(p), headLen-len(w.head))]...)
	}
	if w.sum != nil {
		w.sum.Write(p)
	}
	w.progress()
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
}

// because returns what happened on the wire, in the place of what was made of it.
func (w *wire) because(err error) error {
	if w.err != nil {
		return w.err
	}
	return err
}

// fileSink is Amp's file as it is written: counted, hashed, bounded.
type fileSink struct {
	create  func() (*os.File, error)
	file    *os.File // nil until there is something to write
	written bool     // by somebody else, and here only hashed
	sum     hash.Hash
	extra   hash.Hash // what the source's digest is compared with; nil without one
	size    int64
	begun   int64 // up to where the disk was told to write
	head    []byte
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
	if s.file == nil {
		var err error
		if s.file, err = s.create(); err != nil {
			return 0, &writeError{err: err}
		}
	}
	if !s.written {
		if n, err := s.file.Write(p); err != nil {
			return n, &writeError{err: err}
		}
	}
	s.size += int64(len(p))
	if s.size-s.begun >= writebackStep {
		// What is on its way to the disk already need not be waited for at the end.
		beginWriteback(s.file, s.begun, s.size-s.begun)
		s.begun = s.size
	}
	return len(p), nil
}

// ahead lets what unpacks go on while what it made is hashed and written.
type ahead struct {
	full, free chan []byte
	done       chan struct{}
	failed     atomic.Bool
	err        error // to be read when done
}

func newAhead(dst io.Writer) *ahead {
	const buffers = 4
	a := &ahead{full: make(chan []byte, buffers), free: make(chan []byte, buffers), done: make(chan struct{})}
	for range buffers {
		a.free <- make([]byte, 0, copyBuffer)
	}
	go func() {
		defer close(a.done)
		for b := range a.full {
			if a.err == nil {
				if _, a.err = dst.Write(b); a.err != nil {
					a.failed.Store(true)
				}
			}
			a.free <- b[:0]
		}
	}()
	return a
}

func (a *ahead) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		if a.failed.Load() {
			return total, io.ErrClosedPipe
		}
		b := <-a.free
		n := min(len(p), cap(b))
		a.full <- append(b, p[:n]...)
		p, total = p[n:], total+n
	}
	return total, nil
}

// close waits for everything to be written and returns what the writing failed with.
func (a *ahead) close() error {
	close(a.full)
	<-a.done
	return a.err
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
