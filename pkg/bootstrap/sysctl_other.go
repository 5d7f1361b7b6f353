//go:build !darwin

package bootstrap

import "errors"

// sysctl is of macOS; nobody else asks it anything.
func sysctl(string) (uint32, error) { return 0, errors.ErrUnsupported }
