package supervisor

import (
	"encoding/binary"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// The GNU C library asks a daemon for names before it asks a name server, and is content with whoever answers at this
// path (nscd-client.h). So programs find our names that were started without the variables of ours that send them to the name server by TCP.
const (
	nameDaemonPath    = "/var/run/nscd/socket"
	nameDaemonVersion = 2
	requestAddresses  = 14 // GETAI
	hostNotFound      = 1
)

// maxLookups bounds the questions at once, lookupTimeout the time for one.
const (
	maxLookups    = 256
	lookupTimeout = 5 * time.Second
)

// nameDaemon makes a connection to what answers like that daemon.
func (s *Supervisor) nameDaemon(c *call) (int, error) {
	select {
	case s.lookups <- struct{}{}:
	default:
		return -1, unix.ECONNREFUSED
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		<-s.lookups
		return -1, err
	}
	by := c.holderOf(pair[1])
	go func() {
		defer func() { <-s.lookups }()
		ours := os.NewFile(uintptr(pair[0]), "name daemon")
		defer ours.Close()
		if ours.SetDeadline(time.Now().Add(lookupTimeout)) == nil {
			s.answerName(ours, by)
		}
	}()
	return pair[1], nil
}

// answerName answers one question. Those for anything but a name's addresses have no answer: the C library then looks itself.
func (s *Supervisor) answerName(conn io.ReadWriter, by gateway.Asker) {
	var head [12]byte // version, type, length of what follows
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return
	}
	const longest = 256
	size := int32At(head[:], 8)
	if int32At(head[:], 0) != nameDaemonVersion || int32At(head[:], 4) != requestAddresses || size < 1 || size > longest {
		return
	}
	name := make([]byte, size)
	if _, err := io.ReadFull(conn, name); err != nil {
		return
	}
	text, _, _ := strings.Cut(string(name), "\x00")
	// version, found, addresses, their bytes, bytes of the canonical name, error
	reply := []int32{nameDaemonVersion, 0, 0, 0, 0, hostNotFound}
	var rest []byte
	if addr, ok := s.capture.Resolve(text, by); ok {
		ip := addr.As4()
		rest = append(append(ip[:], unix.AF_INET), text+"\x00"...)
		reply = []int32{nameDaemonVersion, 1, 1, int32(len(ip)), int32(len(text) + 1), 0}
	}
	var out []byte
	for _, n := range reply {
		out = binary.NativeEndian.AppendUint32(out, uint32(n))
	}
	_, _ = conn.Write(append(out, rest...)) // who asked may be gone
}
