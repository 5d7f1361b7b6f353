package gateway

import (
	"bytes"
	"io"
)

// keyless is a body in which the key does not stand, though it may be what the service sends: the placeholder stands there. Nothing is
// held back for that but what is more of the key than it has in common with the placeholder.
type keyless struct {
	io.ReadCloser
	key, standIn []byte // of one length
	common       int    // how much of them is the same

	seen  int    // how much of the key stands at the end of what was read
	ready []byte // what is to be given before more is read
	err   error  // what comes after that
}

func newKeyless(body io.ReadCloser, key, placeholder string) *keyless {
	k := &keyless{ReadCloser: body, key: []byte(key), standIn: bytes.Repeat([]byte{'x'}, len(key))}
	copy(k.standIn, placeholder)
	for k.common < len(key) && k.key[k.common] == k.standIn[k.common] {
		k.common++
	}
	return k
}

func (k *keyless) Read(p []byte) (int, error) {
	for {
		if len(k.ready) > 0 || k.err != nil {
			n := copy(p, k.ready)
			if k.ready = k.ready[n:]; len(k.ready) > 0 {
				return n, nil
			}
			return n, k.err
		}
		n, err := k.ReadCloser.Read(p)
		given := k.given()
		if k.seen > 0 { // it may go on
			k.ready = append(append([]byte(nil), k.key[:k.seen]...), p[:n]...)
			k.hide(k.ready)
			k.ready = k.ready[given : len(k.ready)-k.held(err)]
			k.err = err
			continue
		}
		k.hide(p[:n])
		if held := k.held(err); held > 0 {
			n -= held
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// hide puts the placeholder in the key's place, and notes how much of the key there is at the end.
func (k *keyless) hide(p []byte) {
	for at := 0; ; {
		i := bytes.Index(p[at:], k.key)
		if i < 0 {
			break
		}
		at += i + copy(p[at+i:], k.standIn)
	}
	for k.seen = min(len(k.key)-1, len(p)); k.seen > 0 && !bytes.HasSuffix(p, k.key[:k.seen]); {
		k.seen--
	}
}

// given is how much was given away of the key that may be beginning.
func (k *keyless) given() int { return min(k.seen, k.common) }

// held is how much of it was not. At the end of the body it was not the key.
func (k *keyless) held(err error) int {
	if err != nil {
		k.seen = 0
		return 0
	}
	return k.seen - k.given()
}
