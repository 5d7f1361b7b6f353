package amp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// logs are the files of a turn and the way to them.
type logs struct {
	o          *TurnOptions
	eventsFile *os.File
	stderrFile *os.File
}

func openLogs(o *TurnOptions) (*logs, error) {
	l := &logs{o: o}
	for _, f := range []struct {
		path string
		file **os.File
	}{{o.EventsFile, &l.eventsFile}, {o.StderrFile, &l.stderrFile}} {
		if f.path == "" {
			continue
		}
		file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, filePrivate)
		if err != nil {
			_ = l.close()
			return nil, fault.New(fault.Internal, "cannot write the log of the turn: %w", err)
		}
		*f.file = file
	}
	return l, nil
}

func (l *logs) close() error {
	var errs []error
	for _, f := range []*os.File{l.eventsFile, l.stderrFile} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// events is where Amp's JSON stream goes: file, raw and decoder, in this order,
// so that what people are shown is on disk already.
func (l *logs) events(d *Decoder) *output {
	return l.output(d.Flush, l.file(l.eventsFile), l.raw(), &sink{w: d})
}

func (l *logs) stderr(tail *stderrTail) *output {
	return l.output(nil, l.file(l.stderrFile), &sink{w: tail})
}

func (l *logs) text(a *answer) *output { return l.output(nil, &sink{w: a}) }

// lines is where sesame's own lines of the stream go.
func (l *logs) lines(d *Decoder) *output { return l.events(d) }

func (l *logs) file(f *os.File) *sink {
	if f == nil {
		return &sink{}
	}
	return &sink{w: f}
}

func (l *logs) raw() *sink { return &sink{w: l.o.Raw} }

func (l *logs) output(flush func() error, sinks ...*sink) *output {
	out := &output{sinks: sinks, flush: flush}
	if l.o.Redact != nil {
		out.redact = l.o.Redact(fanout(sinks))
	}
	return out
}

// output is a stream of Amp's on its way. A process that outlives the turn finds
// it closed: its writes go nowhere.
type output struct {
	mu     sync.Mutex
	closed bool
	redact RedactingWriter // nil when nothing is redacted
	sinks  fanout
	flush  func() error
	err    error
}

// Write never fails: Amp must not die because a disk is full or a pipe is gone.
func (w *output) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(p), nil
	}
	var err error
	if w.redact != nil {
		_, err = w.redact.Write(p)
	} else {
		_, err = w.sinks.Write(p)
	}
	if w.err == nil {
		w.err = err
	}
	return len(p), nil
}

// finish flushes and closes the stream and returns what went wrong on the way.
func (w *output) finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	errs := []error{w.err}
	if w.redact != nil {
		errs = append(errs, w.redact.Flush())
	}
	if w.flush != nil {
		errs = append(errs, w.flush())
	}
	for _, s := range w.sinks {
		errs = append(errs, s.err)
	}
	return errors.Join(errs...)
}

// fanout writes to all sinks, whatever happens to one of them.
type fanout []*sink

func (f fanout) Write(p []byte) (int, error) {
	for _, s := range f {
		s.write(p)
	}
	return len(p), nil
}

// sink is a writer that is left alone after its first error.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) write(p []byte) {
	if s.w == nil || s.err != nil {
		return
	}
	if _, err := s.w.Write(p); err != nil {
		s.err = fmt.Errorf("write the output of amp: %w", err)
	}
}
