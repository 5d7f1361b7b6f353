package shim

import (
	"slices"

	"golang.org/x/sys/unix"
)

// supervise has the caller wait until the parent has decided on the call, or has made it itself.
var supervise = answer{verdict: unix.SECCOMP_RET_USER_NOTIF}

// supervisedCalls reach the host's network, its sockets, or what a file is besides its content, which Landlock
// does not look at. Their arguments are in memory, where a filter cannot look.
var supervisedCalls = []uint32{
	unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN,
	unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
}

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
func confinedRules(abi int) []rule {
	rules := []rule{
		{unix.SYS_SOCKET, confinedSocketRule()},
		// A datagram could be sent from one of a pair to any socket with a path, and raw ones are datagrams there.
		{unix.SYS_SOCKETPAIR, maskedOneOf(1, typeMask, []uint32{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}, allow, refuse(unix.EPROTOTYPE))},
		{unix.SYS_IOCTL, oneOf(1, []uint32{
			fsSetFlags, fsSetFlags32, fsSetVersion, fsSetVersion32, fsSetXattr, fsEnableVerity, fsSetEncryption, ext4SetVersion, ext4SetVersion32,
		}, notPermitted, undecided)},
		// Limits of other processes: a limit of processor time ends one.
		{unix.SYS_PRLIMIT64, oneOf(0, []uint32{0}, allow, notPermitted)},
	}
	for _, nr := range slices.Concat(supervisedCalls, supervisedHere) {
		rules = append(rules, rule{nr, supervise})
	}
	for _, c := range slices.Concat(chmodCalls, chmodCallsHere) {
		rules = append(rules, rule{c.nr, anyBit(c.mode, setIDs, notPermitted, supervise)})
	}
	for _, nr := range unsupported {
		rules = append(rules, rule{nr, refuse(unix.EOPNOTSUPP)})
	}
	for _, nr := range hostIPC {
		rules = append(rules, rule{nr, notThere})
	}
	// Sending on a TCP socket that is not connected connects it, with this flag.
	for _, c := range []struct{ nr, flags uint32 }{{unix.SYS_SENDTO, 3}, {unix.SYS_SENDMSG, 2}, {unix.SYS_SENDMMSG, 3}} {
		rules = append(rules, rule{c.nr, anyBit(c.flags, unix.MSG_FASTOPEN, refuse(unix.EOPNOTSUPP), allow)})
	}
	if abi < abiTruncate {
		rules = append(rules, truncateRules()...)
	}
	return rules
}

// truncateRules refuse what cuts a file that may only be read, where Landlock does not know it.
func truncateRules() []rule {
	rules := []rule{{unix.SYS_TRUNCATE, refuse(unix.EACCES)}}
	for _, c := range slices.Concat(modeCalls, modeCallsHere) {
		if c.flags > 0 {
			readOnly := maskedOneOf(c.flags, unix.O_ACCMODE, []uint32{unix.O_RDONLY}, refuse(unix.EACCES), undecided)
			rules = append(rules, rule{c.nr, anyBit(c.flags, unix.O_TRUNC, readOnly, undecided)})
		}
	}
	return rules
}

// confinedSocketRule lets streams over unix, IPv4 and IPv6 pass, and netlink for reading interfaces. Datagrams over
// IP are the parent's to give; those of unix sockets can be sent to any path, and no rule would see where.
func confinedSocketRule() answer {
	streams := maskedOneOf(1, typeMask, []uint32{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}, allow, noSuchSockets)
	return oneOf(0, []uint32{unix.AF_UNIX}, streams,
		oneOf(0, []uint32{unix.AF_INET, unix.AF_INET6}, internetSockets(supervise),
			oneOf(0, []uint32{unix.AF_NETLINK}, routesOnly(), noSuchSockets)))
}
