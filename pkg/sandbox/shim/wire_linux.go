package shim

import (
	"encoding/binary"
	"errors"
	"os"
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

// Encode is the plan as bytes for the shim's pipe.
func (p *Plan) Encode() []byte {
	w := &writer{b: make([]byte, 0, 16<<10)}
	write(w, p.Mounts, func(m Mount) {
		w.text(string(m.Kind))
		w.text(m.Path)
		w.text(m.Source)
		w.text(string(m.Data))
		w.uint(uint64(m.Mode))
		w.texts(m.Also)
		w.text(string(m.Blank))
	})
	w.bool(p.Home != nil)
	if h := p.Home; h != nil {
		w.text(h.Host)
		w.text(h.State)
		w.bool(h.Bare)
		w.bool(h.Shared)
		w.texts(h.Absent)
		write(w, h.Dirs, func(d DirMode) { w.text(d.Path); w.uint(uint64(d.Mode)) })
	}
	write(w, p.Ports, func(port int) { w.uint(uint64(port)) })
	w.bool(p.IPv6)
	w.texts(p.Args)
	w.text(p.Dir)
	w.texts(p.Env)
	w.bool(p.Terminal)
	w.bool(p.Strict)
	w.uint(uint64(p.Processes))
	w.bool(p.Confine != nil)
	if c := p.Confine; c != nil {
		write(w, c.Grants, func(g Grant) { w.text(g.Path); w.text(string(g.Access)) })
		w.text(c.Remove)
	}
	return w.b
}

// DecodePlan reads what Encode wrote.
func DecodePlan(data []byte) (*Plan, error) {
	r := &reader{b: data}
	p := &Plan{}
	p.Mounts = read(r, func() Mount {
		m := Mount{Kind: Kind(r.text()), Path: r.text(), Source: r.text()}
		if data := r.bytes(); len(data) > 0 {
			m.Data = data
		}
		m.Mode, m.Also, m.Blank = os.FileMode(r.uint()), r.texts(), Blank(r.text())
		return m
	})
	if r.bool() {
		p.Home = &Layers{Host: r.text(), State: r.text(), Bare: r.bool(), Shared: r.bool(), Absent: r.texts()}
		p.Home.Dirs = read(r, func() DirMode { return DirMode{r.text(), os.FileMode(r.uint())} })
	}
	p.Ports = read(r, func() int { return int(r.uint()) })
	p.IPv6 = r.bool()
	p.Args, p.Dir, p.Env = r.texts(), r.text(), r.texts()
	p.Terminal, p.Strict = r.bool(), r.bool()
	p.Processes = int(r.uint())
	if r.bool() {
		p.Confine = &Confine{Grants: read(r, func() Grant { return Grant{r.text(), Access(r.text())} }), Remove: r.text()}
	}
	return p, r.err()
}

func (m Message) encode() []byte {
	w := &writer{}
	w.bool(m.Listening)
	w.text(m.Notice)
	w.text(m.Failed)
	w.text(m.NoCommand)
	w.bool(m.Started)
	w.bool(m.Ended)
	w.bool(m.Alone)
	w.uint(uint64(m.Code))
	w.uint(uint64(m.Signal))
	return w.b
}

func decodeMessage(data []byte) (Message, error) {
	r := &reader{b: data}
	m := Message{
		Listening: r.bool(), Notice: r.text(), Failed: r.text(), NoCommand: r.text(),
		Started: r.bool(), Ended: r.bool(), Alone: r.bool(), Code: int(r.uint()), Signal: syscall.Signal(r.uint()),
	}
	return m, r.err()
}
