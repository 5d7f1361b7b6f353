package bootstrap

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// minMoved is how much an attempt has to bring for the source to be on the move, in bytes.
const minMoved = 64 << 10

// delivery is one version on its way from one source into the cache.
type delivery struct {
	*Installer
	source Source
	req    Request
	work   string // a private directory, gone afterwards
	parts  string // where what was sent is kept, for the next time if that is another directory
	whole  bool   // putting parts together went wrong, so it has to come in one piece
}

// fetch gets one version from one source into the cache: into a work directory
// first, and under its name only when it is verified and on the disk. With
// resume, what an attempt leaves is there for the next one; that takes a lock.
func (in *Installer) fetch(ctx context.Context, s Source, req Request, resume bool) (Binary, error) {
	work, err := in.cache.work(req.Version, resume)
	if err != nil {
		return Binary{}, &writeError{err: err}
	}
	defer os.RemoveAll(work)
	v := &delivery{Installer: in, source: s, req: req, work: work, parts: work}
	if resume {
		v.parts = in.cache.parts(req.Version)
		if err := os.MkdirAll(v.parts, 0o700); err != nil {
			return Binary{}, &writeError{err: err}
		}
		defer os.Remove(v.parts) // fails, and is to fail, when there is something to resume from
	}
	var b Binary
	tell := func(err error, wait time.Duration) { in.events.retrying(s.Name(), err, wait) }
	err = in.retry(ctx, tell, func() (moved bool, err error) {
		b, moved, err = v.attempt(ctx)
		return moved, err
	})
	return b, err
}

// attempt asks the source once. It tells whether it brought the version any nearer.
func (v *delivery) attempt(ctx context.Context) (b Binary, moved bool, err error) {
	req := v.req
	if !v.whole {
		req.Have = func(url string) Have { return newPartial(v.parts, url).have() }
	}
	a, err := v.source.Open(ctx, req)
	if err != nil {
		return Binary{}, false, err
	}
	defer a.Body.Close()
	for _, w := range a.Warnings {
		v.events.warning(w)
	}
	part := newPartial(v.parts, a.URL)
	spooled, err := part.open(a.Offset)
	if err != nil {
		return Binary{}, false, &writeError{err: err}
	}
	d := &download{artifact: a, spool: newSpool(spooled, a.Offset), alone: v.whole}
	v.events.started(Started{Version: req.Version, Source: v.source.Name(), URL: a.URL, Size: a.Size, Resumed: a.Offset})
	got, err := v.take(ctx, d, part)
	err = errors.Join(err, closed(spooled))
	if err != nil {
		moved, again := v.keep(ctx, d, part, err)
		if again {
			return v.attempt(ctx)
		}
		return Binary{}, moved, at(a.URL, err)
	}
	b, err = v.publish(a, part, got)
	return b, false, err
}

// keep decides what of a failed attempt is of use to the next one: whether it brought
// anything, and whether that one should come at once, in one piece.
func (v *delivery) keep(ctx context.Context, d *download, part *partial, err error) (moved, again bool) {
	a, reached := d.artifact, d.spool.frontier()
	if a.Validator == "" || (ctx.Err() == nil && !passing(err)) {
		part.remove()
		// What was put together wrongly, or begun before a loss of power, may be right in one piece.
		if (a.Offset > 0 || d.helped) && !v.whole && ctx.Err() == nil && !local(err) {
			v.whole = true
			return false, true
		}
		return false, false
	}
	part.noted = time.Time{}
	part.note(a, reached, v.now())
	return reached-a.Offset >= minMoved, false
}

// take receives the artifact: one side fills the spool while this one reads it.
func (v *delivery) take(ctx context.Context, d *download, part *partial) (received, error) {
	ctx, stop := d.start(ctx)
	defer stop()
	w := &wire{ctx: ctx, spool: d.spool, progress: func() {
		v.events.progress(d.spool.count())
		part.note(d.artifact, d.spool.frontier(), v.now())
	}}
	// A bar that stands still shows that, and a kill meanwhile loses nothing.
	d.spool.idle = w.progress
	var file *os.File
	got, err := receive(w, d.artifact, "package/"+v.req.Platform.Executable(), v.pin, func() (*os.File, error) {
		var err error
		file, err = os.OpenFile(v.unpacked(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		return file, err
	})
	if file == nil {
		return got, err
	}
	return got, errors.Join(err, closed(file))
}

func (v *delivery) unpacked() string { return filepath.Join(v.work, v.req.Platform.Executable()) }

// publish gives the verified file its place in the cache.
func (v *delivery) publish(a *Artifact, part *partial, got received) (Binary, error) {
	path := v.unpacked()
	if got.raw {
		if err := os.Rename(part.path, path); err != nil {
			return Binary{}, &writeError{err: err}
		}
	}
	info, err := settle(path)
	if err != nil {
		return Binary{}, &writeError{err: err}
	}
	r := record{
		Schema:      recordSchema,
		Version:     v.req.Version,
		Platform:    v.req.Platform,
		SHA256:      got.sum,
		Size:        got.size,
		Identity:    identityOf(info),
		Source:      v.source.Name(),
		URL:         a.URL,
		InstalledAt: v.now().UTC(),
	}
	if a.Covers == CoversTransport {
		r.Transport = a.Digest.String()
	}
	if err := v.cache.store(v.work, r); err != nil {
		return Binary{}, &writeError{err: err}
	}
	// Whatever else is left of the version: its other forms, from other sources.
	_ = os.RemoveAll(v.cache.parts(v.req.Version))
	b, err := v.cache.load(v.req.Version)
	if err != nil {
		return Binary{}, &writeError{err: err}
	}
	return b, nil
}

// settle has the file on the disk and executable, and nobody write to it again by mistake.
func settle(path string) (os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), f.Chmod(0o555)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

func closed(f *os.File) error { return wrapLocal(f.Close()) }

func wrapLocal(err error) error {
	if err == nil {
		return nil
	}
	return &writeError{err: err}
}

func local(err error) bool {
	var w *writeError
	return errors.As(err, &w)
}
