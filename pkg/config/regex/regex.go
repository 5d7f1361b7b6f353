// Package regex has regular expressions that are compiled when they are first used: compiling all of them would be a good part of
// the start of every command.
package regex

import (
	"regexp"
	"sync"
)

// Lazy returns what compiles an expression, once, and panics if it is none.
func Lazy(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
