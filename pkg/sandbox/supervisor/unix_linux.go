package supervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

func formatInode(n uint64) string { return strconv.FormatUint(n, 10) }

// fileID tells a file from all that were or will be: numbers are used again, the moment of birth is not.
type fileID struct {
	dev, ino uint64
	sec      int64
	nsec     uint32
}

func identify(fd int) (fileID, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return fileID{}, err
	}
	id := fileID{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.sec, id.nsec = st.Btime.Sec, st.Btime.Nsec
	}
	return id, nil
}

// dialUnix connects to a socket that was made inside, or to one of the host's that the policy names.
func (s *Supervisor) dialUnix(c *call, to address) (int, error) {
	if to.unnamed {
		return -1, unix.EINVAL
	}
	if to.path == "" {
		return unixStream(func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: s.abstract(to.name)}) })
	}
	if to.path == nameDaemonPath {
		return s.nameDaemon(c)
	}
	file, real, err := s.open(c, unix.AT_FDCWD, to.path, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(file)
	if !slices.Contains(s.sockets, real) {
		id, err := identify(file)
		if err != nil {
			return -1, err
		}
		s.mu.Lock()
		ok := s.files[id]
		s.mu.Unlock()
		if !ok {
			return -1, unix.ECONNREFUSED
		}
	}
	return unixStream(func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: fdPath(file)}) })
}

// serveUnix makes a listening socket that has a path in a place where the sandbox may write, or a name of the run's own.
func (s *Supervisor) serveUnix(c *call, at address) (int, error) {
	if at.path == "" {
		name := at.name
		if at.unnamed {
			name = strconv.FormatUint(c.ID, 36)
		}
		return unixStream(func(fd int) error {
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: s.abstract(name)}); err != nil {
				return err
			}
			return s.listenUnix(fd)
		})
	}
	dir, base := filepath.Split(at.path)
	if base == "" || base == "." || base == ".." {
		return -1, unix.EADDRINUSE
	}
	if dir == "" {
		dir = "."
	}
	parent, real, err := s.open(c, unix.AT_FDCWD, dir, unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if !s.inWritable(real) {
		return -1, unix.EACCES
	}
	umask, err := c.field("status", "Umask:", 8)
	if err != nil {
		return -1, err
	}
	return unixStream(func(fd int) error {
		// The socket's name, which others are told, is what it is bound with.
		path := at.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(real, base)
		}
		if err := s.bindPath(fd, path); err != nil {
			return err
		}
		file, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(file)
		var st unix.Stat_t
		if err := unix.Fstat(file, &st); err != nil {
			return err
		}
		id, err := identify(file)
		if err != nil {
			return err
		}
		if err := s.listenUnix(fd); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFSOCK || !leadsTo(file, fd) {
			return unix.EACCES // something else was put in its place
		}
		if err := unix.Fchmodat(unix.AT_FDCWD, fdPath(file), uint32(0o777&^umask), 0); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.files) >= maxSockets {
			clear(s.files) // those who made so many can do with the newest
		}
		s.files[id] = true
		return nil
	})
}

// bindPath binds to a path that may lead elsewhere by now: it is done on a thread that can make sockets only where
// the sandbox may, and that ends with it.
func (s *Supervisor) bindPath(fd int, path string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := shim.Restrict(s.rules)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}
		done <- err
	}()
	return <-done
}

// leadsTo tells whether who connects to a file reaches the listening socket, by doing so.
func leadsTo(file, listener int) bool {
	probe, err := unixStream(func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: fdPath(file)}) })
	if err != nil {
		return false
	}
	defer unix.Close(probe)
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(conn)
	peer, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(peer.Pid) == unix.Getpid()
}

func (s *Supervisor) listenUnix(fd int) error {
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return err
	}
	return s.remember(fd, netip.AddrPort{})
}

func unixStream(use func(fd int) error) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := use(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// abstract is the name that stands for an abstract socket's: nobody outside listens to such a one, or looks for one.
func (s *Supervisor) abstract(name string) string {
	if strings.HasPrefix(name, s.prefix) {
		return "@" + name
	}
	const most = 107
	full := s.prefix + name
	if len(full) > most {
		sum := sha256.Sum256([]byte(name))
		full = s.prefix + hex.EncodeToString(sum[:])
	}
	return "@" + full
}
