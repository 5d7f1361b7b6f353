package gateway

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"testing"
	"time"
)

// hello is what a client sends first that wants name.
func hello(t *testing.T, config *tls.Config) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() { _ = tls.Client(theirs, config).HandshakeContext(t.Context()); theirs.Close() }()
	if err := ours.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// records cuts a handshake record into records of a few bytes.
func records(record []byte, size int) []byte {
	var out []byte
	for body := record[5:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(append(out, record[0], record[1], record[2], 0, byte(n)), body[:n]...)
		body = body[n:]
	}
	return out
}

// However a client cuts its first words, and however old its TLS is, the server name in them is found.
func TestServerNameInPieces(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, NextProtos: []string{"h2", "example.com"}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that end at once
	s.StartTLS()
	defer s.Close()
	w := newWorld(t, toServer(s, public), "example.com")
	addr, _ := w.lookup("example.com")
	old := &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}
	for name, c := range map[string]struct {
		config *tls.Config
		record int // bytes of a record, 0 for all in one
		pause  bool
	}{
		"whole":                    {&tls.Config{}, 0, false},
		"byte by byte":             {&tls.Config{}, 0, true},
		"in records":               {&tls.Config{}, 7, false},
		"in records of one byte":   {&tls.Config{}, 1, false},
		"in records, byte by byte": {&tls.Config{}, 50, true},
		"TLS 1.0":                  {old, 0, false},
		"TLS 1.0 in records":       {old, 7, false},
		"the right name elsewhere": {&tls.Config{NextProtos: []string{"example.com", "h2"}}, 9, false},
	} {
		t.Run(name, func(t *testing.T) {
			// answered tells whether the server answers with words of a handshake.
			answered := func(sni string, conn net.Conn) bool {
				config := c.config.Clone()
				config.InsecureSkipVerify, config.ServerName = true, sni
				words := hello(t, config)
				if c.record > 0 {
					words = records(words, c.record)
				}
				step := len(words)
				if c.pause {
					step = 1
				}
				for len(words) > 0 {
					n := min(step, len(words))
					if _, err := conn.Write(words[:n]); err != nil {
						return false
					}
					words = words[n:]
				}
				first := make([]byte, 1)
				_, err := io.ReadFull(conn, first)
				return err == nil && first[0] == recordHandshake
			}
			direct, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer direct.Close()
			if !answered("evil.com", direct) {
				t.Error("the attack fails without the gateway, too")
			}
			if answered("evil.com", w.connect(addr, 443)) {
				t.Error("another server name got through")
			}
			if !answered("example.com", w.connect(addr, 443)) {
				t.Error("the right server name did not get through")
			}
		})
	}
}
