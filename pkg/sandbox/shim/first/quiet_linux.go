package first

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Until the command runs, this process does one thing after the other, and shares the processors with the first process. What Go's runtime
// does besides would take time from both: threads that look for work, and the monitor (sysmon), a thread that a timer wakes every 70
// microseconds.

// processors is how many this process may use, 0 if it need not be told.
var processors atomic.Int32

// quieten is for a program that has just begun, on its main thread.
func quieten() {
	processors.Store(int32(runtime.GOMAXPROCS(1)))
	findMonitor()
	delayMonitor(monitorDelay)
}

// Loosen gives this process all its processors, and the runtime its monitor, which it does without from Begin on. That takes some threads
// and their time, which a command that ends at once would have to wait for.
func Loosen() {
	if n := processors.Swap(0); n > 0 {
		runtime.GOMAXPROCS(int(n))
		delayMonitor(0)
	}
}

// monitor is the thread of the runtime's monitor, 0 if it was not found, and how late its timers may be, in nanoseconds; 0 is what it was at
// first.
var monitor struct{ thread, delay uintptr }

const (
	// The monitor also sees to it that others go on when a thread waits in a system call: that may take so long now.
	monitorDelay = 5_000_000 // nanoseconds

	monitorSignal = 64 // the last one, which nobody sends
	threadsTried  = 16

	setTimerSlack = 29 // of prctl
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
func findMonitor() {
	var action signalAction
	at := uintptr(unsafe.Pointer(&action))
	const size = unsafe.Sizeof(action.mask)
	// What runs a handler of Go's runs this one. On other architectures that was not tried.
	if _, errno := call(syscall.SYS_RT_SIGACTION, monitorSignal, 0, at, size, 0, 0); errno != 0 || action.restorer == 0 || runtime.GOARCH != "amd64" {
		return
	}
	handler := obeyDelay
	action.handler = **(**uintptr)(unsafe.Pointer(&handler))
	if _, errno := call(syscall.SYS_RT_SIGACTION, monitorSignal, at, 0, size, 0, 0); errno != 0 {
		return
	}
	own := uintptr(syscall.Getpid())
	for thread := own + 1; thread <= own+threadsTried; thread++ {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_TGKILL, own, thread, 0); errno == 0 {
			monitor.thread = thread
			return
		}
	}
}

// delayMonitor has the monitor say how late its timers may be: of another thread only root may say that.
func delayMonitor(by uintptr) {
	if monitor.thread != 0 {
		monitor.delay = by
		try(syscall.SYS_TGKILL, uintptr(syscall.Getpid()), monitor.thread, monitorSignal, 0)
	}
}

// obeyDelay is a handler of signals, which the kernel calls wherever the thread is. It must not reach Go's runtime.
//
//go:nosplit
//go:norace
//go:nocheckptr
func obeyDelay() { try(syscall.SYS_PRCTL, setTimerSlack, monitor.delay, 0, 0) }
