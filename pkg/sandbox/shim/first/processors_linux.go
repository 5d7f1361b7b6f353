package first

import (
	"syscall"
	"unsafe"
)

// processors are those that a thread may run on, a bit for each. Machines with more than fit in are left alone.
type processors struct {
	bits [16]uint64
	size uintptr // of bits, in bytes, as far as the kernel uses them
}

// stay keeps this thread, and what it starts, on the processor that it is on, and returns that and all that it could use before.
func stay() (here uint32, all processors, ok bool) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(all.bits), uintptr(unsafe.Pointer(&all.bits)))
	if errno != 0 {
		return 0, all, false
	}
	all.size = n
	if _, _, errno := syscall.RawSyscall(sysGetcpu, uintptr(unsafe.Pointer(&here)), 0, 0); errno != 0 || uintptr(here) >= 8*n {
		return 0, all, false
	}
	one := processors{size: n}
	one.bits[here/64] = 1 << (here % 64)
	return here, all, one.set()
}

// without is all but one.
func (p processors) without(one uint32) *processors {
	p.bits[one/64] &^= 1 << (one % 64)
	return &p
}

// set has this thread run on these only, if it may.
func (p *processors) set() bool {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, p.size, uintptr(unsafe.Pointer(&p.bits)))
	return errno == 0
}

const hexDigits = "0123456789abcdef"

// text is for parse, a letter for each four bits.
func (p *processors) text() string {
	text := make([]byte, 2*p.size)
	for i := range text {
		text[i] = hexDigits[p.bits[i/16]>>(4*(i%16))&15]
	}
	return string(text)
}

// parse reads what text has written; of anything else it makes none.
func (p *processors) parse(text []byte) {
	if len(text)%16 != 0 || len(text) > 16*len(p.bits) {
		return
	}
	for i, c := range text {
		var v uint64
		switch {
		case c >= '0' && c <= '9':
			v = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			v = uint64(c-'a') + 10
		}
		p.bits[i/16] |= v << (4 * (i % 16))
	}
	p.size = uintptr(len(text) / 2)
}
