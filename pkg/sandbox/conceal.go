//go:build unix

package sandbox

import (
	"os"
	"strings"
	"unsafe"
)

// concealEnvironment wipes this process's environment where other processes can read it: in the memory that the kernel gave
// it with the program. macOS shows that to all processes of the user, sandboxed or not, and the key may be in it. Go has
// copied it before, so nothing changes for us. It tells whether all was found and wiped; a second call finds nothing.
func concealEnvironment() bool {
	if len(os.Args) == 0 {
		return false
	}
	last := os.Args[len(os.Args)-1]
	// Arguments are not copied, and the environment begins behind the last one.
	at := unsafe.Pointer(unsafe.StringData(last))
	if at == nil {
		return false
	}
	at = unsafe.Add(at, len(last)+1)
	for _, kv := range os.Environ() {
		there := unsafe.Slice((*byte)(at), len(kv))
		if string(there) != kv {
			return false
		}
		clear(there[strings.IndexByte(kv, '=')+1:])
		at = unsafe.Add(at, len(kv)+1)
	}
	return true
}
