// Package first is the first process of a sandbox. It makes the namespaces, carries out what the parent has written down of the policy,
// starts the command, and is then PID 1: it gathers orphans, and with it all others end.
//
// It is a process without Go's runtime: a copy, forked as soon as possible, of sesame, or of one that was started for that. All that
// there is to do takes less time than to initialise a program of Go's.
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
	starter int // the process that was started to fork it, 0 if there is none
	first   int // itself, 0 if the starter is to tell that
	err     error
}

// Started waits until the first process was forked, and says which that is; or until another one was started to fork it, which tells
// that, and then ends.
func (b *Beginning) Started() (starter, first int, err error) {
	<-b.started
	return b.starter, b.first, b.err
}

// Unbind is called when the first process has ended, or need not end with this one.
func (b *Beginning) Unbind() { close(b.unbound) }

// Begin starts a first process, which waits for a script until the socket's other side is gone.
//
// By now this process knows things that no copy of it may have. So it starts another one, which is forked.
func Begin() (*Beginning, error) {
	b, theirs, err := beginning()
	if err != nil {
		return nil, err
	}
	go func() {
		// The kernel sends the death signal when the *thread* that started the process ends.
		runtime.LockOSThread()
		b.starter, b.err = syscall.ForkExec("/proc/self/exe", []string{Name}, &syscall.ProcAttr{
			// It does one thing and ends: more threads, collecting garbage, and asking the cgroup how many threads to have, would only cost.
			Env:   []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"},
			Files: []uintptr{0, 1, 2, uintptr(theirs)},
		})
		syscall.Close(theirs)
		close(b.started)
		if b.err == nil {
			<-b.unbound
		}
	}()
	runtime.Gosched() // it is what everything waits for in the end: it goes first
	return b, nil
}

func beginning() (b *Beginning, theirs int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, err
	}
	return &Beginning{Socket: pair[0], started: make(chan struct{}), unbound: make(chan struct{})}, pair[1], nil
}

// early is what was begun before anything else.
var early atomic.Pointer[Beginning]

// Early takes what was begun when this program was, nil if nothing was. It is there once, however many ask at a time.
func Early() *Beginning { return early.Swap(nil) }

// init begins a sandbox before the program knows anything, and is what a process does that was started for that. It is not a function to
// be called from main, because all that a large program initialises before main would be waited for; this package needs next to no
// others, and Go initialises a package as soon as it can.
func init() {
	switch arguments := given(); {
	case firstIs(arguments, Name):
		forkAndEnd()
	case runsSandbox(arguments):
		if b := beginHere(); b != nil {
			early.Store(b)
			return
		}
		fallthrough // somebody else begins one
	default:
		widen()
	}
}

// beginHere forks the first process off this one, on the main thread, which lasts.
func beginHere() *Beginning {
	own := ownMemory()
	if own == nil {
		return nil
	}
	b, theirs, err := beginning()
	if err != nil {
		return nil
	}
	pid, errno := fork(0, uintptr(theirs), own)
	syscall.Close(theirs)
	if errno != 0 {
		syscall.Close(b.Socket)
		return nil
	}
	b.first = int(pid)
	close(b.started)
	quieten()
	return b
}

// forkAndEnd is what the process does that was started as Name. Whoever waits for it waits for its copy, too: that is no child of
// this one's.
func forkAndEnd() {
	pid, errno := fork(syscall.CLONE_PARENT, Socket, nil)
	m := Message{What: TellFirst, A: uint32(pid)}
	if errno != 0 {
		m = Message{What: TellFailed, A: AtFork, B: uint32(errno)}
	}
	try(syscall.SYS_SENDTO, Socket, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), syscall.MSG_NOSIGNAL)
	exit(0)
}

// fork forks a process that makes a sandbox and is told about it on a socket. It does not get the memory that is this process's own.
func fork(flags, theirs uintptr, own []memory) (pid uintptr, errno syscall.Errno) {
	if _, err := general(unsafe.Slice((*byte)(unsafe.Pointer(&generally)), unsafe.Sizeof(generally))); err != nil {
		return 0, syscall.E2BIG
	}
	// Go has raised the limit of open files, and gives it back what it was before it executes something.
	_ = syscall.Exec("", nil, nil)
	return forkAndLive(flags, theirs, own, uintptr(syscall.Getpagesize()))
}

// Ready gives this process as many open files as it may have, as all programs of Go's have. It does without from Begin on until the
// command runs.
func Ready() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max - 1
		try(syscall.SYS_PRLIMIT64, 0, limitFiles, uintptr(unsafe.Pointer(&limit)), 0) // package syscall would forget that others are not to have it
	}
}

// forkAndLive returns in this process only.
//
//go:nosplit
//go:norace
//go:nocheckptr
func forkAndLive(flags, theirs uintptr, own []memory, page uintptr) (pid uintptr, errno syscall.Errno) {
	life.uid, _ = call(syscall.SYS_GETUID, 0, 0, 0, 0, 0, 0)
	life.gid, _ = call(syscall.SYS_GETGID, 0, 0, 0, 0, 0, 0)
	// A handler of Go's must not run in the copy.
	life.packet[0] = ^uint64(0)
	try(syscall.SYS_RT_SIGPROCMASK, setSignals, uintptr(unsafe.Pointer(&life.packet)), uintptr(unsafe.Pointer(&life.mask)), 8)
	if len(own) > 0 {
		errno = keep(own, uintptr(unsafe.Pointer(&own)), page)
	}
	notePlaces()
	life.parents = nowhere
	if flags == 0 { // the copy will be this process's own child, and have to do with this one only
		life.parents = processor()
	}
	if errno == 0 {
		pid, _, life.refused = syscall.RawSyscall6(syscall.SYS_CLONE, flags|syscall.CLONE_NEWUSER|syscall.CLONE_NEWPID|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if life.refused != 0 { // the copy says so, as it says all else that it cannot do
			pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		}
	}
	if errno == 0 && pid == 0 {
		if theirs != socket {
			if _, errno = call(syscall.SYS_DUP3, theirs, socket, syscall.O_CLOEXEC, 0, 0, 0); errno != 0 {
				exit(1)
			}
		}
		live(unsafe.Pointer(&generally))
	}
	if errno == 0 {
		move(pid)
	}
	try(syscall.SYS_RT_SIGPROCMASK, setSignals, uintptr(unsafe.Pointer(&life.mask)), 0, 8)
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

// given are this program's arguments, with a zero behind each.
func given() []byte { return contents("/proc/self/cmdline") }

// contents are those of a file, nil if it cannot be read.
func contents(path string) []byte {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	const page = 4096
	text, n := make([]byte, page), 0
	for {
		more, err := syscall.Read(fd, text[n:])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return nil
		case more == 0:
			return text[:n]
		}
		if n += max(more, 0); n == len(text) {
			text = append(text, make([]byte, len(text))...)
		}
	}
}
