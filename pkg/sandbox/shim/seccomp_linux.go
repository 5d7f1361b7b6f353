package shim

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deniedCalls are system calls that no build or agent needs and that reach parts of the kernel
// where sandboxes were broken. Most need a capability as well; the filter is the second lock.
var deniedCalls = []uint32{
	// Mounts and roots, old and new interface.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETNS,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	// Keys: they are not namespaced the way that files are.
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	// Programmable kernel machinery.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// The machine itself.
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_NFSSERVCTL, unix.SYS_LOOKUP_DCOOKIE,
}

// namespaceFlags are the clone flags that make namespaces: in one of its own a program would
// have capabilities again.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

// What rules say: yes, no, and "as if it were not there", upon which programs fall back to something else.
var (
	allow         = answer{verdict: unix.SECCOMP_RET_ALLOW}
	notPermitted  = refuse(unix.EPERM)
	notThere      = refuse(unix.ENOSYS)
	noSuchSockets = refuse(unix.EAFNOSUPPORT)
)

func refuse(errno unix.Errno) answer {
	return answer{verdict: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// filterProgram is the system call filter. What a tier adds to the rules goes before them.
func filterProgram(more []rule) []unix.SockFilter {
	c := newCalls()
	c.put(commonRules())
	c.put(more)
	denied := c.number(notPermitted)
	for _, nr := range slices.Concat(deniedCalls, deniedHere) {
		c.says[nr] = denied
	}
	return compile(c)
}

// commonRules are the rules of every tier, for calls that depend on their arguments.
func commonRules() []rule {
	noNamespaces := anyBit(0, namespaceFlags, notPermitted, undecided)
	rules := []rule{
		// clone3 has its flags in memory, where a filter cannot look: libraries fall back to clone.
		{unix.SYS_CLONE3, notThere},
		{unix.SYS_CLONE, noNamespaces},
		{unix.SYS_UNSHARE, noNamespaces},
		// Writing into the terminal's input would type commands into the user's shell. Another line discipline, or output that is
		// stopped, would leave the terminal dead.
		{unix.SYS_IOCTL, oneOf(1, []uint32{unix.TIOCSTI, unix.TIOCLINUX, unix.TIOCSETD}, notPermitted, undecided)},
		{unix.SYS_IOCTL, oneOf(1, []uint32{unix.TCXONC}, oneOf(2, []uint32{outputOff, inputOff}, notPermitted, undecided), undecided)},
		// Snapshots and subvolumes are made past mounts and Landlock: they show what is hidden, or appear where nothing may be written.
		{unix.SYS_IOCTL, maskedOneOf(1, requestType, []uint32{btrfsRequests, bcachefsRequests}, oneOf(1, cloneRequests, undecided, refuse(unix.ENOTTY)), undecided)},
		// A process group may be the caller's, too.
		{unix.SYS_SETPRIORITY, oneOf(0, []uint32{unix.PRIO_PGRP}, notPermitted, undecided)},
		{unix.SYS_IOPRIO_SET, oneOf(0, []uint32{ioprioGroup}, notPermitted, undecided)},
		{unix.SYS_SOCKET, socketRule()},
		// openat2 has the mode in memory, where a filter cannot look: programs fall back to openat.
		{unix.SYS_OPENAT2, notThere},
	}
	// A program that is set-uid on the host's disk would lend the user's rights, or root's, to everybody there.
	for _, c := range slices.Concat(chmodCalls, chmodCallsHere, modeCalls, modeCallsHere) {
		says := anyBit(c.mode, setIDs, notPermitted, undecided)
		if c.flags > 0 {
			// A file that is only opened has no mode, and anything may stand in the argument.
			says = anyBit(c.flags, unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY, says, undecided)
		}
		rules = append(rules, rule{c.nr, says})
	}
	return rules
}

// Numbers that package unix does not have.
const (
	outputOff, inputOff = 0, 2 // of TCXONC
	ioprioGroup         = 2

	requestType                     = 0xff00 // the part of an ioctl's number that says whose it is
	btrfsRequests, bcachefsRequests = 0x9400, 0xbc00
)

// cloneRequests have btrfs's type and are every file system's: content that two files share.
var cloneRequests = []uint32{unix.FICLONE, unix.FICLONERANGE, unix.FIDEDUPERANGE}

const setIDs = unix.S_ISUID | unix.S_ISGID

// typeMask is the part of a socket's type that is no flag.
const typeMask = 0xf

// socketRule lets unix, TCP and UDP sockets pass, and netlink for reading interfaces.
func socketRule() answer {
	return oneOf(0, []uint32{unix.AF_INET, unix.AF_INET6}, internetSockets(allow),
		oneOf(0, []uint32{unix.AF_UNIX}, allow,
			oneOf(0, []uint32{unix.AF_NETLINK}, routesOnly(), noSuchSockets)))
}

// internetSockets lets TCP pass and has an answer for UDP. MPTCP would get past rules made for TCP, and others have the kernel load modules.
func internetSockets(udp answer) answer {
	return maskedOneOf(1, typeMask, []uint32{unix.SOCK_STREAM}, oneOf(2, []uint32{0, unix.IPPROTO_TCP}, allow, noSuchSockets),
		maskedOneOf(1, typeMask, []uint32{unix.SOCK_DGRAM}, oneOf(2, []uint32{0, unix.IPPROTO_UDP}, udp, noSuchSockets), noSuchSockets))
}

func routesOnly() answer { return oneOf(2, []uint32{unix.NETLINK_ROUTE}, allow, noSuchSockets) }

// strictRules are what the strict profile refuses besides: unix sockets but for pairs, and files in memory
// that could be executed.
var strictRules = []rule{
	{unix.SYS_SOCKET, oneOf(0, []uint32{unix.AF_UNIX}, noSuchSockets, undecided)},
	{unix.SYS_MEMFD_CREATE, anyBit(1, unix.MFD_NOEXEC_SEAL, undecided, notPermitted)},
}

// modeCall is a system call that sets a file's mode, and which arguments are the mode and, if any, the flags of open.
type modeCall struct{ nr, mode, flags uint32 }

// chmodCalls change the mode of a file that exists. Calls that only one architecture has stand with it.
var chmodCalls = []modeCall{
	{unix.SYS_FCHMOD, 1, 0},
	{unix.SYS_FCHMODAT, 2, 0},
	{unix.SYS_FCHMODAT2, 2, 0},
}

// modeCalls make a file with a mode.
var modeCalls = []modeCall{
	{unix.SYS_OPENAT, 3, 2},
	{unix.SYS_MKNODAT, 2, 0},
}

// installFilter puts a filter on this thread and all that come of it.
// With SECCOMP_FILTER_FLAG_NEW_LISTENER it returns the descriptor that hears of calls.
func installFilter(program []unix.SockFilter, flags uintptr) (listener int, err error) {
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, fmt.Errorf("install the system call filter: %w", errno)
	}
	return int(fd), nil
}
