package shim

import "golang.org/x/sys/unix"

var lookedAtHere = []uint32{unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_MKNOD, unix.SYS_CHMOD}

func newModeHere(nr uint32, a arguments) (mode uint32, ok bool) {
	switch nr {
	case unix.SYS_CHMOD, unix.SYS_CREAT, unix.SYS_MKNOD:
		return a[1], true
	case unix.SYS_OPEN:
		return a[2], a[1]&(unix.O_CREAT|0o20000000) != 0
	}
	return 0, false
}

func openFlagsHere(nr uint32, a arguments) (flags uint32, ok bool) { return a[1], nr == unix.SYS_OPEN }

func changesModeHere(nr uint32) bool { return nr == unix.SYS_CHMOD }
