package amp

import (
	"regexp"
	"sync"
)

// lazily compiles an expression when it is first used: compiling all of them would
// be a good part of the start of every command, the sandbox's shim included.
func lazily(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
