package first

import (
	"syscall"
	"unsafe"
)

// All of this file runs in a process that was forked from one with several threads and has only one: whatever another
// thread was about to do will never be done, a lock that it held is held for ever. So nothing here may reach Go's runtime: no
// allocation, no growing stack, no map, no lock, no panic. Memory is the one variable below; calls are raw.

// maxSlots bounds the results that scripts can keep.
const maxSlots = 1 << 13

// life is all that the first process remembers. In every other process it is of no use. Addresses are numbers: a pointer that is
// stored is a matter of Go's collector.
var life struct {
	packet   [8]uint64     // a message, or a few numbers or letters for the kernel
	control  [8]uint64     // what descriptors of a message come in
	stat     [18]uint64    // struct stat
	files    [2]uint64     // the limit of open files that the command is to have, soft and hard
	allowed  [128]uint64   // processors that it may run on
	here     [128]uint64   // the one that it runs on
	mayRun   uintptr       // the size of allowed in bytes, as far as the kernel knows of it; 0 if that was not to be had
	parents  uintptr       // the processor that the parent ran on when it forked this process, if that is the one that gives orders
	apart    bool          // this process runs on another one
	mask     uint64        // signals that were blocked before
	uid, gid uintptr       // the user's, as the host has them
	refused  syscall.Errno // why the kernel did not fork this process in namespaces of its own; 0 if it did
	children uint64        // a set with SIGCHLD in it
	scripts  uintptr       // how many the parent has sent
	command  uintptr       // the command's process id, when there is one
	execs    uintptr       // the error of execve that says most
	report   uintptr       // in the command's process: the pipe on which it says why it is not the command; else 0
	iov      struct{ base, length uintptr }
	msg      struct {
		name              uintptr
		nameLength        uint32
		iov, iovs         uintptr
		control, controls uintptr
		flags             int32
	}
	poll   [2]pollFd
	args   [6]uintptr // of the step that is carried out
	pipe   [2]int32
	said   [2]int32 // what goes through the pipe: the step that failed, and its error
	waited int32    // the status that wait4 has found
	slots  [maxSlots]int32
	text   [4096]byte
}

type pollFd struct {
	fd              int32
	events, revents int16
}

// Socket is the descriptor with which the first process reaches its parent.
const Socket = 3

// Descriptors of the first process.
const (
	socket   = Socket
	incoming = 4 // the first descriptor that a message brings; signals of children later
)

// System calls and numbers that package syscall does not have.
const (
	sysCloseRange = 436

	closeRangeCloexec = 4

	setProcessName = 15 // of prctl
	limitFiles     = 7
	setSignals     = 2
	pollIn         = 1
	cloneNewCgroup = 0x02000000
	atCwd          = ^uintptr(99) // -100
)

//go:nosplit
//go:norace
//go:nocheckptr
func call(number, a, b, c, d, e, f uintptr) (uintptr, syscall.Errno) {
	for {
		r, _, errno := syscall.RawSyscall6(number, a, b, c, d, e, f)
		if errno != syscall.EINTR {
			return r, errno
		}
	}
}

// try makes a call whose failure changes nothing, or is found out by what comes next.
//
//go:nosplit
//go:norace
//go:nocheckptr
func try(number, a, b, c, d uintptr) { _, _ = call(number, a, b, c, d, 0, 0) }

//go:nosplit
//go:norace
//go:nocheckptr
func exit(code uintptr) {
	for {
		try(syscall.SYS_EXIT_GROUP, code, 0, 0, 0)
	}
}

// text makes C's string of one of the constants of this file.
//
//go:nosplit
//go:norace
//go:nocheckptr
func text(s string) uintptr {
	for i := 0; i < len(s); i++ {
		life.text[i] = s[i]
	}
	life.text[len(s)] = 0
	return uintptr(unsafe.Pointer(&life.text))
}

// live makes what a sandbox has of its own besides what it was forked with, and carries out scripts: the one that is here already, then
// those that the parent sends. It does not return.
//
//go:nosplit
//go:norace
//go:nocheckptr
func live(script unsafe.Pointer) {
	try(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0)
	// If the parent is gone by now, there will be no message, but the end of the socket.
	stay()
	if at, errno := makeNamespaces(); errno != 0 {
		sayFailed(at, errno)
		exit(1)
	}
	say(TellSpace, space(), 0, 0) // as long as it has the host's /proc, and may look there
	obey(script)
}

// stay keeps this process, and those that it forks, on one processor until they roam, and not on the parent's if there is another. Else
// the kernel has them wait for that: it moves who is woken by a message to where the sender is, which it takes to have nothing more to
// do, and where it has put a new process that one stays though its own parent has ended.
//
//go:nosplit
//go:norace
//go:nocheckptr
func stay() {
	at := processor()
	for i := uintptr(1); at == life.parents && i < 8*life.mayRun; i++ { // the next one, so that many at a time do not meet on one
		if cpu := (life.parents + i) % (8 * life.mayRun); life.allowed[cpu/setBits]&(1<<(cpu%setBits)) != 0 {
			at = cpu
		}
	}
	if at >= 8*life.mayRun {
		return
	}
	life.apart = life.parents != nowhere && at != life.parents
	life.here[at/setBits] = 1 << (at % setBits)
	try(syscall.SYS_SCHED_SETAFFINITY, 0, life.mayRun, uintptr(unsafe.Pointer(&life.here)), 0)
}

// move moves a process that this one has just forked to another processor than its own. The kernel may have put it there behind this one,
// where it would stay until this one waits for something.
//
//go:nosplit
//go:norace
//go:nocheckptr
func move(pid uintptr) {
	at := life.parents
	if at >= 8*life.mayRun {
		return
	}
	life.here = life.allowed
	life.here[at/setBits] &^= 1 << (at % setBits)
	try(syscall.SYS_SCHED_SETAFFINITY, pid, life.mayRun, uintptr(unsafe.Pointer(&life.here)), 0) // there may be no other
}

// notePlaces notes on which processors this process may run.
//
//go:nosplit
//go:norace
//go:nocheckptr
func notePlaces() {
	size, errno := call(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(life.allowed), uintptr(unsafe.Pointer(&life.allowed)), 0, 0, 0)
	if errno == 0 {
		life.mayRun = size
	}
}

// setBits is the size of a set's elements.
const setBits = 64

// nowhere is the number of no processor.
const nowhere = 1<<32 - 1

// processor is the one that this process runs on.
//
//go:nosplit
//go:norace
//go:nocheckptr
func processor() uintptr {
	life.packet[0] = nowhere
	try(sysGetcpu, uintptr(unsafe.Pointer(&life.packet)), 0, 0, 0)
	return uintptr(uint32(life.packet[0]))
}

// roam lets this process run on all processors again.
//
//go:nosplit
//go:norace
//go:nocheckptr
func roam() {
	if life.mayRun == 0 {
		return
	}
	// Who names processors keeps to these when the control group gets more. So all are named, unless the caller had named some.
	for i := range life.here {
		life.here[i] = ^uint64(0)
	}
	all := uintptr(unsafe.Pointer(&life.here))
	try(syscall.SYS_SCHED_SETAFFINITY, 0, life.mayRun, all, 0)
	try(syscall.SYS_SCHED_GETAFFINITY, 0, life.mayRun, all, 0)
	for i := uintptr(0); i < life.mayRun/8; i++ {
		if life.here[i] != life.allowed[i] {
			try(syscall.SYS_SCHED_SETAFFINITY, 0, life.mayRun, uintptr(unsafe.Pointer(&life.allowed)), 0)
			return
		}
	}
}

// makeNamespaces makes those that this process was not forked in: that takes a while, in which the parent goes on.
//
//go:nosplit
//go:norace
//go:nocheckptr
func makeNamespaces() (at uintptr, errno syscall.Errno) {
	try(syscall.SYS_PRCTL, setProcessName, text(name), 0, 0)
	// Nothing that the caller's shell or CI left open may reach the command.
	if _, errno = call(sysCloseRange, socket+1, ^uintptr(0)>>32, 0, 0, 0, 0); errno != 0 {
		return AtPreparation, errno
	}
	// A policy may have more paths than a process may have files open.
	try(syscall.SYS_PRLIMIT64, 0, limitFiles, 0, uintptr(unsafe.Pointer(&life.files)))
	life.packet[0], life.packet[1] = life.files[1], life.files[1]
	try(syscall.SYS_PRLIMIT64, 0, limitFiles, uintptr(unsafe.Pointer(&life.packet)), 0)

	if life.refused != 0 {
		if _, errno = call(syscall.SYS_UNSHARE, syscall.CLONE_NEWUSER, 0, 0, 0, 0, 0); errno != 0 {
			return AtUserNamespace, errno
		}
		return AtNamespaces, life.refused
	}
	// One id of each kind is known there, the user's own: files look inside as they do outside.
	if errno = writeFile("/proc/self/setgroups", copyText("deny", 0)); errno != 0 {
		return AtIDs, errno
	}
	if errno = writeFile("/proc/self/uid_map", mapping(life.uid)); errno != 0 {
		return AtIDs, errno
	}
	if errno = writeFile("/proc/self/gid_map", mapping(life.gid)); errno != 0 {
		return AtIDs, errno
	}
	_, errno = call(syscall.SYS_UNSHARE, syscall.CLONE_NEWNS|syscall.CLONE_NEWNET|syscall.CLONE_NEWIPC|syscall.CLONE_NEWUTS|cloneNewCgroup, 0, 0, 0, 0, 0)
	return AtNamespaces, errno
}

// letters is packet, by bytes.
//
//go:nosplit
//go:norace
//go:nocheckptr
func letters() *[64]byte { return (*[64]byte)(unsafe.Pointer(&life.packet)) }

// space is the inode number of the process namespace, 0 if that is not to be had.
//
//go:nosplit
//go:norace
//go:nocheckptr
func space() uintptr {
	const inodeAt = 8 // in struct stat
	if _, errno := call(sysNewfstatat, atCwd, text("/proc/self/ns/pid"), uintptr(unsafe.Pointer(&life.stat)), 0, 0, 0); errno != 0 {
		return 0
	}
	return uintptr(*(*uint64)(unsafe.Add(unsafe.Pointer(&life.stat), inodeAt)))
}

// mapping writes "id id 1" into packet and returns its length.
//
//go:nosplit
//go:norace
//go:nocheckptr
func mapping(id uintptr) (length uintptr) {
	length = number(id, 0)
	letters()[length] = ' '
	length = number(id, length+1)
	return copyText(" 1", length)
}

// number writes a number into packet from a place on, and returns where it ends.
//
//go:nosplit
//go:norace
//go:nocheckptr
func number(n, at uintptr) (end uintptr) {
	digits := uintptr(1)
	for m := n; m >= 10; m /= 10 {
		digits++
	}
	for i := digits; i > 0; i-- {
		letters()[at+i-1] = '0' + byte(n%10)
		n /= 10
	}
	return at + digits
}

//go:nosplit
//go:norace
//go:nocheckptr
func copyText(s string, at uintptr) (end uintptr) {
	for i := 0; i < len(s); i++ {
		letters()[at+uintptr(i)] = s[i]
	}
	return at + uintptr(len(s))
}

// writeFile writes the beginning of packet into a file.
//
//go:nosplit
//go:norace
//go:nocheckptr
func writeFile(path string, length uintptr) syscall.Errno {
	fd, errno := call(syscall.SYS_OPENAT, atCwd, text(path), syscall.O_WRONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	_, errno = call(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&life.packet)), length, 0, 0, 0)
	try(syscall.SYS_CLOSE, fd, 0, 0, 0)
	return errno
}

// obey carries out a script and then what the parent says, until the parent is gone or the command has ended.
//
//go:nosplit
//go:norace
//go:nocheckptr
func obey(script unsafe.Pointer) {
	if at, errno := perform(script); errno != 0 {
		fail(at, errno)
	}
	for {
		if life.report != 0 {
			exit(127) // the command's process, whose script has ended: it is no first process
		}
		if life.command != 0 {
			life.poll[0], life.poll[1] = pollFd{socket, pollIn, 0}, pollFd{incoming, pollIn, 0}
			try(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&life.poll)), 2, 0, 0)
			if life.poll[1].revents != 0 {
				try(syscall.SYS_READ, incoming, uintptr(unsafe.Pointer(&life.text)), uintptr(len(life.text)), 0)
				reap()
			}
			if life.poll[0].revents == 0 {
				continue
			}
		}
		m, ok := receive()
		switch {
		case !ok:
			exit(1) // the parent is gone: ending this process ends all
		case m.What == orderSignal && life.command != 0:
			try(syscall.SYS_KILL, life.command, uintptr(m.A), 0, 0) // it may have ended meanwhile
		case m.What == orderScript && life.command == 0:
			life.scripts++
			if at, errno := perform(receiveScript(uintptr(m.A))); errno != 0 {
				fail(at, errno)
			}
			if life.command != 0 {
				startReaping()
			}
		}
	}
}

// looks is how often this process looks for an order before it sleeps, while the parent makes plans on another processor: a millisecond or
// two, where each order takes the parent less. To be woken takes a tenth of one.
const looks = 8000

// receive waits for a message of the parent's. It is false when there will be none.
//
//go:nosplit
//go:norace
//go:nocheckptr
func receive() (*Message, bool) {
	life.iov.base, life.iov.length = uintptr(unsafe.Pointer(&life.packet)), unsafe.Sizeof(life.packet)
	life.msg.iov, life.msg.iovs = uintptr(unsafe.Pointer(&life.iov)), 1
	life.msg.control, life.msg.controls = uintptr(unsafe.Pointer(&life.control)), unsafe.Sizeof(life.control)
	n, errno := uintptr(0), syscall.EAGAIN
	for i := 0; i < looks && errno == syscall.EAGAIN && life.apart && life.command == 0; i++ {
		n, errno = call(syscall.SYS_RECVMSG, socket, uintptr(unsafe.Pointer(&life.msg)), syscall.MSG_DONTWAIT, 0, 0, 0)
	}
	if errno == syscall.EAGAIN {
		n, errno = call(syscall.SYS_RECVMSG, socket, uintptr(unsafe.Pointer(&life.msg)), 0, 0, 0, 0)
	}
	return (*Message)(unsafe.Pointer(&life.packet)), errno == 0 && n == unsafe.Sizeof(Message{})
}

// receiveScript takes the script that came with an order. Its memory stays the parent's, which goes on writing there.
//
//go:nosplit
//go:norace
//go:nocheckptr
func receiveScript(size uintptr) unsafe.Pointer {
	at, errno := call(syscall.SYS_MMAP, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED, fdOfControl(0), 0)
	if errno != 0 {
		sayFailed(AtPreparation, errno)
		exit(1)
	}
	try(syscall.SYS_CLOSE, fdOfControl(0), 0, 0, 0)
	return *(*unsafe.Pointer)(unsafe.Pointer(&at))
}

// await waits for the order to go on, and takes the command's streams if they come with it. They are this process's own from
// then on, so that it holds no others.
//
//go:nosplit
//go:norace
//go:nocheckptr
func await() {
	for {
		m, ok := receive()
		if !ok {
			exit(1) // the parent is gone
		}
		if m.What != orderGoOn {
			continue
		}
		for i := uintptr(0); m.B != 0 && i < 3; i++ {
			if _, errno := call(syscall.SYS_DUP3, fdOfControl(i), i, 0, 0, 0, 0); errno != 0 {
				sayFailed(AtPreparation, errno)
				exit(1)
			}
			try(syscall.SYS_CLOSE, fdOfControl(i), 0, 0, 0)
		}
		return
	}
}

// fdOfControl is a descriptor that came with a message. There is one control message, with its header before them.
//
//go:nosplit
//go:norace
//go:nocheckptr
func fdOfControl(i uintptr) uintptr {
	return uintptr(*(*int32)(unsafe.Add(unsafe.Pointer(&life.control), syscall.SizeofCmsghdr+4*i)))
}

// links makes links of a file in a directory, by each name of a list that ends with an empty one.
//
//go:nosplit
//go:norace
//go:nocheckptr
func links(from, file, to uintptr, names unsafe.Pointer) syscall.Errno {
	for *(*byte)(names) != 0 {
		if _, errno := call(syscall.SYS_LINKAT, from, file, to, uintptr(names), 0, 0); errno != 0 {
			return errno
		}
		for *(*byte)(names) != 0 {
			names = unsafe.Add(names, 1)
		}
		names = unsafe.Add(names, 1)
	}
	return 0
}

// perform carries out a script, as far as it goes.
//
//go:nosplit
//go:norace
//go:nocheckptr
func perform(script unsafe.Pointer) (at uintptr, errno syscall.Errno) {
	h := (*header)(script)
	data := uintptr(script) + uintptr(h.data)
	a := &life.args
	for pc := uintptr(0); pc < uintptr(h.steps); {
		st := (*step)(unsafe.Add(script, unsafe.Sizeof(header{})+pc*unsafe.Sizeof(step{})))
		at = pc
		pc++
		for i := 0; i < 6; i++ {
			v := uintptr(int(st.args[i]))
			switch (st.kinds >> (4 * uint(i))) & 15 {
			case kindData:
				v += data
			case kindSlot:
				v = uintptr(life.slots[v&(maxSlots-1)])
			}
			a[i] = v
		}
		var r uintptr
		switch st.call {
		case callJump:
			pc = a[0]
			continue
		case callPoke:
			*(*int32)(unsafe.Add(script, uintptr(h.data)+a[0])) = life.slots[a[1]&(maxSlots-1)]
			continue
		case callRelocate:
			for i := uintptr(0); i < a[1]; i++ {
				if p := (*uint64)(unsafe.Add(script, uintptr(h.data)+a[0]+8*i)); *p != 0 {
					*p += uint64(data)
				}
			}
			continue
		case callPath:
			appendPath(unsafe.Add(script, uintptr(h.data)+a[0]), uintptr(life.slots[a[1]&(maxSlots-1)]))
			continue
		case callDropBounding:
			errno = dropBounding()
		case callLinks:
			errno = links(a[0], a[1], a[2], unsafe.Add(script, uintptr(h.data)+a[3]))
		case callCheck:
			errno = syscall.Errno(-*(*int32)(unsafe.Add(script, uintptr(h.data)+a[0])))
		case callStart:
			in, e := start()
			if e != 0 {
				return at, e
			}
			if in {
				pc = a[0]
			}
			continue
		case callNoCommand:
			if life.execs == 0 { // there was nothing to try
				return at, syscall.ENOENT
			}
			return at, syscall.Errno(life.execs)
		case callAwait:
			await()
			continue
		default:
			r, errno = call(uintptr(st.call), a[0], a[1], a[2], a[3], a[4], a[5])
		}
		if errno != 0 {
			e := uint16(errno)
			if e != st.spare[0] && e != st.spare[1] && e != st.spare[2] && e != st.spare[3] {
				return at, errno
			}
			if st.call == syscall.SYS_EXECVE && (life.execs == 0 || errno == syscall.EACCES) {
				life.execs = uintptr(errno)
			}
			if st.other != 0 {
				pc = uintptr(st.other)
			}
			continue
		}
		if st.out != 0 {
			life.slots[st.out&(maxSlots-1)] = int32(r)
		}
	}
	return 0, 0
}

// dropBounding takes all capabilities out of the bounding set, to one past the kernel's last.
//
//go:nosplit
//go:norace
//go:nocheckptr
func dropBounding() syscall.Errno {
	const auditRead = 37 // all kernels have those before
	for c := uintptr(0); ; c++ {
		_, errno := call(syscall.SYS_PRCTL, syscall.PR_CAPBSET_DROP, c, 0, 0, 0, 0)
		if errno == syscall.EINVAL && c > auditRead {
			return 0
		}
		if errno != 0 {
			return errno
		}
	}
}

// appendPath appends to a text the path of a descriptor.
//
//go:nosplit
//go:norace
//go:nocheckptr
func appendPath(to unsafe.Pointer, fd uintptr) {
	length := uintptr(0)
	if *(*byte)(to) != 0 {
		for *(*byte)(unsafe.Add(to, length)) != 0 {
			length++
		}
		*(*byte)(unsafe.Add(to, length)) = ':'
		length++
	}
	end := number(fd, copyText("/proc/self/fd/", 0))
	for i := uintptr(0); i < end; i++ {
		*(*byte)(unsafe.Add(to, length+i)) = letters()[i]
	}
}

// fail ends this process, and what is in its namespaces with it, because of a step that failed.
//
//go:nosplit
//go:norace
//go:nocheckptr
func fail(at uintptr, errno syscall.Errno) {
	if life.report == 0 {
		sayFailed(at+AtStep+life.scripts*NextScript, errno)
		exit(1)
	}
	life.said[0], life.said[1] = int32(at), int32(errno)
	try(syscall.SYS_WRITE, life.report, uintptr(unsafe.Pointer(&life.said)), unsafe.Sizeof(life.said), 0)
	exit(127)
}

// start forks the process that becomes the command. It returns true there, and in this one when the command runs. If it does not,
// this one ends.
//
//go:nosplit
//go:norace
//go:nocheckptr
func start() (inCommand bool, errno syscall.Errno) {
	if _, errno = call(syscall.SYS_PIPE2, uintptr(unsafe.Pointer(&life.pipe)), syscall.O_CLOEXEC, 0, 0, 0, 0); errno != 0 {
		return false, errno
	}
	reader, writer := uintptr(life.pipe[0]), uintptr(life.pipe[1])
	pid, errno := call(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return false, errno
	}
	if pid == 0 {
		life.report = writer
		roam()
		// Nothing but its streams reaches the command.
		if _, errno = call(sysCloseRange, Socket, ^uintptr(0)>>32, closeRangeCloexec, 0, 0, 0); errno != 0 {
			return true, errno
		}
		try(syscall.SYS_PRLIMIT64, 0, limitFiles, uintptr(unsafe.Pointer(&life.files)), 0)
		try(syscall.SYS_RT_SIGPROCMASK, setSignals, uintptr(unsafe.Pointer(&life.mask)), 0, 8)
		return true, 0
	}
	life.command = pid
	roam()
	try(syscall.SYS_CLOSE, writer, 0, 0, 0)
	n, _ := call(syscall.SYS_READ, reader, uintptr(unsafe.Pointer(&life.said)), unsafe.Sizeof(life.said), 0, 0, 0)
	try(syscall.SYS_CLOSE, reader, 0, 0, 0)
	if n != 0 {
		sayFailed(uintptr(life.said[0])+AtStep+life.scripts*NextScript, syscall.Errno(life.said[1]))
		exit(1)
	}
	say(TellStarted, 0, 0, 0)
	return false, 0
}

// startReaping has children's ends come in on a descriptor; the signal itself is blocked, as all are. Some may have ended already.
//
//go:nosplit
//go:norace
//go:nocheckptr
func startReaping() {
	life.children = 1 << (syscall.SIGCHLD - 1)
	try(syscall.SYS_CLOSE, incoming, 0, 0, 0)
	fd, errno := call(syscall.SYS_SIGNALFD4, ^uintptr(0), uintptr(unsafe.Pointer(&life.children)), 8, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0, 0)
	if errno != 0 {
		sayFailed(AtPreparation, errno)
		exit(1)
	}
	if fd != incoming {
		try(syscall.SYS_DUP3, fd, incoming, syscall.O_CLOEXEC, 0)
	}
	reap()
}

// reap takes what has ended: the command's orphans on the way, and the command, which ends all.
//
//go:nosplit
//go:norace
//go:nocheckptr
func reap() {
	ended, status := false, uint32(0)
	for {
		pid, errno := call(syscall.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&life.waited)), syscall.WNOHANG, 0, 0, 0)
		switch {
		case errno == 0 && pid == 0:
			if ended {
				sayEnded(status, 0)
				exit(0)
			}
			return
		case errno != 0: // nobody is left
			if !ended {
				exit(1)
			}
			// If nothing was left behind, the parent need not wait for this process; then nobody who reads the command's output must
			// either. Taking the namespaces apart takes the kernel a while, and it is done when the parent is.
			for fd := uintptr(0); fd < 3; fd++ {
				try(syscall.SYS_CLOSE, fd, 0, 0, 0)
			}
			sayEnded(status, 1)
			for {
				if _, ok := receive(); !ok {
					exit(0)
				}
			}
		case pid == life.command:
			if s := uint32(life.waited); s&0xff != 0x7f { // and not just stopped under ptrace
				ended, status = true, s
			}
		}
	}
}

//go:nosplit
//go:norace
//go:nocheckptr
func sayEnded(status uint32, alone uintptr) {
	if signal := uintptr(status & 0x7f); signal != 0 {
		say(TellEnded, 128+signal, signal, alone)
		return
	}
	say(TellEnded, uintptr(status>>8&0xff), 0, alone)
}

//go:nosplit
//go:norace
//go:nocheckptr
func sayFailed(at uintptr, errno syscall.Errno) { say(TellFailed, at, uintptr(errno), 0) }

// say sends the parent a Message.
//
//go:nosplit
//go:norace
//go:nocheckptr
func say(what uint32, a, b, c uintptr) {
	m := (*Message)(unsafe.Pointer(&life.packet))
	m.What, m.A, m.B, m.C = what, uint32(a), uint32(b), uint32(c)
	try(syscall.SYS_SENDTO, socket, uintptr(unsafe.Pointer(m)), unsafe.Sizeof(*m), syscall.MSG_NOSIGNAL)
}
