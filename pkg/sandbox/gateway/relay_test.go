package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
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
