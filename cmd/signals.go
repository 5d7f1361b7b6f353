package cmd

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (e signalError) Error() string {
	if e.signal == os.Interrupt {
		return "interrupted"
	}
	return "terminated"
}

// signalWatch turns the first signal into the end of a context. The second one does
// what signals do by default, so that an impatient user is obeyed.
type signalWatch struct {
	signals chan os.Signal
	begin   func() // begins to watch, once. Until then a signal does what it does to a program that is just starting
	taken   chan struct{}
	done    chan struct{}
}

func watchSignals(parent context.Context) (context.Context, *signalWatch) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &signalWatch{
		signals: make(chan os.Signal, 4),
		taken:   make(chan struct{}),
		done:    make(chan struct{}),
	}
	w.begin = sync.OnceFunc(func() {
		for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
			// nohup and `cmd &` in scripts ignore signals for us: that stays so.
			if !signal.Ignored(s) {
				signal.Notify(w.signals, s)
			}
		}
		go func() {
			select {
			case s := <-w.signals:
				select {
				case <-w.taken: // a moment ago
					w.signals <- s
				default:
					signal.Stop(w.signals)
					cancel(signalError{s})
				}
			case <-w.taken:
			case <-w.done:
				signal.Stop(w.signals)
				cancel(nil)
			}
		}()
	})
	return ctx, w
}

// take hands the signals over to a command that passes them on to another program;
// from then on they do not end the context. It may be called once.
func (w *signalWatch) take() <-chan os.Signal {
	w.begin()
	close(w.taken)
	return w.signals
}

func (w *signalWatch) stop() { close(w.done) }
