package asker

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// self is what this test's program calls itself.
func self(t *testing.T) string {
	t.Helper()
	name := Name(os.Getpid())
	if name == "" {
		t.Fatal("this process has no name")
	}
	return name
}

func TestProgramOfASocket(t *testing.T) {
	var space syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/pid", &space); err != nil {
		t.Fatal(err)
	}
	f := NewFinder(os.Getpid(), space.Ino)
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from, to := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
		if got := f.Program("tcp", from, to); got != self(t) {
			t.Errorf("%v to %v: %q", from, to, got)
		}
		if got := f.Program("tcp", from, netip.AddrPortFrom(to.Addr(), 1)); got != "" {
			t.Errorf("a socket that is connected elsewhere: %q", got)
		}
	}
	udp, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	from := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), netip.MustParseAddrPort(udp.LocalAddr().String()).Port())
	if got := f.Program("udp", from, netip.AddrPort{}); got != self(t) {
		t.Errorf("a UDP socket that is bound to no address: %q", got)
	}
	// However much a sandbox gets refused, only so much is looked at in each second.
	f.since, f.left = time.Now().Add(time.Hour), 0
	if got := f.Program("udp", from, netip.AddrPort{}); got != "" {
		t.Errorf("looked although nothing was left: %q", got)
	}
	f.since = time.Now().Add(-2 * time.Second)
	if got := f.Program("udp", from, netip.AddrPort{}); got != self(t) {
		t.Errorf("a second later: %q", got)
	}
}

// A process that has the number of one that is gone must not be named for it.
func TestHolderHasTheSocket(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if got := Holder(os.Getpid(), st.Ino); got != self(t) {
		t.Errorf("with the socket: %q", got)
	}
	if got := Holder(os.Getppid(), st.Ino); got != "" {
		t.Errorf("another process: %q", got)
	}
	unix.Close(fd)
	if got := Holder(os.Getpid(), st.Ino); got != "" {
		t.Errorf("without it: %q", got)
	}
}
