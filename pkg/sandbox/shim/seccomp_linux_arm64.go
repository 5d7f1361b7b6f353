package shim

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const auditArch = unix.AUDIT_ARCH_AARCH64

// foreignCalls: arm64 has no second ABI under the same architecture.
var foreignCalls []bpf.Instruction

// deniedHere are calls to deny that only this architecture has.
var deniedHere []uint32

// chmodCallsHere, modeCallsHere and supervisedHere are only on this architecture.
var (
	chmodCallsHere, modeCallsHere []modeCall
	supervisedHere                []uint32
)
