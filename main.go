// Sesame runs Sourcegraph's Amp coding agent unattended, inside an OS sandbox.
package main

import (
	"os"

	"github.com/sesame-cli/sesame/cmd"
)

func main() { os.Exit(cmd.Main(os.Args)) }
