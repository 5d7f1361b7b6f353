package gateway

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipesOpen is how many ends of pipes this process has.
func pipesOpen(t *testing.T) int {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

// TestPipesAreForWhatMoves: connections that wait have no pipes, streams that nobody reads have one each, and none is left in the end.
func TestPipesAreForWhatMoves(t *testing.T) {
	const conns = 30
	p := newPeer(t)
	before := pipesOpen(t)
	type pair struct{ client, server *net.TCPConn }
	var pairs []pair
	for range conns {
		client, server := p.pair()
		pairs = append(pairs, pair{client, server})
		for _, c := range [][2]net.Conn{{client, server}, {server, client}} {
			if _, err := io.WriteString(c[0], "hello"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c[1], make([]byte, len("hello"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "ends of pipes more than are kept", func() int { return pipesOpen(t) - before - 2*idlePipes })
	for _, pair := range pairs {
		if err := pair.server.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = pair.server.Write(make([]byte, 32<<20)) }()
	}
	time.Sleep(400 * time.Millisecond)
	if n := pipesOpen(t) - before; n > 2*(conns+idlePipes) {
		t.Errorf("%d ends of pipes for %d streams that stand still", n, conns)
	}
	p.g.Close()
	eventually(t, "ends of pipes", func() int { return pipesOpen(t) - before })
}

// TestStreamsPassWithoutPipes: when there are no descriptors left for pipes, what comes is copied.
func TestStreamsPassWithoutPipes(t *testing.T) {
	p := newPeer(t)
	client, server := p.pair()
	p.g.pipes.mu.Lock()
	for _, kept := range p.g.pipes.idle {
		kept.close()
	}
	p.g.pipes.idle = nil
	p.g.pipes.mu.Unlock()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // what is open stays open
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	data := noise(1, 1<<20)
	go func() { _, _ = server.Write(data); server.Close() }()
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
