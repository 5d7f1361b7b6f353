//go:build !linux

package gateway

import (
	"errors"
	"syscall"
)

func replyFrom([]byte) []byte { return nil }

func isFull(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ECONNABORTED)
}
