// Package first is the first process of a sandbox. It makes the namespaces, carries out what the parent has written down of the policy,
// starts the command, and is then PID 1: it gathers orphans, and with it all others end.
//
// It is a copy of sesame that was forked, not started: starting a program of Go's takes longer than all that there is to do.
package first

import (
	"os"
	"syscall"
	"unsafe"
)

// Name is argv[0] of a sesame that only forks the first process, and what that is called.
const Name = name

const name = "sesame-sandbox"

// Fork forks a process that makes a sandbox and then waits for a script. It is a copy of this one in which the environment and the
// command line are wiped, so this one must not know any other secret yet. The socket is for messages both ways, and closed here. It
// returns the process that makes the namespaces and then ends.
func Fork(socket *os.File) (maker int, err error) {
	defer socket.Close()
	pid, errno := fork(socket.Fd(), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("fork", errno)
	}
	return int(pid), nil
}

// Main is what a process does that was started as Name, with the socket as its descriptor Socket. Whoever waits for it waits for
// its copy, too: that is no child of this one's.
func Main() {
	pid, errno := fork(Socket, syscall.CLONE_PARENT)
	m := Message{What: TellMaker, A: uint32(pid)}
	if errno != 0 {
		m = Message{What: TellFailed, A: AtFork, B: uint32(errno)}
	}
	try(syscall.SYS_SENDTO, Socket, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), syscall.MSG_NOSIGNAL)
}

// fork forks a process that makes a sandbox and is told about it on a socket.
func fork(parent, flags uintptr) (pid uintptr, errno syscall.Errno) {
	script, err := general()
	if err != nil {
		return 0, syscall.E2BIG
	}
	return forkAndLive(parent, flags, unsafe.Pointer(&script.memory[0]), append(syscall.Environ(), os.Args...))
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
