package inode

import (
	"io/fs"
	"syscall"
)

// Of is the file's inode number and the time of its last change in any way,
// in nanoseconds.
func Of(info fs.FileInfo) (number uint64, changed int64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino, st.Ctimespec.Nano()
	}
	return 0, 0
}
