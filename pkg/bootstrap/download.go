package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	// connections is how many may send parts of one file at a time, as browsers have it.
	connections = 6
	// A first connection that would need longer than this for the rest gets help, once it has
	// been watched long enough and if there is enough left to share.
	tooSlow    = time.Second
	watchFor   = 200 * time.Millisecond
	worthwhile = 8 << 20
	// A share is never smaller or larger than these, in bytes: small enough that the reader of
	// the spool is never far behind, large enough that asking for it costs little.
	minShare = 1 << 20
	maxShare = 8 << 20
	// lookAround is how often the reader tells how far it is when nothing comes.
	lookAround = 250 * time.Millisecond
)

// download fills a spool with what an artifact sends: over one connection, and
// where that is slow and the server can, over several.
type download struct {
	artifact *Artifact
	spool    *spool
	alone    bool // only what the artifact's own body brings

	mu     sync.Mutex
	todo   []span // what nobody is fetching, the lowest first
	helped bool
	wg     sync.WaitGroup
	err    error // the first that a connection failed with, or one that no other can mend
}

// start lets the spool fill. Nobody writes to it any more when stop returns.
func (d *download) start(ctx context.Context) (running context.Context, stop func()) {
	running, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		tick := time.NewTicker(lookAround)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				d.spool.wake()
			}
		}
	}()
	go func() {
		defer close(ended)
		d.spool.end(d.run(running))
	}()
	return running, func() { cancel(); <-ended }
}

// run returns when everything is in the spool, or cannot be had.
func (d *download) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A body may wait for its server; only closing it wakes those that know no context.
	defer context.AfterFunc(ctx, func() { d.artifact.Body.Close() })()
	whole := span{d.artifact.Offset, d.artifact.Size}
	d.work(ctx, d.artifact.Body, &whole)
	d.wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d.err != nil && (len(d.todo) > 0 || final(d.err)) {
		return d.err
	}
	return nil
}

var (
	errEndedEarly = errors.New("the connection ended early")
	errLonger     = errors.New("more came than was promised")
)

// final reports whether no connection is of any more use.
func final(err error) bool {
	var local *writeError
	return errors.As(err, &local) || errors.Is(err, errLonger) || errors.Is(err, errTooLarge)
}

// work is one connection's: what it has begun, and then one share after the other.
func (d *download) work(ctx context.Context, body io.ReadCloser, own *span) {
	for {
		err := d.copy(ctx, body, own)
		body.Close()
		if err == nil {
			own = d.share()
			if own == nil {
				return
			}
			body, err = d.artifact.More(ctx, own.from, own.to)
		}
		if err != nil {
			d.giveUp(*own, err)
			return
		}
	}
}

// giveUp leaves a share to others: a server may take one connection and not six.
func (d *download) giveUp(rest span, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil || final(err) {
		d.err = err
	}
	d.todo = append(d.todo, rest)
	slices.SortFunc(d.todo, func(a, b span) int { return cmp.Compare(a.from, b.from) })
}

// share takes the next piece that nobody is fetching, nil when there is none.
func (d *download) share() *span {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.todo) == 0 || d.artifact.More == nil || final(d.err) {
		return nil
	}
	var left int64
	for _, s := range d.todo {
		left += s.len()
	}
	next := d.todo[0]
	next.to = min(next.to, next.from+min(max(left/(2*connections), minShare), maxShare))
	if d.todo[0].from = next.to; d.todo[0].len() == 0 {
		d.todo = d.todo[1:]
	}
	return &next
}

// copy moves own from body to the spool; own shrinks as it comes, and when the
// rest of it is handed to others. A size that is not known ends with the body.
func (d *download) copy(ctx context.Context, body io.Reader, own *span) error {
	begun, first := time.Now(), own.from
	for own.to < 0 || own.len() > 0 {
		buffer := d.spool.room()
		n, err := body.Read(buffer)
		if own.to >= 0 && int64(n) > own.len() {
			if own.to == d.artifact.Size {
				return fmt.Errorf("%w: %d bytes", errLonger, d.artifact.Size)
			}
			n = int(own.len())
		}
		if own.from+int64(n) > maxBinary {
			return errTooLarge
		}
		if n > 0 {
			if err := d.spool.write(buffer, n, own.from); err != nil {
				return err
			}
			own.from += int64(n)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF) && own.to >= 0 && own.len() > 0:
			return d.explain(io.ErrUnexpectedEOF)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return d.explain(err)
		}
		d.help(ctx, own, own.from-first, time.Since(begun))
	}
	// Nothing may follow what was promised.
	if own.to == d.artifact.Size {
		if n, _ := io.ReadFull(body, make([]byte, 1)); n > 0 {
			return fmt.Errorf("%w: %d bytes", errLonger, d.artifact.Size)
		}
	}
	return nil
}

// help starts more connections when the first one turns out to be slow.
func (d *download) help(ctx context.Context, own *span, moved int64, took time.Duration) {
	if d.helped || d.alone || d.artifact.More == nil || took < watchFor || own.len() < worthwhile {
		return
	}
	if rest := time.Duration(float64(own.len()) / float64(max(moved, 1)) * float64(took)); rest < tooSlow {
		return
	}
	d.mu.Lock()
	d.helped = true
	keep := own.from + min(max(own.len()/(2*connections), minShare), maxShare)
	d.todo = []span{{keep, own.to}}
	own.to = keep
	d.mu.Unlock()
	for range connections - 1 {
		d.wg.Go(func() {
			mine := d.share()
			if mine == nil {
				return
			}
			body, err := d.artifact.More(ctx, mine.from, mine.to)
			if err != nil {
				d.giveUp(*mine, err)
				return
			}
			d.work(ctx, body, mine)
		})
	}
}

// explain says how far the file came when the source failed.
func (d *download) explain(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errEndedEarly
	}
	if size := d.artifact.Size; size >= 0 {
		return fmt.Errorf("%w (after %d of %d bytes)", err, d.spool.count(), size)
	}
	return fmt.Errorf("%w (after %d bytes)", err, d.spool.count())
}
