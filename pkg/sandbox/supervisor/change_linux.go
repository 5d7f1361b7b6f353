package supervisor

import (
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// change is a call that changes what a file is besides its content: which argument is what, -1 for none.
type change struct {
	dir, path, fd, flags int
	apply                func(c *call, fd int, st *unix.Stat_t) error
	noFollow             bool // does not follow a link at the end
}

// changes are the calls, those of every architecture and those of this one.
var changes = sync.OnceValue(func() map[uintptr]change {
	m := map[uintptr]change{
		unix.SYS_FCHMOD:    {-1, -1, 0, -1, chmod(1), false},
		unix.SYS_FCHMODAT:  {0, 1, -1, -1, chmod(2), false},
		unix.SYS_FCHMODAT2: {0, 1, -1, 3, chmod(2), false},
		unix.SYS_FCHOWN:    {-1, -1, 0, -1, chown(1), false},
		unix.SYS_FCHOWNAT:  {0, 1, -1, 4, chown(2), false},
		unix.SYS_UTIMENSAT: {0, 1, -1, 3, utimens(2, readTimespecs), false},
	}
	maps.Copy(m, changesHere())
	return m
})

// change makes the change where the sandbox may write, to what is the user's own.
func (s *Supervisor) change(c *call, what change) error {
	flags := 0
	if what.flags >= 0 {
		flags = int(int32(c.Args[what.flags]))
	}
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return unix.EINVAL
	}
	fd, real, err := s.openChanged(c, what, flags)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !s.inWritable(real) {
		return unix.EPERM
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	// We may be more than the sandbox is, which has no capabilities.
	if int(st.Uid) != unix.Geteuid() {
		return unix.EPERM
	}
	return what.apply(c, fd, &st)
}

func (s *Supervisor) openChanged(c *call, what change, flags int) (int, string, error) {
	if what.fd >= 0 {
		return s.descriptor(c, int(int32(c.Args[what.fd])))
	}
	dir := unix.AT_FDCWD
	if what.dir >= 0 {
		dir = int(int32(c.Args[what.dir]))
	}
	if c.Args[what.path] == 0 { // utimensat of a descriptor
		return s.descriptor(c, dir)
	}
	path, err := c.text(c.Args[what.path])
	if err != nil {
		return -1, "", err
	}
	if path == "" && flags&unix.AT_EMPTY_PATH != 0 {
		return s.descriptor(c, dir)
	}
	how := uint64(0)
	if what.noFollow || flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		how = unix.O_NOFOLLOW
	}
	return s.open(c, dir, path, how)
}

func chmod(mode int) func(*call, int, *unix.Stat_t) error {
	return func(c *call, fd int, st *unix.Stat_t) error {
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		return unix.Fchmodat(unix.AT_FDCWD, fdPath(fd), uint32(c.Args[mode])&0o1777, 0)
	}
}

func chown(owner int) func(*call, int, *unix.Stat_t) error {
	return func(c *call, fd int, st *unix.Stat_t) error {
		uid, gid := int(int32(c.Args[owner])), int(int32(c.Args[owner+1]))
		groups, err := unix.Getgroups()
		if err != nil {
			return err
		}
		groups = append(groups, unix.Getegid(), int(st.Gid), -1)
		if uid != -1 && uid != int(st.Uid) || !slices.Contains(groups, gid) {
			return unix.EPERM
		}
		return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
	}
}

func utimens(times int, read func(*call, uint64) ([]unix.Timespec, error)) func(*call, int, *unix.Stat_t) error {
	return func(c *call, fd int, st *unix.Stat_t) error {
		now := unix.Timespec{Nsec: unix.UTIME_NOW}
		ts := []unix.Timespec{now, now}
		if c.Args[times] != 0 {
			var err error
			if ts, err = read(c, c.Args[times]); err != nil {
				return err
			}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), ts, 0)
	}
}

// readTimespecs reads two of struct timespec.
func readTimespecs(c *call, addr uint64) ([]unix.Timespec, error) {
	data, err := c.readAll(addr, 32)
	if err != nil {
		return nil, err
	}
	return []unix.Timespec{{Sec: int64At(data, 0), Nsec: int64At(data, 8)}, {Sec: int64At(data, 16), Nsec: int64At(data, 24)}}, nil
}
