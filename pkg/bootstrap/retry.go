package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

const (
	// attempts is how often in a row a source may fail without having sent anything.
	attempts = 3
	// maxRetryAfter is how long a server may make us wait.
	maxRetryAfter = time.Minute
)

// retry tries something at a source until it works, cannot work, or has failed
// too often. What was tried tells whether it got any further; tell hears of each wait.
func (in *Installer) retry(ctx context.Context, tell func(err error, wait time.Duration), try func() (moved bool, err error)) error {
	for failed := 1; ; failed++ {
		moved, err := try()
		if err == nil || ctx.Err() != nil || !passing(err) {
			return err
		}
		if moved {
			failed = 1
		}
		var status *statusError
		wait := in.pause << (failed - 1)
		if errors.As(err, &status) && status.after > 0 {
			wait = status.after
		}
		switch {
		case wait > maxRetryAfter:
			return fmt.Errorf("%w (it wants to be asked again in %s)", err, wait)
		case failed >= attempts:
			return err
		}
		// Many machines that failed at one time do not come back at one time.
		wait += rand.N(wait/4 + 1)
		tell(err, wait)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// passing reports whether the same may work a moment later.
func passing(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		switch status.status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	var name *net.DNSError
	if errors.As(err, &name) {
		return name.IsTemporary || name.IsTimeout
	}
	for _, cause := range []error{errStalled, errEndedEarly, errChanged, errNoAnswer} {
		if errors.Is(err, cause) {
			return true
		}
	}
	// Refused, reset. One that took too long to connect has been waited for already.
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout() && (op.Op == "dial" || op.Op == "read" || op.Op == "write")
}
