package sandbox

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// interrupt80 lets a program make system calls of 32-bit programs by int 0x80: old(NUMBER, a, b, c).
const interrupt80 = `
import mmap
page = mmap.mmap(-1, 4096, prot=7)
# push rbx; mov eax, edi; mov ebx, esi; mov r8d, ecx; mov ecx, edx; mov edx, r8d; int 0x80; pop rbx; ret
page.write(bytes.fromhex("53 89f8 89f3 4189c8 89d1 4489c2 cd80 5b c3"))
old = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 4)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
`

// The calls of other ABIs, whose numbers mean other things, are as good a way to the kernel as this machine's own.
func TestForeignCalls(t *testing.T) {
	h := newHost(t)
	old := func(code string) string { return program(interrupt80 + code) }
	_, _, errno := unix.RawSyscall(x32|unix.SYS_GETPID, 0, 0, 0)
	hasX32 := errno != unix.ENOSYS // most kernels have none
	attacks := []attack{
		{"any at all", old(`got(old(20, 0, 0, 0))`), true},
		{"a user namespace", old(`got(old(310, 0x10000000, 0, 0))`), true},
		{"keyrings", old(`got(old(288, 0, -4, 0))`), true},
		{"userfaultfd", old(`got(old(374, 1, 0, 0))`), true},
		{"a file", old(`path = mmap.mmap(-1, 4096, flags=0x62, prot=3); path.write(b"/proc/self/status\0"); r = old(5, ctypes.addressof(ctypes.c_char.from_buffer(path)), 0, 0); got(r)`), true},
	}
	for name, nr := range map[string]int{"any at all": unix.SYS_GETPID, "keyrings": unix.SYS_KEYCTL, "userfaultfd": unix.SYS_USERFAULTFD} {
		args := map[string]string{"keyrings": "0, -4, 0", "userfaultfd": "1"}[name]
		attacks = append(attacks, attack{"x32: " + name, program(`got(call(` + strconv.Itoa(x32|nr) + `, ` + args + `))`), hasX32})
	}
	h.refuse(attacks)
}

// x32 marks the calls of the x32 ABI.
const x32 = 0x40000000
