//go:build !linux

package sandbox

import (
	"errors"
	"io"
)

func abstractSocket(string) string { return "" }

func pidNamespace() string { return "" }

// Attack is for systems that have a tier.
func Attack(io.Reader, io.Writer) error {
	return errors.New("there is no sandbox on this system to attack")
}
