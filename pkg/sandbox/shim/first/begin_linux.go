// Package first is the first process of a sandbox. It makes the namespaces, carries out what the parent has written down of the policy,
// starts the command, and is then PID 1: it gathers orphans, and with it all others end.
//
// It is a copy of sesame that was forked, not started: starting a program of Go's takes longer than all that there is to do.
package first

import (
	"syscall"
	"unsafe"
)

// Name is argv[0] of a sesame that only forks the first process, and what that is called.
const Name = name

const name = "sesame-sandbox"

// Fork is a process that was forked to become the first one of a sandbox. It waits for a script.
type Fork struct {
	Socket int // for messages both ways
	Maker  int // the process that makes the namespaces; 0 if it will tell
}

// early is what was forked before anything else, for Early.
var early struct {
	fork Fork
	err  error
	is   bool
}

// init forks the first process before the program knows anything, while it is small and has no secrets but those of its environment,
// which are wiped in the copy. It is not a function to be called from main, because all that a large program initialises
// before main would be copied, and waited for; this package needs no others, and Go initialises a package as soon as it can.
func init() {
	line := commandLine()
	switch {
	case firstIs(line, Name):
		// Started for nothing else. Whoever waits for this process waits for its copy, too: that is no child of this one's.
		pid, errno := fork(socket, syscall.CLONE_PARENT, line)
		m := Message{What: TellMaker, A: uint32(pid)}
		if errno != 0 {
			m = Message{What: TellFailed, A: AtFork, B: uint32(errno)}
		}
		try(syscall.SYS_SENDTO, socket, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), syscall.MSG_NOSIGNAL)
		exit(0)
	case runsSandbox(line):
		early.is = true
		early.fork, early.err = forkWithSocket(line)
	}
}

// Early takes what was forked when this process began; it is there once at most.
func Early() (f Fork, err error, ok bool) {
	f, err, ok = early.fork, early.err, early.is
	early.is = false
	return f, err, ok
}

// runsSandbox tells a command line that probably runs something in a sandbox. If it does not, what was forked ends with this process.
func runsSandbox(line []byte) bool {
	_, line = cut(line)
	for len(line) > 0 {
		var arg []byte
		if arg, line = cut(line); string(arg) == "--" {
			return false
		}
		if string(arg) == "sandbox" {
			return true
		}
	}
	return false
}

func firstIs(line []byte, name string) bool {
	arg, _ := cut(line)
	return string(arg) == name
}

// cut takes the first argument off a command line. Packages that could do that would have to be there first.
func cut(line []byte) (arg, rest []byte) {
	for i, c := range line {
		if c == 0 {
			return line[:i], line[i+1:]
		}
	}
	return line, nil
}

// commandLine is the process's arguments, with a zero behind each; of long ones the beginning.
func commandLine() []byte {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	line := make([]byte, 2048)
	n, err := syscall.Read(fd, line)
	if err != nil {
		return nil
	}
	return line[:n]
}

func forkWithSocket(line []byte) (Fork, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Fork{}, err
	}
	pid, errno := fork(uintptr(pair[1]), 0, line)
	syscall.Close(pair[1])
	if errno != 0 {
		syscall.Close(pair[0])
		return Fork{}, errno
	}
	return Fork{Socket: pair[0], Maker: int(pid)}, nil
}

// fork forks a process that makes a sandbox and is told about it on a socket. There, the environment and our copy of the command line
// are wiped.
//
//go:norace
//go:nocheckptr
func fork(parent, flags uintptr, line []byte) (pid uintptr, errno syscall.Errno) {
	script := general().Encode()
	private := append(syscall.Environ(), unsafe.String(unsafe.SliceData(line), len(line)))
	return forkAndLive(parent, flags, unsafe.Pointer(&script[0]), private)
}

// forkAndLive returns in this process only.
//
//go:nosplit
//go:norace
//go:nocheckptr
func forkAndLive(parent, flags uintptr, script unsafe.Pointer, private []string) (pid uintptr, errno syscall.Errno) {
	// A handler of Go's must not run in the copy.
	life.packet[0] = ^uint64(0)
	try(syscall.SYS_RT_SIGPROCMASK, setSignals, uintptr(unsafe.Pointer(&life.packet)), uintptr(unsafe.Pointer(&life.mask)), 8)
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		live(parent, script, private)
	}
	try(syscall.SYS_RT_SIGPROCMASK, setSignals, uintptr(unsafe.Pointer(&life.mask)), 0, 8)
	return pid, errno
}
