// Package narrow has this program begin with one processor. It needs no other package, so Go initialises it before nearly all others: what
// memory the runtime keeps at hand for a second processor, and for what has run there, it would take a tenth of a millisecond to take
// apart later, when others wait for that.
package narrow

import "runtime"

// Usual is how many processors this program would have had (GOMAXPROCS). Whoever does not go on with one gives it those.
var Usual = runtime.GOMAXPROCS(1)
