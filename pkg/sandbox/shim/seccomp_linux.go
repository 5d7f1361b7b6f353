package shim

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
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

// Offsets in struct seccomp_data. Arguments are 64 bits wide, little-endian on every
// architecture that sesame is built for.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// verdict makes the filter's answers.
func verdict(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

var loadNumber = bpf.LoadAbsolute{Off: dataNr, Size: 4}

var allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}

// filterProgram is the system call filter. What a tier adds to it goes first.
func filterProgram(more []bpf.Instruction) []bpf.Instruction {
	prog := []bpf.Instruction{
		// Another architecture's numbers (int 0x80) would mean other calls.
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		verdict(unix.ENOSYS),
		loadNumber,
	}
	prog = append(prog, foreignCalls...)
	rules := callRules(more)
	return slices.Concat(prog, shortcut(rules), rules)
}

// callRules are the filter's rules, one after the other, for calls of this architecture; the number is loaded.
func callRules(more []bpf.Instruction) []bpf.Instruction {
	var prog []bpf.Instruction
	denied := slices.Concat(deniedCalls, deniedHere)
	for i, nr := range denied {
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipTrue: uint8(len(denied) - i)})
	}
	prog = append(prog, bpf.Jump{Skip: 1}, verdict(unix.EPERM))
	prog = append(prog, more...)
	// clone3 has its flags in memory, where a filter cannot look: libraries fall back to clone.
	prog = append(prog, call(unix.SYS_CLONE3, verdict(unix.ENOSYS))...)
	for _, nr := range []uint32{unix.SYS_CLONE, unix.SYS_UNSHARE} {
		prog = append(prog, call(nr,
			loadArg(0),
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaceFlags, SkipFalse: 1},
			verdict(unix.EPERM),
			allow,
		)...)
	}
	// Writing into the terminal's input would type commands into the user's shell.
	prog = append(prog, refuseIf(unix.SYS_IOCTL, 1, unix.TIOCSTI, unix.TIOCLINUX)...)
	prog = append(prog, call(unix.SYS_SOCKET, socketRules()...)...)
	// A program that is set-uid on the host's disk would lend the user's rights, or root's, to everybody there.
	for _, c := range modeCalls {
		body := []bpf.Instruction{
			loadArg(c.mode),
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.S_ISUID | unix.S_ISGID, SkipFalse: 1},
			verdict(unix.EPERM),
			allow,
		}
		if c.flags > 0 {
			// A file that is only opened has no mode, and anything may stand in the argument.
			body = append([]bpf.Instruction{
				loadArg(c.flags),
				bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.O_CREAT | unix.O_TMPFILE&^unix.O_DIRECTORY, SkipTrue: 1},
				allow,
			}, body...)
		}
		prog = append(prog, call(c.nr, body...)...)
	}
	// openat2 has the mode in memory, where a filter cannot look: programs fall back to openat.
	prog = append(prog, call(unix.SYS_OPENAT2, verdict(unix.ENOSYS))...)
	return append(prog, allow)
}

// shortcut allows what no rule names, after a search by halves. The kernel runs a new filter for every number there is,
// to know which calls it need not ask about.
func shortcut(rules []bpf.Instruction) []bpf.Instruction {
	// Values of arguments are among these, too: that only sends a few more calls through the rules.
	var named []uint32
	for _, rule := range rules {
		switch r := rule.(type) {
		case bpf.JumpIf:
			named = append(named, r.Val)
		case bpf.JumpIfX:
			return nil // nobody knows what that compares
		}
	}
	slices.Sort(named)
	return search(slices.Compact(named), 0)
}

// search looks for the loaded number among those named, goes on behind itself and skip more instructions if it
// is there, and allows the call if not.
func search(named []uint32, skip uint32) []bpf.Instruction {
	const few = 4
	if len(named) > few {
		half := len(named) / 2
		right := search(named[half:], skip)
		left := search(named[:half], skip+uint32(len(right)))
		// A jump on a condition does not reach far.
		return slices.Concat([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpLessThan, Val: named[half], SkipTrue: 1}, bpf.Jump{Skip: uint32(len(left))}}, left, right)
	}
	var prog []bpf.Instruction
	for i, nr := range named {
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipTrue: uint8(len(named) - i)})
	}
	return append(prog, allow, bpf.Jump{Skip: skip})
}

// strictRules are what the strict profile refuses besides: unix sockets but for pairs, and files in memory
// that could be executed. The number of the call is loaded before and after.
var strictRules = []bpf.Instruction{
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: 4},
	loadArg(0),
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_UNIX, SkipTrue: 1},
	verdict(unix.EAFNOSUPPORT),
	loadNumber,
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_MEMFD_CREATE, SkipTrue: 4},
	loadArg(1),
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MFD_NOEXEC_SEAL, SkipTrue: 1},
	verdict(unix.EPERM),
	loadNumber,
}

// socketRules let unix, IPv4 and IPv6 stream and datagram sockets pass, and netlink for reading interfaces.
func socketRules() []bpf.Instruction {
	const protocolMPTCP, typeMask = 262, 0xf // MPTCP would get past rules made for TCP
	return []bpf.Instruction{
		loadArg(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipTrue: 8},     // allow
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_NETLINK, SkipTrue: 8},  // check the protocol
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 1},     // check the type
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_INET6, SkipTrue: 9}, // no
		loadArg(1), //
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: typeMask},                       //
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.SOCK_DGRAM, SkipTrue: 6}, // raw and others: no
		loadArg(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolMPTCP, SkipTrue: 4}, // no
		allow,
		loadArg(2),
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.NETLINK_ROUTE, SkipTrue: 1}, // no
		allow,
		verdict(unix.EAFNOSUPPORT),
	}
}

// refuseIf refuses a call whose argument has one of the values.
func refuseIf(nr, argument uint32, values ...uint32) []bpf.Instruction {
	body := []bpf.Instruction{loadArg(argument)}
	for i, v := range values {
		body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - i)})
	}
	// The number again, for the rules that follow.
	return call(nr, append(body, bpf.Jump{Skip: 1}, verdict(unix.EPERM), loadNumber)...)
}

// call runs body for one system call number. The body must end the program or load the number again.
func call(nr uint32, body ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: uint8(len(body))}}, body...)
}

// loadArg loads the low half of an argument: of flags, families and request numbers the kernel looks at no more.
func loadArg(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: dataArgs + 8*n, Size: 4} }

// modeCall is a system call that sets a file's mode, and which arguments are the mode and, if any, the flags of open.
type modeCall struct{ nr, mode, flags uint32 }

// chmodCalls change the mode of a file that exists. Calls that only one architecture has stand with it.
var chmodCalls = append([]modeCall{
	{unix.SYS_FCHMOD, 1, 0},
	{unix.SYS_FCHMODAT, 2, 0},
	{unix.SYS_FCHMODAT2, 2, 0},
}, chmodCallsHere...)

var modeCalls = slices.Concat(chmodCalls, []modeCall{
	{unix.SYS_OPENAT, 3, 2},
	{unix.SYS_MKNODAT, 2, 0},
}, modeCallsHere)

// assemble makes a program what the kernel takes.
func assemble(program []bpf.Instruction) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble the system call filter: %w", err)
	}
	insns := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return insns, nil
}

// installFilter puts a filter on this thread and all that come of it. With SECCOMP_FILTER_FLAG_NEW_LISTENER it returns the
// descriptor that hears of calls.
func installFilter(program []bpf.Instruction, flags uintptr) (listener int, err error) {
	insns, err := assemble(program)
	if err != nil {
		return -1, err
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, fmt.Errorf("install the system call filter: %w", errno)
	}
	return int(fd), nil
}
