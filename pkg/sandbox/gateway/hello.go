package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
)

// The first byte of a TLS record (RFC 8446, 5.1): change_cipher_spec, alert, handshake, application_data.
const recordFirst, recordHandshake, recordLast = 20, 22, 23

// maxHello bounds what a client may send before its server name is known.
const maxHello = 64 << 10

// looksLikeTLS tells whether a connection that begins with these two bytes may be TLS.
func looksLikeTLS(head []byte) bool {
	const majorVersion = 3
	return head[0] >= recordFirst && head[0] <= recordLast && head[1] == majorVersion
}

// readHello reads a TLS ClientHello, of which the first bytes may have been read before, and returns its bytes and
// the server name in it. crypto/tls does the parsing: the handshake is begun on what arrives and ended as soon as
// the hello is known.
func readHello(ctx context.Context, first []byte, conn net.Conn) (raw []byte, name string, err error) {
	tap := &helloTap{src: io.MultiReader(bytes.NewReader(first), conn)}
	seen := errors.New("seen")
	server := tls.Server(tap, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name = h.ServerName
			return nil, seen
		},
	})
	err = server.HandshakeContext(ctx)
	if errors.Is(err, seen) {
		return tap.raw.Bytes(), name, nil
	}
	if tap.raw.Len() > 0 && tap.raw.Bytes()[0] != recordHandshake {
		return nil, "", &refusedError{"not TLS"}
	}
	return nil, "", err
}

// helloTap is a connection that keeps what is read and swallows what is written.
type helloTap struct {
	net.Conn // nil: nothing but Read, Write and Close is used before the hello is known
	src      io.Reader
	raw      bytes.Buffer
}

func (t *helloTap) Read(p []byte) (int, error) {
	if t.raw.Len() >= maxHello {
		return 0, errors.New("TLS hello too long")
	}
	n, err := t.src.Read(p)
	t.raw.Write(p[:n])
	return n, err
}

func (t *helloTap) Write(p []byte) (int, error) { return len(p), nil }

// Close leaves the connection to its owner.
func (t *helloTap) Close() error { return nil }
