package sandbox

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kernelCalls lets a program in Python make system calls: call(NUMBER, ...) is the result, or the error as a negative number.
const kernelCalls = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(nr, *args):
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return r if r != -1 else -ctypes.get_errno()
def got(result):
    print("GOT" if result >= 0 else os.strerror(-result))
`

// program is a program in Python that makes system calls. NUMBER(name) stands for their numbers.
func program(code string) string {
	for name, nr := range callNumbers {
		code = strings.ReplaceAll(code, "NUMBER("+name+")", strconv.Itoa(nr))
	}
	return python(kernelCalls + code)
}

// callNumbers are those of calls that lead out of sandboxes or change the machine.
var callNumbers = map[string]int{
	"mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2, "pivot_root": unix.SYS_PIVOT_ROOT, "chroot": unix.SYS_CHROOT, "setns": unix.SYS_SETNS, "unshare": unix.SYS_UNSHARE,
	"open_tree": unix.SYS_OPEN_TREE, "move_mount": unix.SYS_MOVE_MOUNT, "mount_setattr": unix.SYS_MOUNT_SETATTR,
	"fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT, "fspick": unix.SYS_FSPICK,
	"name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "quotactl": unix.SYS_QUOTACTL,
	"keyctl": unix.SYS_KEYCTL, "add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY,
	"bpf": unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD,
	"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
	"kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD,
	"init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE, "delete_module": unix.SYS_DELETE_MODULE,
	"reboot": unix.SYS_REBOOT, "swapon": unix.SYS_SWAPON, "swapoff": unix.SYS_SWAPOFF, "acct": unix.SYS_ACCT, "syslog": unix.SYS_SYSLOG,
	"settimeofday": unix.SYS_SETTIMEOFDAY, "clock_settime": unix.SYS_CLOCK_SETTIME, "sethostname": unix.SYS_SETHOSTNAME, "setdomainname": unix.SYS_SETDOMAINNAME,
}

// reachedCalls says which calls get to the kernel's own code. Their arguments make no sense, so there they do no harm.
const reachedCalls = `
for name, nr in calls:
    if call(nr, *[-1] * 6) not in (-1, -38): # not permitted, no such call
        print("GOT", name)
`

func (h *host) reached() []string {
	h.t.Helper()
	var list []string
	for name, nr := range callNumbers {
		list = append(list, fmt.Sprintf(`("%s", %d)`, name, nr))
	}
	var got []string
	for line := range strings.Lines(h.sh(python(kernelCalls + "calls = [" + strings.Join(list, ", ") + "]" + reachedCalls))) {
		got = append(got, strings.TrimSpace(strings.TrimPrefix(line, "GOT ")))
	}
	slices.Sort(got)
	return got
}

// None of the calls gets as far as to be looked at by what it would speak to.
func TestCallsEndInTheFilter(t *testing.T) {
	h := newHost(t)
	if got := h.reached(); len(got) > 0 {
		t.Errorf("inside, the kernel's own code is reached by %q", got)
	}
	if os.Getenv(worldVariable) != "" {
		return // such a world refuses some by itself
	}
	h.policy.Tier = Off
	outside := h.reached()
	if len(outside) < len(callNumbers)/2 { // as an ordinary user; some are looked at for root only, some kernels lack some
		t.Errorf("outside, the kernel is reached by %q only", outside)
	}
	if os.Getuid() == 0 {
		for _, name := range []string{"mount", "open_tree", "open_by_handle_at", "keyctl", "bpf", "userfaultfd", "reboot", "syslog"} {
			if !slices.Contains(outside, name) {
				t.Errorf("outside, %s is not reached", name)
			}
		}
	}
}

// What programs the kernel, or reads its memory.
func TestKernelMachinery(t *testing.T) {
	h := newHost(t)
	h.refuse([]attack{
		{"bpf", program(`import struct; got(call(NUMBER(bpf), 0, struct.pack("IIII", 2, 4, 4, 1) + bytes(112), 128))`), capable(unix.CAP_BPF)},
		{"performance counters", program(`import struct; got(call(NUMBER(perf_event_open), struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 0x60) + bytes(64), 0, -1, -1, 0))`), perfForAll()},
		{"userfaultfd", program(`got(call(NUMBER(userfaultfd), 1))`), true},
		{"io_uring", program(`got(call(NUMBER(io_uring_setup), 1, ctypes.create_string_buffer(120)))`), true},
		{"keyrings", program(`got(call(NUMBER(keyctl), 0, -4, 0))`), true},
		{"put a key", program(`got(call(NUMBER(add_key), b"user", b"sesame-test", b"x", 1, -2))`), true},
		{"ask for a key", program(`got(call(NUMBER(add_key), b"user", b"sesame-test", b"x", 1, -2)); got(call(NUMBER(request_key), b"user", b"sesame-test", 0, 0))`), true},
		{"the kernel's log", program(`got(call(NUMBER(syslog), 3, ctypes.create_string_buffer(9), 9))`), capable(unix.CAP_SYSLOG)},
		// With a description of nothing, which the kernel looks at after it has let the caller in.
		{"another kernel", program(`r = call(NUMBER(kexec_load), 0, 99, 0, 0); got(0 if r == -22 else r)`), capable(unix.CAP_SYS_BOOT) && opens("/sys/kernel/kexec_loaded")},
		{"a module", program(`r = call(NUMBER(init_module), 0, 0, b""); got(0 if r in (-8, -14, -22) else r)`), capable(unix.CAP_SYS_MODULE) && opens("/proc/modules")},
		{"a module's file", program(`r = call(NUMBER(finit_module), -1, b"", 0); got(0 if r == -9 else r)`), capable(unix.CAP_SYS_MODULE) && opens("/proc/modules")},
		{"the number in another dress", program(`got(call(NUMBER(keyctl) | 1 << 32, 0, -4, 0))`), true}, // the kernel looks at half of it
	})
}

// perfForAll tells whether this user may count what his own programs do.
func perfForAll() bool {
	data, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		return false
	}
	level, err := strconv.Atoi(strings.TrimSpace(string(data)))
	return err == nil && (level <= 2 || capable(unix.CAP_PERFMON) || capable(unix.CAP_SYS_ADMIN))
}

// Nothing that was mounted goes, and nothing new comes.
func TestMountsAreFinal(t *testing.T) {
	h := newHost(t)
	secret := h.write(".ssh/id_ed25519", "SECRET")
	const tree = `tree = call(NUMBER(open_tree), -100, b"/", 0x8001); ` // a copy of all there is
	h.refuse([]attack{
		{"a user namespace", `unshare -U true && echo GOT`, true},
		{"a network namespace", `root unshare -n true && echo GOT`, true},
		{"clone with a namespace", program(fmt.Sprintf(`
r = call(%d, 0x10000000 | 17, 0, 0, 0, 0)
if r == 0: os._exit(0)
got(r)`, unix.SYS_CLONE)), true},
		{"clone3 with a namespace", program(fmt.Sprintf(`
import struct
r = call(%d, struct.pack("8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)
if r == 0: os._exit(0)
got(r)`, unix.SYS_CLONE3)), true},
		{"enter a namespace", `root ` + program(`got(call(NUMBER(setns), os.open("/proc/self/ns/net", 0), 0))`), true},
		{"mount", `root mount -t tmpfs x ~ && echo GOT`, true},
		{"bind", `root mount --rbind / ~ && echo GOT`, true},
		{"overlay", `mkdir -p a b c d; root mount -t overlay x -o lowerdir=a:b c && echo GOT; rmdir a b c d`, true},
		{"make it writable", `root mount -o remount,bind,rw / && echo GOT`, true},
		{"unmount", `root sh -c 'mount -t tmpfs x ~/src; for p in /proc/sys /dev/shm "$PWD" ~ ~/src; do umount -l "$p" && echo GOT; done'`, true},
		{"another root", `root sh -c 'mount -t tmpfs x ~; mkdir ~/old; cd ~; pivot_root . old && echo GOT'; rm -rf ~/old`, true},
		{"chroot", `root chroot / true && echo GOT`, true},
		{"a new file system", `root ` + program(`fs = call(NUMBER(fsopen), b"tmpfs", 0); call(NUMBER(fsconfig), fs, 6, 0, 0, 0); got(call(NUMBER(fsmount), fs, 0, 0))`), true},
		{"another look at a file system", `root ` + program(`fs = call(NUMBER(fsopen), b"proc", 0); got(fs); got(call(NUMBER(fspick), -100, b"/", 0))`), true},
		{"a copy of the tree", `root ` + program(tree+`got(tree)`), true},
		{"a copy of the tree, mounted", `root ` + program(tree+`got(call(NUMBER(move_mount), tree, b"", -100, os.environ["HOME"].encode(), 4))`), true},
		{"change what a mount may", `root ` + program(tree+`import struct; got(call(NUMBER(mount_setattr), tree, b"", 0x1000, struct.pack("QQQQ", 1, 0, 0, 0), 32))`), true},
		{"what the kernel says is mounted", `
for word in $(tr ' ,=:' '\n\n\n\n' < /proc/self/mountinfo | grep ^/ | sort -u); do
	word=$(printf "$word")
	cat "$word$HOME/.ssh/id_ed25519" "$word/.ssh/id_ed25519" "$word/home/.ssh/id_ed25519"
done 2>/dev/null | grep SECRET && echo GOT`, true},
		openByHandle(t, secret),
	})
}

// openByHandle opens a file by the number that its file system knows it by, from outside of its directories.
func openByHandle(t *testing.T, secret string) attack {
	t.Helper()
	a := attack{name: "a file by its number"}
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, secret, 0)
	if err != nil {
		handle = unix.NewFileHandle(1, make([]byte, 8)) // a file system without such numbers
	}
	here, err := unix.Open(".", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(here)
	if fd, err := unix.OpenByHandleAt(here, handle, unix.O_RDONLY); err == nil {
		unix.Close(fd)
		a.unaided = true
	}
	a.script = program(fmt.Sprintf(`
import struct
raw = bytes.fromhex("%s")
r = call(NUMBER(open_by_handle_at), os.open(".", 0), struct.pack("Ii", len(raw), %d) + raw, 0)
print("GOT" if r >= 0 and b"SECRET" in os.read(r, 99) else r)`, hex.EncodeToString(handle.Bytes()), handle.Type()))
	return a
}

// consenting is a program that lets everybody trace it and says where its secret is.
const consenting = `
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1 & (2**64 - 1)), 0, 0, 0)
secret = ctypes.create_string_buffer(b"SECRET")
print(ctypes.addressof(secret), os.open(sys.argv[1], 0), flush=True)
time.sleep(300)
`

// The memory and the descriptors of the user's other programs.
func TestOtherProgramsKeepTheirs(t *testing.T) {
	h := newHost(t)
	victim := exec.CommandContext(t.Context(), "python3", "-c", consenting, h.write(".ssh/id", "SECRET"))
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Wait() }()
	defer func() { _ = victim.Process.Kill() }()
	var address uint64
	var fd int
	if _, err := fmt.Fscan(out, &address, &fd); err != nil {
		t.Fatal(err)
	}
	of := func(code string) string {
		return program(fmt.Sprintf("pid, address, fd = %d, %d, %d\n", victim.Process.Pid, address, fd) + code)
	}
	numbers := strings.NewReplacer(
		"READV", strconv.Itoa(unix.SYS_PROCESS_VM_READV), "WRITEV", strconv.Itoa(unix.SYS_PROCESS_VM_WRITEV), "PTRACE", strconv.Itoa(unix.SYS_PTRACE),
		"PIDFD", strconv.Itoa(unix.SYS_PIDFD_OPEN), "GETFD", strconv.Itoa(unix.SYS_PIDFD_GETFD), "KCMP", strconv.Itoa(unix.SYS_KCMP),
	)
	const vectors = `
import struct
local = ctypes.create_string_buffer(6)
mine, theirs = struct.pack("QQ", ctypes.addressof(local), 6), struct.pack("QQ", address, 6)
`
	h.refuse([]attack{
		{"read memory", of(numbers.Replace(vectors + `call(READV, pid, mine, 1, theirs, 1, 0); print("GOT" if local.raw == b"SECRET" else "no")`)), true},
		{"write memory", of(numbers.Replace(vectors + `local.raw = b"SECRET"; got(call(WRITEV, pid, mine, 1, theirs, 1, 0))`)), true},
		{"memory as a file", of(`f = os.open("/proc/%d/mem" % pid, 0); os.lseek(f, address, 0); print("GOT" if os.read(f, 6) == b"SECRET" else "no")`), true},
		{"trace", of(numbers.Replace(`got(call(PTRACE, 0x4206, pid, 0, 0))`)), true},
		{"take a descriptor", of(numbers.Replace(`r = call(GETFD, call(PIDFD, pid, 0), fd, 0); print("GOT" if r >= 0 and b"SECRET" in os.pread(r, 9, 0) else r)`)), true},
		{"open a descriptor", of(`print("GOT" if b"SECRET" in open("/proc/%d/fd/%d" % (pid, fd), "rb").read() else "no")`), true},
		{"compare", of(numbers.Replace(`got(call(KCMP, pid, os.getpid(), 1, 0, 0))`)), kernelCompares()},
		{"its namespaces", of(`got(os.open("/proc/%d/ns/mnt" % pid, 0))`), true},
	})
	if victim.Process.Signal(unix.Signal(0)) != nil {
		t.Error("the host's process is gone")
	}
}

// kernelCompares tells whether this kernel can compare processes.
func kernelCompares() bool {
	_, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 1, 0, 0, 0)
	return errno == 0
}
