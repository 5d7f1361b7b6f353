package first

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first/narrow"
)

// Until the command runs, this process does one thing after the other, and shares the processors with the first process. What Go's runtime
// does besides would take time from both: threads that look for work, and the monitor (sysmon), a thread that a timer wakes every 70
// microseconds.

// narrowed tells that this process has one processor only.
var narrowed atomic.Bool

// quieten is for a program that has just begun, on its main thread.
func quieten() {
	narrowed.Store(true)
	if findMonitor() {
		delayTimers(monitor.thread, monitorDelay)
	}
}

// widen gives this process all its processors.
func widen() { runtime.GOMAXPROCS(narrow.Usual) }

// Loosen gives this process all its processors, and the runtime its monitor, which it does without from Begin on. That takes some threads
// and their time, which a command that ends at once would have to wait for.
func Loosen() {
	if narrowed.Swap(false) {
		widen()
		if monitor.thread != 0 {
			hurry()
		}
	}
}

// monitor is about the thread of the runtime's monitor.
var monitor struct {
	action signalAction // of the signal that it gets
	thread uintptr      // 0 if it was not found
	usual  uintptr      // how late timers of this process may be, in nanoseconds
	delay  uintptr      // how late those of a thread that gets the signal may be
}

const (
	// The monitor also sees to it that others go on when a thread waits in a system call: that may take so long now.
	monitorDelay = 5_000_000 // nanoseconds

	monitorSignal = 64 // the last one, which nobody sends
	threadsTried  = 16

	setTimerSlack, getTimerSlack = 29, 30 // of prctl
)

// signalAction is the kernel's struct sigaction.
type signalAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// findMonitor looks for the first thread that the runtime has started, and sets the handler of its signal. Where other processes were started
// meanwhile it may have a number far from this one's: then all is as ever.
func findMonitor() bool {
	action := uintptr(unsafe.Pointer(&monitor.action))
	const size = unsafe.Sizeof(monitor.action.mask)
	// What runs a handler of Go's runs this one. On other architectures that was not tried.
	if _, errno := call(syscall.SYS_RT_SIGACTION, monitorSignal, 0, action, size, 0, 0); errno != 0 || monitor.action.restorer == 0 || runtime.GOARCH != "amd64" {
		return false
	}
	handler := obeyDelay
	monitor.action.handler = **(**uintptr)(unsafe.Pointer(&handler))
	if _, errno := call(syscall.SYS_RT_SIGACTION, monitorSignal, action, 0, size, 0, 0); errno != 0 {
		return false
	}
	var errno syscall.Errno
	if monitor.usual, errno = call(syscall.SYS_PRCTL, getTimerSlack, 0, 0, 0, 0, 0); errno != 0 {
		return false
	}
	own := uintptr(syscall.Getpid())
	for thread := own + 1; thread <= own+threadsTried; thread++ {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_TGKILL, own, thread, 0); errno == 0 {
			monitor.thread = thread
			return true
		}
	}
	return false
}

// delayTimers has a thread say how late its timers may be: of another one only root may say that.
func delayTimers(thread, by uintptr) {
	monitor.delay = by
	try(syscall.SYS_TGKILL, uintptr(syscall.Getpid()), thread, monitorSignal, 0)
}

// obeyDelay is a handler of signals, which the kernel calls wherever the thread is. It must not reach Go's runtime.
//
//go:nosplit
//go:norace
//go:nocheckptr
func obeyDelay() { try(syscall.SYS_PRCTL, setTimerSlack, monitor.delay, 0, 0) }

// hurry has all threads be as late as usual. A thread is as late as the one that started it, and the monitor starts some.
func hurry() {
	told := map[string]bool{}
	for before := -1; before < len(told); {
		before = len(told)
		for _, name := range threads() {
			if told[name] {
				continue
			}
			told[name] = true
			var id uintptr
			for _, c := range name {
				id = id*10 + uintptr(c-'0')
			}
			delayTimers(id, monitor.usual)
		}
	}
}

// threads are those of this process, by their numbers.
func threads() (names []string) {
	fd, err := syscall.Open("/proc/self/task", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	buffer := make([]byte, 8<<10)
	for {
		n, err := syscall.ReadDirent(fd, buffer)
		if err != nil || n <= 0 {
			return names
		}
		_, _, names = syscall.ParseDirent(buffer[:n], -1, names)
	}
}
