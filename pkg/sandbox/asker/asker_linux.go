// Package asker finds out which program of a sandbox asked for something that was refused. It looks from outside, in
// /proc, and only after a refusal. What it finds is a help for whoever reads of the refusal and nothing more: a program
// can call itself what it likes, and may be gone by then.
package asker

import (
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Finder finds programs of a sandbox that has a process namespace and a network namespace of its own.
type Finder struct {
	first int    // the process id of the sandbox's first process, as the host has it
	space string // its process namespace, as /proc shows it

	mu    sync.Mutex
	since time.Time // when the current second began
	left  looks     // for that second
}

// looks are how many files of /proc may still be looked at, each of which takes a few microseconds. The sandbox decides how many there
// are, and how often they are gone through.
type looks int

func (l *looks) take() bool {
	*l--
	return *l >= 0
}

// perSecond keeps the looking below a tenth of the time of one processor or so.
const perSecond looks = 30_000

// NewFinder makes the finder for a sandbox by its first process and the inode number of the process namespace, which /proc does not tell of a
// process that cannot be traced.
func NewFinder(first int, space uint64) *Finder {
	return &Finder{first: first, space: fmt.Sprintf("pid:[%d]", space)}
}

// Program is the name of the program that has the socket of a network ("tcp" or "udp") whose own address is from, and that is connected
// to an address, unless that is the zero value. It is "" where none is found, or too much was looked at already.
func (f *Finder) Program(network string, from, to netip.AddrPort) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.since) > time.Second {
		f.since, f.left = now, perSecond
	}
	inode := f.socket(network, from, to)
	if inode == 0 {
		return ""
	}
	return f.holder(inode)
}

// socket is the inode of a socket, 0 if there is none.
func (f *Finder) socket(network string, from, to netip.AddrPort) uint64 {
	for _, file := range []string{network, network + "6"} {
		if f.left <= 0 {
			return 0
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", f.first, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			f.left.take() // the file is there already
			const localField, remoteField, inodeField = 1, 2, 9
			fields := strings.Fields(line)
			if len(fields) <= inodeField {
				continue
			}
			local, ok := address(fields[localField])
			if !ok || local.Port() != from.Port() || local.Addr() != from.Addr() && !local.Addr().IsUnspecified() {
				continue
			}
			if remote, ok := address(fields[remoteField]); to.IsValid() && (!ok || remote != to) {
				continue
			}
			if inode, err := strconv.ParseUint(fields[inodeField], 10, 64); err == nil && inode != 0 {
				return inode
			}
		}
	}
	return 0
}

// address reads "0100007F:1F90" and its longer form for IPv6: words in the machine's order, which is little-endian wherever
// this runs, and the port.
func address(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	data, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(data, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(data)
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), ok && err == nil
}

// holder is the name of the newest program of the sandbox that has a socket open.
func (f *Finder) holder(inode uint64) string {
	var inside []int
	for name := range entries("/proc") {
		pid, err := strconv.Atoi(name)
		if err != nil || !f.left.take() {
			continue
		}
		if s, err := os.Readlink("/proc/" + name + "/ns/pid"); err == nil && s == f.space {
			inside = append(inside, pid)
		}
	}
	slices.Sort(inside)
	for _, pid := range slices.Backward(inside) {
		if f.left <= 0 {
			break
		}
		if holds(pid, inode, &f.left) {
			return Name(pid)
		}
	}
	return ""
}

// Holder is the name of a program if it has a socket open; else "". The process may be named by the id of one of its threads.
func Holder(pid int, inode uint64) string {
	left := perSecond
	if !holds(pid, inode, &left) {
		return ""
	}
	return Name(pid)
}

func holds(pid int, inode uint64, left *looks) bool {
	dir, want := fmt.Sprintf("/proc/%d/fd/", pid), fmt.Sprintf("socket:[%d]", inode)
	for fd := range entries(dir) {
		if !left.take() {
			return false
		}
		if link, err := os.Readlink(dir + fd); err == nil && link == want {
			return true
		}
	}
	return false
}

// entries are the names in a directory of /proc, as far as they can be read. They are read in pieces: a process may have a million files open.
func entries(dir string) iter.Seq[string] {
	return func(yield func(string) bool) {
		d, err := os.Open(dir)
		if err != nil {
			return
		}
		defer d.Close()
		for err == nil { // or it is the end
			const piece = 256
			var names []string
			names, err = d.Readdirnames(piece)
			for _, name := range names {
				if !yield(name) {
					return
				}
			}
		}
	}
}

// Name is what the program of a process calls itself, as `ps` shows it, "" if there is no such process. The process may be
// named by the id of one of its threads. The name is the sandbox's to choose: it may have any bytes in it.
func Name(pid int) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(status), "\nTgid:")
	leader, _, _ := strings.Cut(rest, "\n")
	comm, err := os.ReadFile("/proc/" + strings.TrimSpace(leader) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(comm), "\n")
}
