package cmd

import (
	"context"
	"os"
	"os/signal"
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
	begun   chan struct{} // closed when signals come here
	taken   chan struct{}
	done    chan struct{}
}

func watchSignals(parent context.Context) (context.Context, *signalWatch) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &signalWatch{
		signals: make(chan os.Signal, 4),
		begun:   make(chan struct{}),
		taken:   make(chan struct{}),
		done:    make(chan struct{}),
	}
	go func() {
		// Here, since each takes several steps of two threads after each other, and little waits for it: until then a
		// signal does what it does to a program that is just starting.
		for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
			// nohup and `cmd &` in scripts ignore signals for us: that stays so.
			if !signal.Ignored(s) {
				signal.Notify(w.signals, s)
			}
		}
		close(w.begun)
		select {
		case s := <-w.signals:
			signal.Stop(w.signals)
			cancel(signalError{s})
		case <-w.taken:
		case <-w.done:
			signal.Stop(w.signals)
			cancel(nil)
		}
	}()
	return ctx, w
}

// await waits until a signal ends the context, for who goes on to wait long for something else.
func (w *signalWatch) await() { <-w.begun }

// take hands the signals over to a command that passes them on to another program;
// from then on they do not end the context. It may be called once.
func (w *signalWatch) take() <-chan os.Signal {
	close(w.taken)
	return w.signals
}

func (w *signalWatch) stop() { close(w.done) }
