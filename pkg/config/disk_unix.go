//go:build !windows

package config

import "golang.org/x/sys/unix"

// freeSpace is what a user who is not root may still write, in bytes.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // a size is positive
}
