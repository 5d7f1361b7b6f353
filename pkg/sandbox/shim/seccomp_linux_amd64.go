package shim

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const auditArch = unix.AUDIT_ARCH_X86_64

// x32Bit marks the calls of the x32 ABI, which share the architecture.
const x32Bit = 0x40000000

// foreignCalls turns away calls of other ABIs of this architecture; the number is loaded.
var foreignCalls = []bpf.Instruction{
	bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1},
	verdict(unix.ENOSYS),
}

// deniedHere are calls to deny that only this architecture has.
var deniedHere = []uint32{unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_CREATE_MODULE, unix.SYS_USELIB, unix.SYS__SYSCTL, unix.SYS_MODIFY_LDT}

// chmodCallsHere, modeCallsHere and supervisedHere are only on this architecture.
var (
	chmodCallsHere = []modeCall{{unix.SYS_CHMOD, 1, 0}}
	modeCallsHere  = []modeCall{{unix.SYS_CREAT, 1, 0}, {unix.SYS_OPEN, 2, 1}, {unix.SYS_MKNOD, 1, 0}}
	supervisedHere = []uint32{unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT}
)
