package first

import (
	"syscall"
	"unsafe"
)

// The first process is a copy of a program, and knows what that knew, unless it does not get the memory in which that stands. What is not
// copied need not be copied again, either, when the program writes there next.

// memory is a range of addresses, whole pages.
type memory struct{ start, end uintptr }

// ownMemory is what of this process's memory its copy must not have, as far as it can be written to: that is all but the program. It is
// nil if that is not known.
func ownMemory() (own []memory) {
	text := contents("/proc/self/maps")
	for len(text) > 0 {
		// 00e00000-03030000 rw-p 00000000 00:00 0
		var at [2]uintptr
		i, field := 0, 0
		for ; i < len(text) && text[i] != ' '; i++ {
			switch c := text[i]; {
			case c == '-':
				field++
			case c <= '9':
				at[field&1] = at[field&1]<<4 | uintptr(c-'0')
			default:
				at[field&1] = at[field&1]<<4 | uintptr(c-'a'+10)
			}
		}
		const write, private = 2, 4
		if i+private >= len(text) || field != 1 {
			return nil
		}
		if text[i+write] == 'w' && text[i+private] == 'p' {
			own = append(own, memory{at[0], at[1]})
		}
		for i < len(text) && text[i] != '\n' {
			i++
		}
		text = text[min(i+1, len(text)):]
	}
	return own
}

// Advice that package syscall does not know.
const wipeOnFork, keepOnFork = 18, 19

// keep has the kernel not copy memory, but for what the copy needs to live: its variables, and the stack around an address.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keep(own []memory, stack, page uintptr) (errno syscall.Errno) {
	for i := 0; i < len(own); i++ {
		// The copy has other memory there, empty: the kernel writes some for C's library (rseq). What is of a file, as the program's
		// own variables are, it does not have.
		errno = advise(own[i], wipeOnFork)
		if errno == syscall.EINVAL {
			errno = advise(own[i], syscall.MADV_DONTFORK)
		}
		if errno != 0 {
			return errno
		}
	}
	for i := 0; i < 3; i++ {
		var needed memory
		switch i {
		case 0: // it calls functions, and does not return
			needed = memory{stack - page, stack + page/2}
		case 1:
			needed = memory{uintptr(unsafe.Pointer(&life)), uintptr(unsafe.Pointer(&life)) + unsafe.Sizeof(life)}
		case 2:
			needed = memory{uintptr(unsafe.Pointer(&generally)), uintptr(unsafe.Pointer(&generally)) + unsafe.Sizeof(generally)}
		}
		needed = memory{needed.start &^ (page - 1), (needed.end + page - 1) &^ (page - 1)}
		if errno = advise(needed, keepOnFork); errno == 0 {
			errno = advise(needed, syscall.MADV_DOFORK)
		}
		if errno != 0 {
			return errno
		}
	}
	return 0
}

// advise says how memory is used. Where there is none nothing need be said.
//
//go:nosplit
//go:norace
//go:nocheckptr
func advise(m memory, use uintptr) syscall.Errno {
	_, errno := call(syscall.SYS_MADVISE, m.start, m.end-m.start, use, 0, 0, 0)
	if errno == syscall.ENOMEM {
		return 0
	}
	return errno
}
