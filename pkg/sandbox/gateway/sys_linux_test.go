package gateway

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConnectionsAreNotPaced: the host may pace its own.
func TestConnectionsAreNotPaced(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string)
	go func() {
		_ = acceptEach(l, func(conn net.Conn) error {
			defer conn.Close()
			got <- congestion(t, conn)
			return nil
		})
	}()
	for _, first := range []bool{true, false} { // one that came before acceptEach did may be anything
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if congestion(t, c) == "reno" {
			t.Skip("it is the host's as well")
		}
		if name := <-got; !first && name != "reno" {
			t.Errorf("congestion control %q", name)
		}
	}
}

func congestion(t *testing.T, c net.Conn) string {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	if controlErr := raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	return name
}
