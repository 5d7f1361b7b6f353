package shim

import (
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// Message is what parent and shim tell each other, a packet each.
type Message struct {
	// From the shim. Listening comes with the descriptors; so does Home, which waits for what is kept of a home in memory.
	Listening bool
	Home      bool
	Notice    string        // something that the user should know
	Failed    string        // the sandbox could not be made
	Errno     syscall.Errno // why, or 0
	Changed   bool          // because something of the host is not what it was when the plan was made
	NoCommand string        // it was made, but the command cannot be executed
	Started   bool
	Ended     bool
	Alone     bool // with Ended: no other process of the sandbox is left
	Code      int
	// From the parent, to be sent to the command; from the shim, what ended it.
	Signal syscall.Signal
}

// Send writes one message, with descriptors if there are any.
func Send(socket int, m Message, fds []int) error { return SendPacket(socket, m.Packet(), fds) }

// SendPacket writes one packet, likewise.
func SendPacket(socket int, packet []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return ignoringEINTR(func() error { return unix.Sendmsg(socket, packet, oob, nil, unix.MSG_NOSIGNAL) })
}

// MaxListeners bounds the descriptors in one packet (SCM_MAX_FD of the kernel).
const MaxListeners = 253

// MaxPorts bounds a plan's ports: each has a listener for each of two families, and six sockets go beside those.
const MaxPorts = 120

// MaxPacket bounds what keepers and shims say at once, in bytes.
const MaxPacket = 64 << 10

// ReceivePacket reads one packet, of which it returns so many bytes at most; its error is io.EOF when the other side is gone.
func ReceivePacket(socket, most int) ([]byte, []int, error) {
	packet, oob := make([]byte, most), make([]byte, unix.CmsgSpace(4*MaxListeners))
	var n, oobn int
	err := ignoringEINTR(func() (err error) {
		n, oobn, _, _, err = unix.Recvmsg(socket, packet, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.ECONNRESET) { // said once, when the other side has not read all: what it said itself is still there
			n, oobn, _, _, err = unix.Recvmsg(socket, packet, oob, unix.MSG_CMSG_CLOEXEC)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if n == 0 {
		return nil, nil, io.EOF
	}
	var fds []int
	if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, c := range cmsgs {
			if got, err := unix.ParseUnixRights(&c); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	return packet[:n], fds, nil
}

// receive reads one message.
func receive(socket int) (Message, error) {
	packet, _, err := ReceivePacket(socket, MaxPacket)
	if err != nil {
		return Message{}, err
	}
	return ParseMessage(packet)
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
