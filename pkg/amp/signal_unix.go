//go:build unix

package amp

import "syscall"

// terminate is the signal that makes every build cancel the turn and kill the
// tool that runs.
const terminate = syscall.SIGTERM
