package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer is a world whose only host is a server of TCP that the test plays, and that may speak as it likes.
type peer struct {
	*world
	accepted chan *net.TCPConn
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{accepted: make(chan *net.TCPConn, 1)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted <- c.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() { l.Close() })
	p.world = newWorld(t, func(ctx context.Context, _ string, _ int, _ func(netip.Addr) error) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	}, "peer.example:9")
	return p
}

// pair is the program inside and the server, connected by the gateway.
func (p *peer) pair() (client, server *net.TCPConn) {
	p.t.Helper()
	addr, _ := p.lookup("peer.example")
	client, server = p.connect(addr, 9), <-p.accepted
	p.t.Cleanup(func() { server.Close() })
	if err := server.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	return client, server
}

// noise is different for each seed, and nothing in it comes twice.
func noise(seed byte, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data) // it never fails
	return data
}

// TestBulkBothWays: each side gets what the other sent, also what it sends after it was told that no more comes.
func TestBulkBothWays(t *testing.T) {
	const size = 32<<20 + 12345 // no multiple of any buffer
	client, server := newPeer(t).pair()
	up, down, last := noise(1, size), noise(2, size), noise(3, size)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := client.Write(up); err != nil {
			t.Error(err)
		}
		if err := client.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if _, err := server.Write(down); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		got, err := io.ReadAll(server)
		if err != nil || sha256.Sum256(got) != sha256.Sum256(up) {
			t.Errorf("the server got %d of %d bytes, %v", len(got), len(up), err)
		}
		wg.Go(func() {
			if _, err := server.Write(last); err != nil {
				t.Error(err)
			}
			server.Close()
		})
	})
	got, err := io.ReadAll(client)
	if err != nil || len(got) != 2*size || !bytes.Equal(got[:size], down) || !bytes.Equal(got[size:], last) {
		t.Errorf("the client got %d of %d bytes, %v", len(got), 2*size, err)
	}
	wg.Wait()
}

// TestSmallMessagesPassAtOnce: on a connection on which much went by, and beside one on which much does, nothing waits for more.
func TestSmallMessagesPassAtOnce(t *testing.T) {
	p := newPeer(t)
	busyClient, busyServer := p.pair()
	go func() {
		block := make([]byte, 1<<20)
		for {
			if _, err := busyServer.Write(block); err != nil {
				return
			}
		}
	}()
	go func() { _, _ = io.Copy(io.Discard, busyClient) }()

	client, server := p.pair()
	exchange := func(from, to net.Conn, message []byte) {
		t.Helper()
		if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = from.Write(message) }() // what is lost is missed by the reader
		got := make([]byte, len(message))
		if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("of %d bytes: %v", len(message), err)
		}
	}
	for i, size := range []int{1, 2, 1000, 8<<20 + 1, 1, 1, 300_001, 1} {
		exchange(server, client, noise(byte(i), size))
		exchange(client, server, noise(byte(i+100), size))
	}
}

// TestPeersThatVanish: whoever goes away, and whatever waits for whom then, nothing is left of the connection, and to who
// reads on the other side it does not look like the stream's good end.
func TestPeersThatVanish(t *testing.T) {
	ends := []struct {
		name     string
		up, down bool // who sends as much as goes
		end      func(p *peer, client, server *net.TCPConn)
	}{
		{"client in an upload", true, false, func(_ *peer, client, _ *net.TCPConn) { reset(client) }},
		{"client in a download", false, true, func(_ *peer, client, _ *net.TCPConn) { reset(client) }},
		{"server in an upload", true, false, func(_ *peer, _, server *net.TCPConn) { reset(server) }},
		{"server in a download", false, true, func(_ *peer, _, server *net.TCPConn) { reset(server) }},
		{"gateway in an upload", true, false, func(p *peer, _, _ *net.TCPConn) { p.g.Close() }},
		{"gateway in a download", false, true, func(p *peer, _, _ *net.TCPConn) { p.g.Close() }},
		{"gateway in both", true, true, func(p *peer, _, _ *net.TCPConn) { p.g.Close() }},
		{"gateway between the silent", false, false, func(p *peer, _, _ *net.TCPConn) { p.g.Close() }},
	}
	for _, end := range ends {
		t.Run(end.name, func(t *testing.T) {
			p := newPeer(t)
			before := runtime.NumGoroutine()
			client, server := p.pair()
			var wg sync.WaitGroup
			flood := func(from, to net.Conn) {
				wg.Go(func() {
					for block := make([]byte, 1<<20); ; {
						if _, err := from.Write(block); err != nil {
							return
						}
					}
				})
				if _, err := io.CopyN(io.Discard, to, 8<<20); err != nil {
					t.Fatal(err)
				}
			}
			if end.up {
				flood(client, server)
			}
			if end.down {
				flood(server, client)
			}
			time.Sleep(100 * time.Millisecond) // nobody reads: all that is on the way stands still
			end.end(p, client, server)
			left := func() int { return runtime.NumGoroutine() - before }
			if strings.HasPrefix(end.name, "gateway") {
				eventually(t, "goroutines", left) // although nobody reads
			}
			reader := client
			if end.up {
				reader = server
			}
			// Who sends as well is told when it does.
			if _, err := io.Copy(io.Discard, reader); end.up != end.down && err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the other side saw a good end, or none: %v", err)
			}
			wg.Wait()
			eventually(t, "goroutines", left)
		})
	}
}

// eventually waits until no more of something is left.
func eventually(t *testing.T, what string, left func() int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for left() > 0 {
		if time.Now().After(deadline) {
			t.Errorf("%d %s are left", left(), what)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
