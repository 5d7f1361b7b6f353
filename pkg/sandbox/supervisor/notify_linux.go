package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/asker"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// notification is struct seccomp_notif: a call that waits for an answer. Its arguments were copied by the kernel;
// what they point to is the caller's memory, which may change at any moment.
type notification struct {
	ID    uint64
	PID   uint32 // of the thread
	Flags uint32
	Nr    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	ID    uint64
	Value int64
	Errno int32 // negative
	Flags uint32
}

// addition is struct seccomp_notif_addfd.
type addition struct {
	ID       uint64
	Flags    uint32
	Source   uint32
	New      uint32
	NewFlags uint32
}

// call is a notification that is being worked on.
type call struct {
	notification
	listener int
}

// ioctl makes a request of the listener, again if a signal interrupts it: the runtime sends its threads many.
func ioctl(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno == 0 {
			return int(r), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// respond ends the call. A caller that has died meanwhile needs no response.
func (c *call) respond(r response) {
	r.ID = c.ID
	_, _ = ioctl(c.listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// asker names the program that waits for an answer to the call.
func (c *call) asker() gateway.Asker {
	return func() string { return asker.Name(int(c.PID)) }
}

// holderOf names the caller's program later, as long as it has the socket that is ours now.
func (c *call) holderOf(fd int) gateway.Asker {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return nil
	}
	return func() string { return asker.Holder(int(c.PID), st.Ino) }
}

// answer ends the call with 0, or with an error number.
func (c *call) answer(err error) {
	if err != nil {
		c.respond(response{Errno: -int32(errnoOf(err))})
		return
	}
	c.respond(response{})
}

// replace puts our descriptor in the place of the caller's and ends the call with 0.
func (c *call) replace(fd, with int, flags uint32) {
	_, err := c.add(addition{Flags: unix.SECCOMP_ADDFD_FLAG_SETFD, Source: uint32(with), New: uint32(fd), NewFlags: flags})
	c.answer(err)
}

// give adds our descriptor to the caller's and ends the call with its number.
func (c *call) give(fd int, flags uint32) {
	number, err := c.add(addition{Source: uint32(fd), NewFlags: flags})
	if err != nil {
		c.answer(err)
		return
	}
	c.respond(response{Value: int64(number)})
}

// add does not have the kernel respond in the same step (SECCOMP_ADDFD_FLAG_SEND): interrupted by a signal, that
// ends the call with 0 and no descriptor.
func (c *call) add(a addition) (int, error) {
	a.ID = c.ID
	return ioctl(c.listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
}

// valid tells whether the caller still waits: what was opened of its process before is then its own.
func (c *call) valid() bool {
	_, err := ioctl(c.listener, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&c.ID))
	return err == nil
}

func (c *call) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", c.PID, name) }

// read copies the caller's memory, once. Fewer bytes than asked for are no error.
func (c *call) read(addr uint64, n int) ([]byte, error) {
	fd, err := unix.Open(c.proc("mem"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, unix.EACCES
	}
	defer unix.Close(fd)
	if !c.valid() {
		return nil, unix.ESRCH
	}
	data := make([]byte, n)
	got, err := unix.Pread(fd, data, int64(addr))
	if err != nil || got == 0 {
		return nil, unix.EFAULT
	}
	return data[:got], nil
}

// readAll is read where everything is needed.
func (c *call) readAll(addr uint64, n int) ([]byte, error) {
	data, err := c.read(addr, n)
	if err == nil && len(data) < n {
		err = unix.EFAULT
	}
	return data, err
}

// text reads a path.
func (c *call) text(addr uint64) (string, error) {
	// Up to the end of its page first: what follows may not be mapped.
	page := uint64(os.Getpagesize())
	data, err := c.read(addr, int(min(page-addr%page, unix.PathMax)))
	if err != nil {
		return "", err
	}
	if s, _, ok := strings.Cut(string(data), "\x00"); ok {
		return s, nil
	}
	if len(data) < unix.PathMax {
		more, err := c.read(addr+uint64(len(data)), unix.PathMax-len(data))
		if err != nil {
			return "", err
		}
		if s, _, ok := strings.Cut(string(append(data, more...)), "\x00"); ok {
			return s, nil
		}
	}
	return "", unix.ENAMETOOLONG
}

// socketOf is the inode of the socket that a descriptor of the caller's is.
func (c *call) socketOf(fd int) (uint64, error) {
	link, err := os.Readlink(c.proc("fd/" + strconv.Itoa(fd)))
	if err != nil {
		return 0, unix.EBADF
	}
	number, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, unix.ENOTSOCK
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	if err != nil {
		return 0, unix.ENOTSOCK
	}
	return inode, nil
}

// descriptorFlags are the flags of open of a descriptor of the caller's.
func (c *call) descriptorFlags(fd int) (int, error) {
	value, err := c.field("fdinfo/"+strconv.Itoa(fd), "flags:", 8)
	return int(value), err
}

// field reads a number from a file of the caller's in /proc.
func (c *call) field(file, name string, base int) (uint64, error) {
	data, err := os.ReadFile(c.proc(file))
	if err != nil {
		return 0, unix.EBADF
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseUint(strings.TrimSpace(value), base, 64)
		}
	}
	return 0, unix.EBADF
}

func errnoOf(err error) unix.Errno {
	if errno, ok := errors.AsType[unix.Errno](err); ok && errno != 0 {
		return errno
	}
	return unix.EACCES
}

func int32At(data []byte, i int) int32 { return int32(binary.NativeEndian.Uint32(data[i:])) }

func int64At(data []byte, i int) int64 { return int64(binary.NativeEndian.Uint64(data[i:])) }
