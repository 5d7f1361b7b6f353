package bootstrap

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteback has the disk begin to write a part of a file, and does not wait for it. Where
// it cannot, there is more to do when the file is synced.
func beginWriteback(f *os.File, from, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, n, unix.SYNC_FILE_RANGE_WRITE)
}
