package first

import "unsafe"

// Message is what the first process and its parent tell each other, a packet each.
type Message struct {
	What    uint32
	A, B, C uint32
}

// What the first process tells. What scripts tell is said there.
const (
	TellFirst     = iota + 1 // A is the first process: said by the one that was started to fork it
	TellFailed               // the sandbox could not be made: at A, with the error B
	TellSpace                // A is the inode number of the process namespace, if that is known
	TellStarted              // the command runs
	TellEnded                // the command ended with the code A, by the signal B if that is not 0; C is 1 if no other process is left
	TellListening            // the descriptors are listeners
	TellHome                 // the descriptors are the home's layer of changes, which has to be in memory, and an eventfd to be told that it is filled
)

// Where a sandbox fails. From AtStep on it is a step of the general script, from AtStep + NextScript on one of the parent's.
const (
	AtUserNamespace = iota + 1
	AtIDs
	AtNamespaces
	AtFork
	AtPreparation
	AtStep

	NextScript = 1 << 20
)

// What the parent orders.
const (
	orderSignal = iota + 1 // to be sent to the command: A
	orderScript            // of A bytes, in the first descriptor
	orderGoOn              // with steps that were not written before; if B is 1, three descriptors are the command's streams
)

// Size is how long a message is.
const Size = int(unsafe.Sizeof(Message{}))

// Bytes is the message as it is sent.
func (m Message) Bytes() []byte {
	b := make([]byte, Size)
	*(*Message)(unsafe.Pointer(&b[0])) = m
	return b
}

// ParseMessage is the opposite of Bytes, false for what is none.
func ParseMessage(b []byte) (m Message, ok bool) {
	if len(b) != Size {
		return m, false
	}
	return *(*Message)(unsafe.Pointer(&b[0])), true
}

// Signal orders a signal for the command.
func Signal(number int) Message { return Message{What: orderSignal, A: uint32(number)} }

// Perform orders that a script is carried out, whose descriptor goes with the message.
func Perform(size int) Message { return Message{What: orderScript, A: uint32(size)} }

// GoOn orders that a script goes on which awaits this. Three descriptors may go with the message, for the command's streams.
func GoOn(streams bool) Message {
	m := Message{What: orderGoOn}
	if streams {
		m.B = 1
	}
	return m
}
