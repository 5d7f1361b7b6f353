// Package first is the first process of a sandbox. It makes the namespaces, carries out what the parent has written down of the policy,
// starts the command, and is then PID 1: it gathers orphans, and with it all others end.
//
// It is a process without Go's runtime: a copy, forked as soon as possible, of a sesame that was started for that. All that there is to
// do takes less time than to initialise a program of Go's.
package first

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Name is argv[0] of a sesame that only forks the first process, and what that is called.
const Name = name

const name = "sesame-sandbox"

// Beginning is a first process on its way.
type Beginning struct {
	Socket  int // for messages both ways
	started chan struct{}
	unbound chan struct{}
	starter int // the process that forks it
	err     error
}

// Started waits until the process that forks the first one was started, and says which that is. It ends by itself.
func (b *Beginning) Started() (pid int, err error) {
	<-b.started
	return b.starter, b.err
}

// Unbind is called when the first process has ended, or need not end with this one.
func (b *Beginning) Unbind() { close(b.unbound) }

// Begin starts a first process, which waits for a script until the socket's other side is gone.
func Begin() (*Beginning, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &Beginning{Socket: pair[0], started: make(chan struct{}), unbound: make(chan struct{})}
	go func() {
		// The kernel sends the death signal when the *thread* that started the process ends.
		runtime.LockOSThread()
		b.starter, b.err = syscall.ForkExec("/proc/self/exe", []string{Name}, &syscall.ProcAttr{
			// It does one thing and ends: more threads, collecting garbage, and asking the cgroup how many threads to have, would only cost.
			Env:   []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"},
			Files: []uintptr{0, 1, 2, uintptr(pair[1])},
		})
		syscall.Close(pair[1])
		close(b.started)
		if b.err == nil {
			<-b.unbound
		}
	}()
	runtime.Gosched() // it is what everything waits for in the end: it goes first
	return b, nil
}

// early is what was begun before anything else.
var early atomic.Pointer[Beginning]

// Early takes what was begun when this program was, nil if nothing was. It is there once, however many ask at a time.
func Early() *Beginning { return early.Swap(nil) }

// init begins a sandbox before the program knows anything, and is what a process does that was started for that. It is not a function to
// be called from main, because all that a large program initialises before main would be waited for; this package needs next to no
// others, and Go initialises a package as soon as it can.
func init() {
	line := commandLine()
	switch {
	case firstIs(line, Name):
		forkAndEnd()
	case runsSandbox(line):
		b, _ := Begin() // if not, somebody else begins one, and has the error
		early.Store(b)
	}
}

// forkAndEnd is what the process does that was started as Name. Whoever waits for it waits for its copy, too: that is no child of
// this one's.
func forkAndEnd() {
	pid, errno := fork()
	m := Message{What: TellMaker, A: uint32(pid)}
	if errno != 0 {
		m = Message{What: TellFailed, A: AtFork, B: uint32(errno)}
	}
	try(syscall.SYS_SENDTO, Socket, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), syscall.MSG_NOSIGNAL)
	exit(0)
}

// fork forks a process that makes a sandbox and is told about it on Socket.
func fork() (pid uintptr, errno syscall.Errno) {
	script, err := general()
	if err != nil {
		return 0, syscall.E2BIG
	}
	return forkAndLive(unsafe.Pointer(&script.memory[0]))
}

// forkAndLive returns in this process only.
//
//go:nosplit
//go:norace
//go:nocheckptr
func forkAndLive(script unsafe.Pointer) (pid uintptr, errno syscall.Errno) {
	// A handler of Go's must not run in the copy.
	life.packet[0] = ^uint64(0)
	try(syscall.SYS_RT_SIGPROCMASK, setSignals, uintptr(unsafe.Pointer(&life.packet)), uintptr(unsafe.Pointer(&life.mask)), 8)
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, syscall.CLONE_PARENT|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		live(script)
	}
	return pid, errno
}

// runsSandbox tells a command line that probably runs something in a sandbox. If it does not, what was begun ends with this process.
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
