package gateway

import (
	"errors"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// replyFrom turns the packet info of a question into that of its answer: sent from the address that was asked.
func replyFrom(oob []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			info := *(*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0]))
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: info.Addr})
		}
	}
	return nil
}

// isFull tells errors of accept that pass when other connections end.
func isFull(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}

// Unpace has a TCP socket, and those that a listener accepts, send what they have when they have it, whatever congestion
// control the host has: BBR sends by the clock, which costs most of the time where the way is this machine's memory. It must
// be called before there is a connection, for one that was BBR's stays paced. Reno may be had by everybody everywhere; if not, it is only slower.
func Unpace(fd int) { _ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") }

// unpaceListener does so for what it accepts.
func unpaceListener(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { Unpace(int(fd)) }) // closed: there will be no connections
	}
}

// descriptorLimit is how many descriptors this process may have, and will when there are connections.
func descriptorLimit() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return int(min(r.Max, 1<<20))
}
