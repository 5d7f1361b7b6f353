package shim

import (
	"encoding/binary"
	"errors"
	"syscall"
)

// Plans and messages travel between two processes of the same build, once for each sandbox. Reflection would be
// a good part of a sandbox's start: building its tables takes longer than what is sent.

var errWire = errors.New("malformed message between parent and shim")

// writer appends values to a buffer; reader takes them out in the same order.
type writer struct{ b []byte }

func (w *writer) uint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) text(s string) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bool(v bool) {
	if v {
		w.uint(1)
	} else {
		w.uint(0)
	}
}

func (w *writer) texts(list []string) { write(w, list, w.text) }

func write[T any](w *writer, list []T, item func(T)) {
	w.uint(uint64(len(list)))
	for _, v := range list {
		item(v)
	}
}

// reader is a writer's counterpart. After bytes that no writer made, bad is set and all values are empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bool() bool { return r.uint() != 0 }

func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.bytes()) }

func (r *reader) texts() []string { return read(r, r.text) }

func read[T any](r *reader, item func() T) []T {
	n := r.uint()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.bad, r.b = true, nil
	}
	if n == 0 || r.bad {
		return nil
	}
	list := make([]T, 0, n)
	for range n {
		list = append(list, item())
	}
	return list
}

func (r *reader) err() error {
	if r.bad || len(r.b) > 0 {
		return errWire
	}
	return nil
}

// Encode is the plan as bytes for the keeper's pipe, without what only namespaces have.
func (p *Plan) Encode() []byte {
	w := &writer{b: make([]byte, 0, 16<<10)}
	w.texts(p.Args)
	w.text(p.Dir)
	w.texts(p.Env)
	w.bool(p.Terminal)
	w.bool(p.Strict)
	w.uint(uint64(p.Processes))
	write(w, p.Confine.Grants, func(g Grant) { w.text(g.Path); w.text(string(g.Access)) })
	w.text(p.Confine.Remove)
	return w.b
}

// DecodePlan reads what Encode wrote.
func DecodePlan(data []byte) (*Plan, error) {
	r := &reader{b: data}
	p := &Plan{Args: r.texts(), Dir: r.text(), Env: r.texts(), Terminal: r.bool(), Strict: r.bool(), Processes: int(r.uint())}
	p.Confine = &Confine{Grants: read(r, func() Grant { return Grant{r.text(), Access(r.text())} }), Remove: r.text()}
	return p, r.err()
}

// Packet is the message as it is sent.
func (m Message) Packet() []byte {
	w := &writer{}
	w.bool(m.Listening)
	w.bool(m.Home)
	w.text(m.Notice)
	w.text(m.Failed)
	w.uint(uint64(m.Errno))
	w.bool(m.Changed)
	w.text(m.NoCommand)
	w.bool(m.Started)
	w.bool(m.Ended)
	w.bool(m.Alone)
	w.uint(uint64(m.Code))
	w.uint(uint64(m.Signal))
	return w.b
}

// ParseMessage is the opposite of Packet.
func ParseMessage(data []byte) (Message, error) {
	r := &reader{b: data}
	m := Message{
		Listening: r.bool(), Home: r.bool(), Notice: r.text(), Failed: r.text(), Errno: syscall.Errno(r.uint()), Changed: r.bool(), NoCommand: r.text(),
		Started: r.bool(), Ended: r.bool(), Alone: r.bool(), Code: int(r.uint()), Signal: syscall.Signal(r.uint()),
	}
	return m, r.err()
}
