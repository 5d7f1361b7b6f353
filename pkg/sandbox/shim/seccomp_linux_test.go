package shim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// world is what the filter's rules depend on.
type world struct {
	confined bool // in the tier landlock
	abi      int  // Landlock's there
	strict   bool
}

var worlds = []world{{}, {strict: true}, {true, abiScopes, false}, {true, abiScopes, true}, {true, abiRefer, false}, {true, abiRefer, true}}

func (w world) String() string {
	return fmt.Sprintf("confined %t by Landlock %d, strict %t", w.confined, w.abi, w.strict)
}

// program is the filter as the tiers make it.
func (w world) program() []unix.SockFilter {
	var more []rule
	if w.strict {
		more = strictRules
	}
	if w.confined {
		more = slices.Concat(more, confinedRules(w.abi))
	}
	return filterProgram(more)
}

type arguments [4]uint32

const (
	yes    = unix.SECCOMP_RET_ALLOW
	notify = unix.SECCOMP_RET_USER_NOTIF
)

func no(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

// wanted says in plain words what the filter is to say of a call of this architecture.
func (w world) wanted(nr uint32, a arguments) uint32 {
	if x32 := uint32(1 << 30); auditArch == unix.AUDIT_ARCH_X86_64 && nr >= x32 {
		return no(unix.ENOSYS)
	}
	if slices.Contains(deniedCalls, nr) || slices.Contains(deniedHere, nr) {
		return no(unix.EPERM)
	}
	if w.confined && (slices.Contains(supervisedCalls, nr) || slices.Contains(supervisedHere, nr)) {
		return notify
	}
	flags, opens := openFlags(nr, a)
	if w.confined && w.abi < abiTruncate && opens && flags&unix.O_TRUNC != 0 && flags&unix.O_ACCMODE == unix.O_RDONLY {
		return no(unix.EACCES)
	}
	if mode, ok := newMode(nr, a); ok && mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return no(unix.EPERM)
	}
	switch nr {
	case unix.SYS_CLONE3, unix.SYS_OPENAT2:
		return no(unix.ENOSYS)
	case unix.SYS_CLONE, unix.SYS_UNSHARE:
		for _, flag := range []uint32{unix.CLONE_NEWNS, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWIPC, unix.CLONE_NEWUTS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWTIME} {
			if a[0]&flag != 0 {
				return no(unix.EPERM)
			}
		}
	case unix.SYS_IOCTL:
		if a[1] == unix.TIOCSTI || a[1] == unix.TIOCLINUX || w.confined && slices.Contains(attributeRequests, a[1]) {
			return no(unix.EPERM)
		}
		const flowControl, stopOutput, stopInput, setDiscipline = 0x540a, 0, 2, 0x5423
		if a[1] == setDiscipline || a[1] == flowControl && (a[2] == stopOutput || a[2] == stopInput) {
			return no(unix.EPERM)
		}
		if kind := a[1] >> 8 & 0xff; (kind == 0x94 || kind == 0xbc) && !slices.Contains(cloneOfContent, a[1]) {
			return no(unix.ENOTTY)
		}
	case unix.SYS_SETPRIORITY:
		if a[0] == 1 { // a process group
			return no(unix.EPERM)
		}
	case unix.SYS_IOPRIO_SET:
		if a[0] == 2 { // likewise
			return no(unix.EPERM)
		}
	case unix.SYS_SOCKET:
		return w.wantedSocket(a[0], a[1]&0xf, a[2])
	case unix.SYS_MEMFD_CREATE:
		if w.strict && a[1]&unix.MFD_NOEXEC_SEAL == 0 {
			return no(unix.EPERM)
		}
	}
	if w.confined {
		return w.wantedConfined(nr, a)
	}
	return yes
}

// attributeRequests set flags, versions, verity and encryption of files: ioctl(fd, request).
var attributeRequests = []uint32{
	0x40086602, 0x40046602, 0x40087602, 0x40047602, 0x401c5820, 0x40806685, 0x800c6613, 0x40086604, 0x40046604,
}

// cloneOfContent are FICLONE, FICLONERANGE and FIDEDUPERANGE.
var cloneOfContent = []uint32{0x40049409, 0x4020940d, 0xc0189436}

// deviceRequests are others that the filter has something to say of, or nearly.
var deviceRequests = []uint32{0x540a, 0x5423, 0x50009401, 0x5000940e, 0x9400, 0x93ff, 0x9500, 0xbc10}

func (w world) wantedSocket(family, kind, protocol uint32) uint32 {
	ip := family == unix.AF_INET || family == unix.AF_INET6
	switch {
	case family == unix.AF_NETLINK && protocol == unix.NETLINK_ROUTE:
		return yes
	case family == unix.AF_UNIX && !w.strict && (!w.confined || kind == unix.SOCK_STREAM || kind == unix.SOCK_SEQPACKET):
		return yes
	case ip && kind == unix.SOCK_STREAM && (protocol == 0 || protocol == unix.IPPROTO_TCP):
		return yes
	case ip && kind == unix.SOCK_DGRAM && (protocol == 0 || protocol == unix.IPPROTO_UDP):
		if !w.confined {
			return yes
		}
		return notify
	}
	return no(unix.EAFNOSUPPORT)
}

// wantedConfined is what only the tier landlock refuses or asks about.
func (w world) wantedConfined(nr uint32, a arguments) uint32 {
	refuseIf := func(refused bool, errno unix.Errno) uint32 {
		if refused {
			return no(errno)
		}
		return yes
	}
	switch nr {
	case unix.SYS_SOCKETPAIR:
		return refuseIf(a[1]&0xf != unix.SOCK_STREAM && a[1]&0xf != unix.SOCK_SEQPACKET, unix.EPROTOTYPE)
	case unix.SYS_SENDTO, unix.SYS_SENDMMSG:
		return refuseIf(a[3]&unix.MSG_FASTOPEN != 0, unix.EOPNOTSUPP)
	case unix.SYS_SENDMSG:
		return refuseIf(a[2]&unix.MSG_FASTOPEN != 0, unix.EOPNOTSUPP)
	case unix.SYS_PRLIMIT64:
		return refuseIf(a[0] != 0, unix.EPERM)
	case unix.SYS_TRUNCATE:
		return refuseIf(w.abi < abiTruncate, unix.EACCES)
	case unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2:
		return notify
	}
	if changesModeHere(nr) {
		return notify
	}
	if slices.Contains(unsupported, nr) {
		return no(unix.EOPNOTSUPP)
	}
	return refuseIf(slices.Contains(hostIPC, nr), unix.ENOSYS)
}

// newMode is the mode that a call gives a file, if it does.
func newMode(nr uint32, a arguments) (mode uint32, ok bool) {
	switch nr {
	case unix.SYS_FCHMOD:
		return a[1], true
	case unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_MKNODAT:
		return a[2], true
	case unix.SYS_OPENAT:
		const temporary = 0o20000000
		return a[3], a[2]&(unix.O_CREAT|temporary) != 0
	}
	return newModeHere(nr, a)
}

func openFlags(nr uint32, a arguments) (flags uint32, ok bool) {
	if nr == unix.SYS_OPENAT {
		return a[2], true
	}
	return openFlagsHere(nr, a)
}

// Every number, with every value of the arguments that could matter and those beside it.
func TestVerdicts(t *testing.T) {
	numbers := []uint32{1 << 20, 1<<30 - 1, ^uint32(0)}
	for nr := range uint32(600) {
		numbers = append(numbers, nr, nr|1<<30, nr|1<<31)
	}
	values := [][]uint32{ // by argument
		{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_VSOCK, 0, 11, unix.CLONE_VM | unix.CLONE_VFORK | uint32(unix.SIGCHLD)},
		{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK, 16, unix.TIOCSTI, unix.TIOCLINUX, unix.TCGETS, unix.MFD_NOEXEC_SEAL, unix.O_CREAT},
		{0, unix.IPPROTO_TCP, unix.IPPROTO_UDP, 262, 7, unix.O_CREAT | unix.O_TRUNC, unix.O_WRONLY | unix.O_TRUNC, unix.O_TMPFILE | unix.O_RDWR, unix.O_DIRECTORY | unix.O_TRUNC},
		{0},
	}
	for bit := range 32 {
		values[0] = append(values[0], 1<<bit)
		values[1] = append(values[1], 1<<bit)
		values[2] = append(values[2], 1<<bit, 1<<bit|unix.O_CREAT)
		values[3] = append(values[3], 1<<bit, unix.O_RDWR|1<<bit)
	}
	for _, request := range slices.Concat(attributeRequests, cloneOfContent, deviceRequests) {
		values[1] = append(values[1], request-1, request, request+1)
	}
	var each, few []arguments
	for arg, vs := range values {
		for _, v := range vs {
			var a arguments
			a[arg] = v
			each, few = append(each, a, arguments{v, v, v, v}), append(few, a)
		}
	}
	for _, request := range []uint32{0x540a, 0x540b} {
		for action := range uint32(4) {
			each = append(each, arguments{0, request, action})
		}
	}
	for _, a := range values[0][:9] {
		for _, b := range values[1][:12] {
			for _, c := range values[2][:9] {
				each = append(each, arguments{a, b, c}, arguments{a, b, c, 0o4755}, arguments{a, 0o2755, 0o4755, unix.MSG_FASTOPEN})
			}
		}
	}
	for _, w := range worlds {
		program := w.program()
		vm := machine(t, program)
		said := map[uint32]int{}
		for _, nr := range numbers {
			for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, 0} {
				all := each
				verdict, known := decided(program, nr, arch)
				if known {
					all = few[:3]
				}
				for _, a := range all {
					want := no(unix.ENOSYS)
					if arch == auditArch {
						want = w.wanted(nr, a)
						said[want]++
					}
					if got := run32(t, vm, callData(nr, arch, a)); got != want || known && verdict != want {
						t.Errorf("%s: call %d of %#x, %#x: %#x, not %#x", w, nr, arch, a, got, want)
					}
				}
			}
		}
		if said[yes] == 0 || said[no(unix.EPERM)] == 0 || w.confined != (said[notify] > 0) {
			t.Errorf("%s: the verdicts were %v", w, said)
		}
	}
}

// What the calls are that the kernel has to ask about: it does not of those that are allowed by their number alone.
func TestCallsThatAreLookedAt(t *testing.T) {
	common := slices.Concat([]uint32{
		unix.SYS_CLONE, unix.SYS_UNSHARE, unix.SYS_IOCTL, unix.SYS_SOCKET, unix.SYS_OPENAT, unix.SYS_MKNODAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2,
		unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET,
	}, lookedAtHere)
	for _, w := range worlds {
		want := slices.Clone(common)
		if w.strict {
			want = append(want, unix.SYS_MEMFD_CREATE)
		}
		if w.confined {
			want = append(want, unix.SYS_SOCKETPAIR, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG, unix.SYS_PRLIMIT64)
		}
		program := w.program()
		var got []uint32
		for nr := range uint32(600) {
			if _, known := decided(program, nr, auditArch); !known {
				got = append(got, nr)
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: looked at are %d, not %d", w, got, want)
		}
		if len(program) > 255 {
			t.Errorf("%s: %d instructions", w, len(program))
		}
	}
}

// decided is what a program says of a call without a look at its arguments, if it can: the kernel finds it out in the same way.
func decided(program []unix.SockFilter, nr, arch uint32) (verdict uint32, ok bool) {
	var loaded uint32
	for pc := 0; ; pc++ {
		i := program[pc]
		holds := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch i.K {
			case dataNr:
				loaded = nr
			case dataArch:
				loaded = arch
			default:
				return 0, false
			}
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K, true
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JEQ:
			holds = loaded == i.K
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JGE:
			holds = loaded >= i.K
		default:
			return 0, false
		}
		if holds {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
}

// Programs of any length say what their rules say, also where what is jumped to is far.
func TestCompile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // any numbers do
	var some func(depth int) answer
	some = func(depth int) answer {
		kind := rng.IntN(7)
		if depth == 0 {
			kind = 0
		}
		arg, value := rng.Uint32N(2), rng.Uint32N(8)
		switch kind {
		case 1, 2:
			return anyBit(arg, 1+value, some(depth-1), some(depth-1))
		case 3, 4, 5:
			var values []uint32
			for range 1 + rng.IntN(12) {
				values = append(values, rng.Uint32N(8))
			}
			return maskedOneOf(arg, ^uint32(0)>>(29*rng.Uint32N(2)), values, some(depth-1), some(depth-1))
		}
		return [...]answer{undecided, allow, supervise, refuse(unix.Errno(1 + value))}[rng.IntN(4)]
	}
	long := 0
	for round := range 300 {
		var lower, upper []rule
		for range rng.IntN(round + 1) {
			lower = append(lower, rule{rng.Uint32N(512), some(3)})
			upper = append(upper, rule{rng.Uint32N(512), some(2)})
		}
		c := newCalls()
		c.put(lower)
		c.put(upper)
		program := compile(c)
		if len(program) > 500 {
			long++
		}
		vm := machine(t, program)
		for range 2000 {
			nr, a := rng.Uint32N(520), arguments{rng.Uint32N(10), rng.Uint32N(10)}
			want := uint32(unix.SECCOMP_RET_ALLOW)
			for _, r := range slices.Concat(upper, lower) {
				if r.nr != nr {
					continue
				}
				if v := evaluate(r.says, a); v != 0 {
					want = v
					break
				}
			}
			if got := run32(t, vm, callData(nr, auditArch, a)); got != want {
				t.Fatalf("round %d, %d instructions: call %d %d: %#x, not %#x", round, len(program), nr, a, got, want)
			}
		}
	}
	if long == 0 {
		t.Error("no program was long")
	}
}

// evaluate is what an answer says of arguments.
func evaluate(a answer, args arguments) uint32 {
	if a.test == nil {
		return a.verdict
	}
	value := args[a.test.arg] & a.test.mask
	holds := slices.ContainsFunc(a.test.values, func(v uint32) bool {
		if a.test.op == unix.BPF_JSET {
			return value&v != 0
		}
		return value == v
	})
	if holds {
		return evaluate(a.test.yes, args)
	}
	return evaluate(a.test.no, args)
}

func machine(t *testing.T, program []unix.SockFilter) *bpf.VM {
	t.Helper()
	var instructions []bpf.Instruction
	for _, i := range program {
		instructions = append(instructions, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K}.Disassemble())
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// callData is struct seccomp_data in the byte order of the machine in package bpf, the network's.
func callData(nr, arch uint32, args arguments) []byte {
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[dataNr:], nr)
	binary.BigEndian.PutUint32(data[dataArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[dataArgs+8*i:], a)
	}
	return data
}

func run32(t *testing.T, vm *bpf.VM, data []byte) uint32 {
	t.Helper()
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func BenchmarkFilterProgram(b *testing.B) {
	for range b.N {
		filterProgram(nil)
	}
}
