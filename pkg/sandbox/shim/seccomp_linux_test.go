package shim

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The search by halves only spares work: with it the filter says of every call what the rules say.
func TestShortcut(t *testing.T) {
	arguments := [][3]uint32{
		{},
		{^uint32(0), ^uint32(0), ^uint32(0)},
		{unix.AF_UNIX, unix.SOCK_STREAM},
		{unix.AF_INET, unix.SOCK_RAW},
		{unix.AF_INET6, unix.SOCK_DGRAM, 262},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
		{unix.AF_NETLINK, unix.SOCK_RAW, 7},
		{unix.CLONE_NEWUSER},
		{3, unix.TIOCSTI},
		{3, 0o4755, 0o4755},
		{3, 0o755, 0o755},
	}
	for name, more := range map[string][]bpf.Instruction{"standard": nil, "strict": strictRules, "landlock": confinedRules(abiScopes), "old landlock": confinedRules(abiRefer)} {
		rules := callRules(more)
		whole, plain := machine(t, filterProgram(more)), machine(t, append([]bpf.Instruction{loadNumber}, rules...))
		numbers := []uint32{1 << 20, 1<<30 - 1}
		for nr := range uint32(1024) {
			numbers = append(numbers, nr)
		}
		allowed := 0
		for _, nr := range numbers {
			for _, args := range arguments {
				call := callData(nr, args)
				got, want := run(t, whole, call), run(t, plain, call)
				if got != want {
					t.Errorf("%s: call %d %v: %#x, and %#x by the rules alone", name, nr, args, got, want)
				}
				if want == unix.SECCOMP_RET_ALLOW {
					allowed++
				}
			}
		}
		if allowed == 0 || allowed == len(numbers)*len(arguments) {
			t.Errorf("%s: %d calls of %d are allowed", name, allowed, len(numbers)*len(arguments))
		}
		if search := shortcut(rules); len(search) == 0 {
			t.Errorf("%s: no shortcut", name)
		}
	}
}

func machine(t *testing.T, program []bpf.Instruction) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// callData is struct seccomp_data in the byte order of the machine in package bpf, the network's.
func callData(nr uint32, args [3]uint32) []byte {
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[dataNr:], nr)
	binary.BigEndian.PutUint32(data[dataArch:], auditArch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[dataArgs+8*i:], a)
	}
	return data
}

func run(t *testing.T, vm *bpf.VM, data []byte) uint32 {
	t.Helper()
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func TestSearch(t *testing.T) {
	for n := range 300 {
		var named []uint32
		for i := range n {
			named = append(named, uint32(3*i+1))
		}
		vm := machine(t, slices.Concat([]bpf.Instruction{loadNumber}, search(named, 0), []bpf.Instruction{verdict(unix.EPERM)}))
		for nr := range uint32(3*n + 2) {
			want := verdict(unix.EPERM).(bpf.RetConstant).Val
			if !slices.Contains(named, nr) {
				want = unix.SECCOMP_RET_ALLOW
			}
			if got := run(t, vm, callData(nr, [3]uint32{})); got != want {
				t.Fatalf("%d of %d: %#x", nr, n, got)
			}
		}
	}
}
