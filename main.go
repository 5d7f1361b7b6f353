// Sesame runs Sourcegraph's Amp coding agent unattended, inside an OS sandbox.
//
// It does little at a time, and should begin at once: how much processor time its control group may take matters to nothing. (Go looks that
// up once all the same, for its statistics, which takes a tenth of a millisecond; but not again and again.)
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"
	"runtime/debug"

	"github.com/sesame-cli/sesame/cmd"
)

// memoryTarget is what the heap, stacks and the runtime's own memory are to stay below, in bytes, unless GOMEMLIMIT says otherwise. Above it
// garbage is collected more often, which only a crowd of connections comes to.
const memoryTarget = 24 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryTarget)
	}
	os.Exit(cmd.Main(os.Args))
}
