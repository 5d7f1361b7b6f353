//go:build !linux

package gateway

import (
	"errors"
	"syscall"
)

// descriptorLimit is a number that every system allows.
func descriptorLimit() int { return 1024 }

func replyFrom([]byte) []byte { return nil }

func isFull(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ECONNABORTED)
}
