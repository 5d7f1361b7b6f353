package shim

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// supervise has the caller wait until the parent has decided on the call, or has made it itself.
var supervise = bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}

// supervisedCalls reach the host's network, its sockets, or what a file is besides its content, which Landlock
// does not look at. Their arguments are in memory, where a filter cannot look.
var supervisedCalls = append([]uint32{
	unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN,
	unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
}, supervisedHere...)

// unsupported are calls that change what a file is besides its content, and that programs do without.
var unsupported = []uint32{
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
	unix.SYS_SETXATTRAT, unix.SYS_REMOVEXATTRAT, unix.SYS_FILE_SETATTR,
}

// hostIPC are calls by which a program could share memory, messages or semaphores with the user's other programs.
var hostIPC = []uint32{
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL,
	unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL, unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK,
}

// File attributes by ioctl: flags, version, fs-verity, encryption. None needs a file that is open for writing.
const (
	fsSetFlags, fsSetFlags32, fsSetVersion, fsSetVersion32 = 0x40086602, 0x40046602, 0x40087602, 0x40047602
	fsSetXattr, fsEnableVerity, fsSetEncryption            = 0x401c5820, 0x40806685, 0x800c6613
	ext4SetVersion, ext4SetVersion32                       = 0x40086604, 0x40046604
)

// confinedRules is what a command needs that shares the host's network and processes.
func confinedRules(abi int) []bpf.Instruction {
	prog := call(unix.SYS_SOCKET, confinedSocketRules()...)
	const typeMask = 0xf
	prog = append(prog, call(unix.SYS_SOCKETPAIR,
		loadArg(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: typeMask},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SOCK_DGRAM, SkipTrue: 1},
		verdict(unix.EPROTOTYPE), // it could be sent from to any socket with a path
		allow,
	)...)
	for _, nr := range supervisedCalls {
		prog = append(prog, call(nr, supervise)...)
	}
	for _, c := range chmodCalls {
		prog = append(prog, call(c.nr,
			loadArg(c.mode),
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.S_ISUID | unix.S_ISGID, SkipFalse: 1},
			verdict(unix.EPERM),
			supervise,
		)...)
	}
	for _, nr := range unsupported {
		prog = append(prog, call(nr, verdict(unix.EOPNOTSUPP))...)
	}
	for _, nr := range hostIPC {
		prog = append(prog, call(nr, verdict(unix.ENOSYS))...)
	}
	// Sending on a TCP socket that is not connected connects it, with this flag.
	for _, c := range []struct{ nr, flags uint32 }{{unix.SYS_SENDTO, 3}, {unix.SYS_SENDMSG, 2}, {unix.SYS_SENDMMSG, 3}} {
		prog = append(prog, call(c.nr,
			loadArg(c.flags),
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MSG_FASTOPEN, SkipFalse: 1},
			verdict(unix.EOPNOTSUPP),
			allow,
		)...)
	}
	prog = append(prog, refuseIf(unix.SYS_IOCTL, 1, fsSetFlags, fsSetFlags32, fsSetVersion, fsSetVersion32,
		fsSetXattr, fsEnableVerity, fsSetEncryption, ext4SetVersion, ext4SetVersion32)...)
	// Limits of other processes: a limit of processor time ends one.
	prog = append(prog, call(unix.SYS_PRLIMIT64,
		loadArg(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		verdict(unix.EPERM),
		allow,
	)...)
	if abi < abiTruncate {
		prog = append(prog, truncateRules()...)
	}
	return prog
}

// truncateRules refuse what cuts a file that may only be read, where Landlock does not know it.
func truncateRules() []bpf.Instruction {
	prog := call(unix.SYS_TRUNCATE, verdict(unix.EACCES))
	for _, c := range modeCalls {
		if c.flags == 0 {
			continue
		}
		prog = append(prog, call(c.nr,
			loadArg(c.flags),
			bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.O_TRUNC, SkipTrue: 3},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: unix.O_ACCMODE},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.O_RDONLY, SkipTrue: 1},
			verdict(unix.EACCES),
			loadNumber,
		)...)
	}
	return prog
}

// confinedSocketRules let streams over unix, IPv4 and IPv6 pass, and netlink for reading interfaces. Datagrams over
// IP are the parent's to give; those of unix sockets can be sent to any path, and no rule would see where.
func confinedSocketRules() []bpf.Instruction {
	const typeMask = 0xf
	return []bpf.Instruction{
		loadArg(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: typeMask},
		bpf.TAX{},
		loadArg(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_NETLINK, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 8},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET6, SkipTrue: 7, SkipFalse: 17},
		// unix: streams and sequenced packets
		bpf.TXA{},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_STREAM, SkipTrue: 14},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_SEQPACKET, SkipTrue: 13},
		bpf.Jump{Skip: 13},
		// netlink: routes
		loadArg(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NETLINK_ROUTE, SkipTrue: 10},
		bpf.Jump{Skip: 10},
		// IP
		bpf.TXA{},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_STREAM, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SOCK_DGRAM, SkipTrue: 7},
		loadArg(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 5, SkipFalse: 4},
		loadArg(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 1},
		allow,
		verdict(unix.EAFNOSUPPORT),
		supervise,
	}
}
