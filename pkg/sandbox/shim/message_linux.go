package shim

import (
	"encoding/json"
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// Message is what parent and shim tell each other, a packet each.
type Message struct {
	// From the shim. Listening comes with the descriptors.
	Listening bool   `json:",omitempty"`
	Notice    string `json:",omitempty"` // something that the user should know
	Failed    string `json:",omitempty"` // the sandbox could not be made
	NoCommand string `json:",omitempty"` // it was made, but the command cannot be executed
	Started   bool   `json:",omitempty"`
	Ended     bool   `json:",omitempty"`
	Code      int    `json:",omitempty"`
	// From the parent, to be sent to the command; from the shim, what ended it.
	Signal syscall.Signal `json:",omitempty"`
}

// Send writes one packet, with descriptors if there are any.
func Send(socket int, m Message, fds []int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return ignoringEINTR(func() error { return unix.Sendmsg(socket, data, oob, nil, unix.MSG_NOSIGNAL) })
}

// MaxListeners bounds the descriptors in one Message (SCM_MAX_FD of the kernel).
const MaxListeners = 253

// Receive reads one packet; its error is io.EOF when the other side is gone.
func Receive(socket int) (Message, []int, error) {
	var m Message
	data, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*MaxListeners))
	var n, oobn int
	err := ignoringEINTR(func() (err error) {
		n, oobn, _, _, err = unix.Recvmsg(socket, data, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return m, nil, err
	}
	if n == 0 {
		return m, nil, io.EOF
	}
	var fds []int
	if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, c := range cmsgs {
			if got, err := unix.ParseUnixRights(&c); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	return m, fds, json.Unmarshal(data[:n], &m)
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
