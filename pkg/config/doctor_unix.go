//go:build !windows

package config

import "golang.org/x/sys/unix"

// mayWrite asks the kernel, which also knows of read-only file systems.
func mayWrite(dir string) error {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}
