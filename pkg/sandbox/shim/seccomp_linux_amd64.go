package shim

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// foreignNumbers is where the calls of the x32 ABI begin, which share the architecture.
const foreignNumbers = 0x40000000

// deniedHere are calls to deny that only this architecture has.
var deniedHere = []uint32{unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_CREATE_MODULE, unix.SYS_USELIB, unix.SYS__SYSCTL, unix.SYS_MODIFY_LDT}

// chmodCallsHere, modeCallsHere and supervisedHere are only on this architecture.
var (
	chmodCallsHere = []modeCall{{unix.SYS_CHMOD, 1, 0}}
	modeCallsHere  = []modeCall{{unix.SYS_CREAT, 1, 0}, {unix.SYS_OPEN, 2, 1}, {unix.SYS_MKNOD, 1, 0}}
	supervisedHere = []uint32{unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT}
)
