package sandbox

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// guardSlots in the file of guardLocks have the numbers of the workspaces whose sandboxes run, each with a lock of its own; 0 is in those that
// are free. A number in a slot that nobody has locked is that of a sandbox that was killed.
const (
	slotSize  = 8       // bytes, in which the number is
	firstSlot = 1 << 62 // where its lock is, and those of the others behind it
	mostSlots = 1 << 16
)

// slots are the numbers in all of them.
func (g *guardLock) slots() []int64 {
	data := make([]byte, 64*slotSize)
	n, _ := g.file.ReadAt(data, 0) // less is there, usually
	for n == len(data) && n < mostSlots*slotSize {
		data = append(data, make([]byte, len(data))...)
		n, _ = g.file.ReadAt(data, 0)
	}
	numbers := make([]int64, n/slotSize)
	for i := range numbers {
		numbers[i] = int64(binary.LittleEndian.Uint64(data[i*slotSize:]))
	}
	return numbers
}

// announce writes the number into a slot, that other sandboxes find this one.
func (g *guardLock) announce() error {
	for i, number := range append(g.slots(), 0, 0, 0, 0) {
		if number != 0 && number != g.number {
			continue
		}
		err := g.takeAt(firstSlot+int64(i), unix.F_WRLCK)
		if locked(err) {
			continue
		}
		if err != nil {
			return nil //nolint:nilerr // files cannot be locked here, and nobody knows of others
		}
		// It may be another one's by now.
		if now := g.slots(); i < len(now) && now[i] != 0 && now[i] != g.number {
			_ = g.takeAt(firstSlot+int64(i), unix.F_UNLCK)
			continue
		}
		g.slot = i + 1
		return g.writeSlot(i, g.number)
	}
	return g.announce() // several at the same time have taken what was free
}

func (g *guardLock) writeSlot(i int, number int64) error {
	_, err := g.file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(number)), int64(i)*slotSize)
	return err
}

// withdraw ends that.
func (g *guardLock) withdraw() {
	if g.slot > 0 {
		_ = g.writeSlot(g.slot-1, 0)
		_ = g.takeAt(firstSlot+int64(g.slot)-1, unix.F_UNLCK)
	}
	g.slot = 0
}

// running are the numbers of other workspaces whose sandboxes run, and of those whose sandboxes were killed.
func (g *guardLock) running() (running, killed []int64) {
	for i, number := range g.slots() {
		switch {
		case number == 0 || number == g.number:
		case g.isTaken(firstSlot + int64(i)):
			running = append(running, number)
		default:
			killed = append(killed, number)
		}
	}
	killed = slices.DeleteFunc(killed, func(number int64) bool { return slices.Contains(running, number) })
	return running, killed
}

// isTaken tells whether somebody else has a lock.
func (g *guardLock) isTaken(at int64) bool {
	for {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(g.file.Fd(), unix.F_OFD_GETLK, &lock); !errors.Is(err, unix.EINTR) {
			return err == nil && lock.Type != unix.F_UNLCK
		}
	}
}

// forget frees the slots of sandboxes of a workspace that were killed.
func (g *guardLock) forget(number int64) {
	for i, n := range g.slots() {
		if n != number || g.takeAt(firstSlot+int64(i), unix.F_WRLCK) != nil {
			continue
		}
		if now := g.slots(); i < len(now) && now[i] == number {
			_ = g.writeSlot(i, 0)
		}
		_ = g.takeAt(firstSlot+int64(i), unix.F_UNLCK)
	}
}
