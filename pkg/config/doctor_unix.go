//go:build !windows

package config

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mayWrite asks the kernel, which also knows of read-only file systems.
func mayWrite(dir string) error {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// filledByRoot reports whether a cache is one that only root puts something into, for others to use.
func filledByRoot(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0 && info.Mode().Perm()&0o022 == 0 && unix.Faccessat(unix.AT_FDCWD, dir, unix.R_OK|unix.X_OK, unix.AT_EACCESS) == nil
}
