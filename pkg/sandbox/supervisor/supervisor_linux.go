// Package supervisor decides on the system calls of a sandbox that shares the host's network and files with
// everybody, where the kernel's own rules (Landlock) do not look. The sandbox's filter (package shim) makes such a
// call wait; the supervisor copies its arguments, and makes the call itself if it is allowed. What the caller then
// does to its memory or its descriptors changes nothing: no decision is about something that is looked at again.
//
// A connection is made by making a socket that is connected, to the gateway, and putting it in the place of the
// caller's. Servers inside get an address of the run's own, 127.x.y.z, and are found there by those inside.
package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// Options say what the sandbox may do.
type Options struct {
	Gateway  *gateway.Gateway
	Writable []string // directories and files in which the sandbox may write
	Sockets  []string // the host's sockets that it may talk to
}

// Supervisor answers for one sandbox.
type Supervisor struct {
	capture  *gateway.Capture
	writable []string
	sockets  []string
	own      netip.Addr // where servers inside listen
	prefix   string     // of the names of abstract sockets
	lookups  chan struct{}
	rules    int // a ruleset of Landlock: sockets where the sandbox may write

	mu        sync.Mutex
	listening map[uint64]netip.AddrPort // by inode: sockets that were bound, and their addresses
	ports     map[uint16]uint64         // inodes of TCP listeners
	files     map[fileID]bool           // sockets with a path that were made inside
	datagram  map[uint64]bool           // inodes of what stands for UDP sockets
}

// maxSockets bounds what is remembered of a sandbox's servers, and its datagram sockets at once.
const maxSockets = 4096

// New makes the supervisor of one run.
func New(o Options) (*Supervisor, error) {
	rules, err := shim.SocketRuleset(o.Writable)
	if err != nil {
		return nil, err
	}
	capture, err := o.Gateway.Capture()
	if err != nil {
		unix.Close(rules)
		return nil, fmt.Errorf("listen for the sandbox's connections: %w", err)
	}
	var random [11]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	s := &Supervisor{
		capture: capture, lookups: make(chan struct{}, maxLookups), rules: rules, writable: o.Writable, sockets: o.Sockets,
		// Not 127.0.0.x, which others may use.
		own:       netip.AddrFrom4([4]byte{127, 1 + random[0]%250, random[1], 1 + random[2]%250}),
		prefix:    "sesame-" + hex.EncodeToString(random[3:]) + "/",
		listening: map[uint64]netip.AddrPort{}, ports: map[uint16]uint64{}, files: map[fileID]bool{}, datagram: map[uint64]bool{},
	}
	context.AfterFunc(o.Gateway.Context(), func() { _ = capture.Close() })
	go func() { _ = capture.Serve() }() // its error is its end
	return s, nil
}

// maxCalls bounds the calls that are worked on at once.
const maxCalls = 64

// Serve answers the calls that a filter's listener tells of, until the sandbox is gone. It is called once, and closes the listener.
func (s *Supervisor) Serve(listener int) error {
	var working sync.WaitGroup
	defer unix.Close(listener)
	defer unix.Close(s.rules)
	defer working.Wait()
	slots := make(chan struct{}, maxCalls)
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return err
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			return nil // nobody is left who could call
		}
		c := &call{listener: listener}
		// Not again after a signal: the caller may have died meanwhile, and the next may never call.
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&c.notification)))
		switch errno {
		case 0:
		case unix.ENOENT, unix.EINTR:
			continue
		default:
			return errno
		}
		slots <- struct{}{}
		working.Go(func() {
			defer func() { <-slots }()
			s.decide(c)
		})
	}
}

func (s *Supervisor) decide(c *call) {
	switch uintptr(c.Nr) {
	case unix.SYS_SOCKET:
		s.socket(c)
	case unix.SYS_CONNECT:
		s.connect(c)
	case unix.SYS_BIND:
		s.bind(c)
	case unix.SYS_LISTEN:
		s.listen(c)
	default:
		if change, ok := changes()[uintptr(c.Nr)]; ok {
			c.answer(s.change(c, change))
			return
		}
		c.answer(unix.ENOSYS)
	}
}

// inWritable tells whether a path without links is where the sandbox may write.
func (s *Supervisor) inWritable(path string) bool {
	for _, dir := range s.writable {
		if path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") {
			return true
		}
	}
	return false
}

// open opens a path as the caller means it, without any access to what is there, and says where that really is.
// dir is the caller's descriptor for relative paths.
func (s *Supervisor) open(c *call, dir int, path string, flags uint64) (fd int, real string, err error) {
	if path == "" {
		return -1, "", unix.ENOENT
	}
	if number, ok := ownDescriptor(path); ok {
		return s.descriptor(c, number)
	}
	base := unix.AT_FDCWD
	if !filepath.IsAbs(path) {
		name := "cwd"
		if dir != unix.AT_FDCWD {
			name = fmt.Sprintf("fd/%d", dir)
		}
		if base, err = unix.Open(c.proc(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return -1, "", unix.EBADF
		}
		defer unix.Close(base)
		if !c.valid() {
			return -1, "", unix.ESRCH
		}
	}
	fd, err = unix.Openat2(base, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, "", err
	}
	return located(fd)
}

// descriptor opens what a descriptor of the caller's is.
func (s *Supervisor) descriptor(c *call, number int) (fd int, real string, err error) {
	fd, err = unix.Open(c.proc(fmt.Sprintf("fd/%d", number)), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", unix.EBADF
	}
	if !c.valid() {
		unix.Close(fd)
		return -1, "", unix.ESRCH
	}
	return located(fd)
}

func located(fd int) (int, string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(fdPath(fd), buf)
	if err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	return fd, string(buf[:n]), nil
}

// ownDescriptor tells paths by which C libraries name a descriptor of the caller's.
func ownDescriptor(path string) (int, bool) {
	for _, dir := range []string{"/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/"} {
		if rest, ok := strings.CutPrefix(path, dir); ok {
			var n int
			if _, err := fmt.Sscanf(rest+"\n", "%d\n", &n); err == nil && fmt.Sprint(n) == rest {
				return n, true
			}
		}
	}
	return 0, false
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
