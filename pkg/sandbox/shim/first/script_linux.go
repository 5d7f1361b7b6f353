package first

import (
	"iter"
	"syscall"
	"unsafe"
)

// Script is a list of system calls for the first process of a sandbox, and what they point to. It decides nothing that cannot
// be said by "after this error go on there": whoever writes it knows the host and the policy, the first process neither.
type Script struct {
	memory []byte // a header, then steps, then data: as the first process has it
	steps  []step
	data   []byte
	topics []topic
	slots  int
}

// topic is what the steps from a place on are about, for errors.
type topic struct {
	from       int
	what, path string
}

// step is one system call, or one of the calls below. It is read as it lies in memory.
type step struct {
	call  uint32
	kinds uint32 // how each argument is meant: four bits for each, a kind
	args  [6]int32
	out   uint32    // the slot for the result, 0 for none
	other uint32    // the step to go on with after an error that is spared, 0 for the next one
	spare [4]uint16 // those errors
}

// header is what a script begins with.
type header struct{ steps, data uint32 } // how many steps; where the data is

const headerSize, stepSize = int(unsafe.Sizeof(header{})), int(unsafe.Sizeof(step{}))

// How an argument is meant.
const (
	kindValue = iota
	kindData  // an offset in the script's data
	kindSlot  // the number of a slot
)

// Calls that the kernel does not know.
const (
	callPoke         = 1<<20 + iota // writes the slot args[1] into the data at args[0], as 32 bits
	callRelocate                    // makes addresses of args[1] offsets in the data, which stand at args[0]
	callPath                        // appends the path of the descriptor in slot args[1] to the text at args[0], after a colon
	callLinks                       // links the file args[1] of the directory args[0] into the directory args[2], by all names of the list that stands at args[3]
	callCheck                       // fails with the error whose negative stands at args[0], as netlink answers
	callJump                        // goes on with step args[0]
	callStart                       // starts the command with step args[0]; the first process goes on with the next one
	callDropBounding                // takes all capabilities out of the bounding set
	callNoCommand                   // fails because none of the calls of execve before it worked
	callAwait                       // waits until the steps behind it are written
)

// Arg is an argument of a step.
type Arg struct {
	kind  uint32
	value int32
}

// Slot is where a step leaves its result, most often a descriptor, for others.
type Slot uint32

// Value is an argument as it is. It has 32 bits, of which the first counts for those that are missing.
func Value[T ~int | ~uint | ~int32 | ~uint32 | ~uintptr](v T) Arg { return Arg{kindValue, int32(v)} }

// In is an argument that an earlier step leaves in a slot.
func In(s Slot) Arg { return Arg{kindSlot, int32(s)} }

// Label is a step of a script that others go on with.
type Label struct {
	at    int // 0 as long as it is not known
	users []int
}

// NewScript makes an empty one in memory, of which a part is for steps, and which uses slots from a number on: what an earlier one left in
// others stays.
func NewScript(memory []byte, forSteps int, slots Slot) *Script {
	most := (forSteps - headerSize) / stepSize
	first := headerSize + most*stepSize
	return &Script{
		memory: memory,
		steps:  unsafe.Slice((*step)(unsafe.Pointer(&memory[headerSize])), most)[:0],
		data:   memory[first:first],
		topics: make([]topic, 0, 128),
		slots:  int(slots),
	}
}

// Topic says what the following steps are about, for errors: what is done, and with which path if that matters.
func (s *Script) Topic(what, path string) {
	s.topics = append(s.topics, topic{len(s.steps), what, path})
}

// NewSlot is a slot that no other step uses.
func (s *Script) NewSlot() Slot {
	s.slots++
	return Slot(s.slots)
}

// LastSlot is the last one that is in use.
func (s *Script) LastSlot() Slot { return Slot(s.slots) }

// Text is a string as C has it, at an address.
func (s *Script) Text(text string) Arg {
	at := s.room(len(text)+1, 1)
	copy(s.data[at:], text)
	return Arg{kindData, int32(at)}
}

// Data is bytes at an address, which is good for whatever the kernel reads there.
func (s *Script) Data(b []byte) Arg {
	at := s.room(len(b), 8)
	copy(s.data[at:], b)
	return Arg{kindData, int32(at)}
}

// AsBytes is a value as it lies in memory.
func AsBytes[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// room makes room in the data, which begins with some of its own: no offset is 0.
func (s *Script) room(size, align int) (at int) {
	at = max(8, (len(s.data)+align-1)/align*align)
	if at+size <= cap(s.data) {
		s.data = s.data[:at+size]
	} else { // Finish will tell
		s.data = append(s.data[:cap(s.data)], make([]byte, at+size-cap(s.data))...)
	}
	return at
}

// At is an address behind another one.
func (a Arg) At(offset int) Arg { return Arg{a.kind, a.value + int32(offset)} }

// Call adds a system call.
func (s *Script) Call(number uintptr, args ...Arg) *Call {
	at := len(s.steps)
	s.steps = append(s.steps, step{call: uint32(number)})
	st := &s.steps[at]
	for i, a := range args {
		st.kinds |= a.kind << (4 * i)
		st.args[i] = a.value
	}
	return &Call{s, at}
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
		st.args[0] = int32(target)
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
func (s *Script) Poke(to Arg, slot Slot) { s.Call(callPoke, Value(to.value), Value(uint32(slot))) }

// Table is an array of addresses, as the kernel takes arguments of a program: addresses of the arguments, each of which
// is made of Text or Data or is zero. They are known when the script runs, not before.
func (s *Script) Table(of ...Arg) Arg {
	const addressSize = 8
	at := s.room(addressSize*len(of), addressSize)
	for i, a := range of {
		*(*uint64)(unsafe.Pointer(&s.data[at+addressSize*i])) = uint64(a.value)
	}
	table := Arg{kindData, int32(at)}
	s.Call(callRelocate, Value(table.value), Value(len(of)))
	return table
}

// Address makes an address of an offset that stands somewhere in the data, as Value of what is there.
func (s *Script) Address(at Arg) { s.Call(callRelocate, Value(at.value), Value(1)) }

// Offset is what has to stand where an Address is to be made.
func (a Arg) Offset() uint64 { return uint64(a.value) }

// Filter is a program of BPF's as the kernel takes it, struct sock_fprog. The instructions are those of the kernel, by whatever type.
func Filter[I any](s *Script, instructions []I) (program Arg, size int) {
	first := unsafe.SliceData(instructions)
	code := s.Data(unsafe.Slice((*byte)(unsafe.Pointer(first)), len(instructions)*int(unsafe.Sizeof(*first))))
	fprog := [2]uint64{uint64(len(instructions)), code.Offset()}
	program = s.Data(AsBytes(&fprog))
	s.Address(program.At(int(unsafe.Sizeof(fprog[0]))))
	return program, int(unsafe.Sizeof(fprog))
}

// Paths is a text of paths that name the descriptors in slots, with colons between them.
func (s *Script) Paths(slots ...Slot) Arg {
	const longest = len("/proc/self/fd/2147483647:")
	text := s.Data(make([]byte, len(slots)*longest+1))
	for _, slot := range slots {
		s.Call(callPath, Value(text.value), Value(uint32(slot)))
	}
	return text
}

// Links makes links of a file in a directory, in another one: one is like the other.
func (s *Script) Links(from Slot, file Arg, to Slot, names iter.Seq[string]) {
	size := 1
	for name := range names {
		size += len(name) + 1
	}
	list := s.room(size, 1)
	at := list
	for name := range names {
		at += copy(s.data[at:], name)
		s.data[at] = 0
		at++
	}
	s.data[at] = 0
	s.Call(callLinks, In(from), file, In(to), Value(list))
}

// Check fails if there is an error in a netlink answer.
func (s *Script) Check(at Arg) { s.Call(callCheck, Value(at.value)) }

// Start starts the command: steps from a label on are its own, until it is what one of them executes. The first process
// goes on with the step after this one when that is done.
func (s *Script) Start(l *Label) { l.use(s, s.Call(callStart).at) }

// NoCommand ends the command's steps where none executed anything.
func (s *Script) NoCommand() { s.Call(callNoCommand) }

// Await has the first process wait for the order to go on. What is behind it need not be written before.
func (s *Script) Await() { s.Call(callAwait) }

// DropBounding takes all capabilities out of the bounding set.
func (s *Script) DropBounding() { s.Call(callDropBounding) }

// About says what a step is about, and which system call it makes.
func (s *Script) About(at int) (about string, number uintptr) {
	if at < 0 || at >= len(s.steps) {
		return "", 0
	}
	for _, t := range s.topics {
		if t.from <= at {
			about = t.what
			if t.path != "" {
				about += " " + t.path
			}
		}
	}
	return about, uintptr(s.steps[at].call)
}

// Executes tells whether a step is one of those that execute the command.
func (s *Script) Executes(at int) bool {
	_, number := s.About(at)
	return number == syscall.SYS_EXECVE || number == callNoCommand
}

// Finish completes the script in its memory, or what there is of it, and says how much of that it takes. It fails with E2BIG
// where there is not enough.
func (s *Script) Finish() (size int, err error) {
	room := s.memory
	data := unsafe.SliceData(s.data)
	at := int(uintptr(unsafe.Pointer(data)) - uintptr(unsafe.Pointer(&room[0])))
	if unsafe.Pointer(unsafe.SliceData(s.steps)) != unsafe.Pointer(&room[headerSize]) || at < headerSize || at+len(s.data) > len(room) {
		return 0, syscall.E2BIG // it was moved elsewhere
	}
	*(*header)(unsafe.Pointer(&room[0])) = header{uint32(len(s.steps)), uint32(at)}
	return at + len(s.data), nil
}
