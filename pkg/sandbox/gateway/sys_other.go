//go:build !linux

package gateway

import (
	"errors"
	"net"
	"syscall"
)

// unpaceListener does nothing where the system does not pace by itself.
func unpaceListener(net.Listener) {}

// descriptorLimit is a number that every system allows.
func descriptorLimit() int { return 1024 }

func replyFrom([]byte) []byte { return nil }

func isFull(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ECONNABORTED)
}
