//go:build !windows

package config

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// looseFile says why a file is not private, and what to do; "" when it is.
func looseFile(info fs.FileInfo, path string) (why, remedy string) {
	if why := foreign(info); why != "" {
		return why, fmt.Sprintf("remove %s and run `sesame login` again", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Sprintf("other users may read or change it (mode %04o)", perm), "chmod 600 " + path
	}
	return "", ""
}

// looseDir is looseFile for the directory: who may write there may put another file in.
func looseDir(info fs.FileInfo, path string) (why, remedy string) {
	if why := foreign(info); why != "" {
		return why, fmt.Sprintf("make %s your own", path)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Sprintf("other users may change it (mode %04o)", perm), "chmod 700 " + path
	}
	return "", ""
}

func foreign(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Sprintf("it belongs to another user (uid %d)", stat.Uid)
	}
	return ""
}
