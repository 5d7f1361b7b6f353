package supervisor

import "golang.org/x/sys/unix"

// changesHere are the older calls, which C libraries made before 2021.
func changesHere() map[uintptr]change {
	return map[uintptr]change{
		unix.SYS_CHMOD:     {-1, 0, -1, -1, chmod(1), false},
		unix.SYS_CHOWN:     {-1, 0, -1, -1, chown(1), false},
		unix.SYS_LCHOWN:    {-1, 0, -1, -1, chown(1), true},
		unix.SYS_UTIME:     {-1, 0, -1, -1, utimens(1, readUtimbuf), false},
		unix.SYS_UTIMES:    {-1, 0, -1, -1, utimens(1, readTimevals), false},
		unix.SYS_FUTIMESAT: {0, 1, -1, -1, utimens(2, readTimevals), false},
	}
}

// readUtimbuf reads struct utimbuf: seconds.
func readUtimbuf(c *call, addr uint64) ([]unix.Timespec, error) {
	data, err := c.readAll(addr, 16)
	if err != nil {
		return nil, err
	}
	return []unix.Timespec{{Sec: int64At(data, 0)}, {Sec: int64At(data, 8)}}, nil
}

// readTimevals reads two of struct timeval: seconds and microseconds.
func readTimevals(c *call, addr uint64) ([]unix.Timespec, error) {
	ts, err := readTimespecs(c, addr)
	for i := range ts {
		if ts[i].Nsec < 0 || ts[i].Nsec >= 1e6 {
			return nil, unix.EINVAL
		}
		ts[i].Nsec *= 1000
	}
	return ts, err
}
