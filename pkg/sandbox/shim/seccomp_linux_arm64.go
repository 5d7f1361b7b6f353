package shim

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// foreignNumbers: arm64 has no second ABI under the same architecture.
const foreignNumbers = 0

// deniedHere are calls to deny that only this architecture has.
var deniedHere []uint32

// chmodCallsHere, modeCallsHere and supervisedHere are only on this architecture.
var (
	chmodCallsHere, modeCallsHere []modeCall
	supervisedHere                []uint32
)
