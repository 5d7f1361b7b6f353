package first

import (
	"syscall"
	"unsafe"
)

// Script is a list of system calls for the first process of a sandbox, and what they point to. It decides nothing that cannot
// be said by "after this error go on there": whoever writes it knows the host and the policy, the first process neither.
type Script struct {
	steps []step
	data  []byte
	about []string // by step, for errors
	topic string
	slots int
}

// step is one system call, or one of the calls below. It is read as it lies in memory.
type step struct {
	call  uint32
	kinds uint32 // how each argument is meant: four bits for each, a kind
	args  [6]uint64
	out   uint32    // the slot for the result, 0 for none
	other uint32    // the step to go on with after an error that is spared, 0 for the next one
	spare [4]uint16 // those errors
}

// How an argument is meant.
const (
	kindValue = iota
	kindData  // an offset in the script's data
	kindSlot  // the number of a slot
)

// Calls that the kernel does not know.
const (
	callPoke      = 1<<20 + iota // writes the slot args[1] into the data at args[0], as 32 bits
	callRelocate                 // makes addresses of args[1] offsets in the data, which stand at args[0]
	callPath                     // appends the path of the descriptor in slot args[1] to the text at args[0], after a colon
	callCheck                    // fails with the error whose negative stands at args[0], as netlink answers
	callJump                     // goes on with step args[0]
	callStart                    // starts the command with step args[0]; the first process goes on with the next one
	callNoCommand                // fails because none of the calls of execve before it worked
)

// Arg is an argument of a step.
type Arg struct {
	kind  uint32
	value uint64
}

// Slot is where a step leaves its result, most often a descriptor, for others.
type Slot uint32

// Value is an argument as it is.
func Value[T ~int | ~uint | ~int32 | ~uint32 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{kindValue, uint64(v)}
}

// In is an argument that an earlier step leaves in a slot.
func In(s Slot) Arg { return Arg{kindSlot, uint64(s)} }

// Label is a step of a script that others go on with.
type Label struct {
	at    int // 0 as long as it is not known
	users []int
}

// NewScript makes an empty one, which uses slots from a number on: what an earlier one left in others stays.
func NewScript(slots Slot) *Script {
	return &Script{steps: make([]step, 0, 512), data: make([]byte, 8, 16<<10), slots: int(slots)}
}

// Topic says what the following steps are about, for errors.
func (s *Script) Topic(text string) { s.topic = text }

// NewSlot is a slot that no other step uses.
func (s *Script) NewSlot() Slot {
	s.slots++
	return Slot(s.slots)
}

// LastSlot is the last one that is in use.
func (s *Script) LastSlot() Slot { return Slot(s.slots) }

// Text is a string as C has it, at an address.
func (s *Script) Text(text string) Arg {
	at := len(s.data)
	s.data = append(append(s.data, text...), 0)
	return Arg{kindData, uint64(at)}
}

// Data is bytes at an address, which is good for whatever the kernel reads there.
func (s *Script) Data(b []byte) Arg {
	for len(s.data)%8 != 0 {
		s.data = append(s.data, 0)
	}
	at := len(s.data)
	s.data = append(s.data, b...)
	return Arg{kindData, uint64(at)}
}

// At is an address behind another one.
func (a Arg) At(offset int) Arg { return Arg{a.kind, a.value + uint64(offset)} }

// Call adds a system call.
func (s *Script) Call(number uintptr, args ...Arg) *Call {
	st := step{call: uint32(number)}
	for i, a := range args {
		st.kinds |= a.kind << (4 * i)
		st.args[i] = a.value
	}
	s.steps = append(s.steps, st)
	s.about = append(s.about, s.topic)
	return &Call{s, len(s.steps) - 1}
}

// Call is a step that was added to a script.
type Call struct {
	script *Script
	at     int
}

// Into leaves the call's result in a slot.
func (c *Call) Into(slot Slot) *Call {
	c.script.steps[c.at].out = uint32(slot)
	return c
}

// Result is a new slot with the call's result.
func (c *Call) Result() Slot {
	slot := c.script.NewSlot()
	c.Into(slot)
	return slot
}

// Spare lets the script go on after one of up to four errors.
func (c *Call) Spare(e ...syscall.Errno) *Call {
	for i, errno := range e {
		c.script.steps[c.at].spare[i] = uint16(errno)
	}
	return c
}

// Else has it go on elsewhere after one that is spared.
func (c *Call) Else(l *Label) *Call {
	l.use(c.script, c.at)
	return c
}

func (l *Label) use(s *Script, at int) {
	if l.at > 0 {
		s.aim(at, l.at)
		return
	}
	l.users = append(l.users, at)
}

func (s *Script) aim(at, target int) {
	if st := &s.steps[at]; st.call == callJump || st.call == callStart {
		st.args[0] = uint64(target)
	} else {
		st.other = uint32(target)
	}
}

// Jump goes on elsewhere.
func (s *Script) Jump(l *Label) { l.use(s, s.Call(callJump).at) }

// Here makes the next step the one that a label means.
func (s *Script) Here(l *Label) {
	l.at = len(s.steps)
	for _, at := range l.users {
		s.aim(at, l.at)
	}
}

// Poke writes what a slot has into the data, as 32 bits.
func (s *Script) Poke(to Arg, slot Slot) { s.Call(callPoke, Value(to.value), Value(uint64(slot))) }

// Table is an array of addresses, as the kernel takes arguments of a program: addresses of the arguments, each of which
// is made of Text or Data or is zero. They are known when the script runs, not before.
func (s *Script) Table(of ...Arg) Arg {
	offsets := make([]uint64, len(of)+1) // one more, so that there is a first
	for i, a := range of {
		offsets[i] = a.value
	}
	table := s.Data(unsafe.Slice((*byte)(unsafe.Pointer(&offsets[0])), 8*len(of)))
	s.Call(callRelocate, Value(table.value), Value(len(of)))
	return table
}

// Address makes an address of an offset that stands somewhere in the data, as Value of what is there.
func (s *Script) Address(at Arg) { s.Call(callRelocate, Value(at.value), Value(1)) }

// Offset is what has to stand where an Address is to be made.
func (a Arg) Offset() uint64 { return a.value }

// Paths is a text of paths that name the descriptors in slots, with colons between them.
func (s *Script) Paths(slots ...Slot) Arg {
	const longest = len("/proc/self/fd/2147483647:")
	text := s.Data(make([]byte, len(slots)*longest+1))
	for _, slot := range slots {
		s.Call(callPath, Value(text.value), Value(uint64(slot)))
	}
	return text
}

// Check fails if there is an error in a netlink answer.
func (s *Script) Check(at Arg) { s.Call(callCheck, Value(at.value)) }

// Start starts the command: steps from a label on are its own, until it is what one of them executes. The first process
// goes on with the step after this one when that is done.
func (s *Script) Start(l *Label) { l.use(s, s.Call(callStart).at) }

// NoCommand ends the command's steps where none executed anything.
func (s *Script) NoCommand() { s.Call(callNoCommand) }

// About says what a step is about, and which system call it makes.
func (s *Script) About(at int) (topic string, number uintptr) {
	if at < 0 || at >= len(s.steps) {
		return "", 0
	}
	return s.about[at], uintptr(s.steps[at].call)
}

// Executes tells whether a step is one of those that execute the command.
func (s *Script) Executes(at int) bool {
	_, number := s.About(at)
	return number == syscall.SYS_EXECVE || number == callNoCommand
}

// header is what an encoded script begins with.
type header struct{ steps, data uint32 } // how many steps; where the data is

// Encode is the script as the first process takes it.
func (s *Script) Encode() []byte {
	const headerSize, stepSize = int(unsafe.Sizeof(header{})), int(unsafe.Sizeof(step{}))
	steps := headerSize + len(s.steps)*stepSize
	b := make([]byte, steps+len(s.data))
	*(*header)(unsafe.Pointer(&b[0])) = header{uint32(len(s.steps)), uint32(steps)}
	for i, st := range s.steps {
		*(*step)(unsafe.Pointer(&b[headerSize+i*stepSize])) = st
	}
	copy(b[steps:], s.data)
	return b
}
