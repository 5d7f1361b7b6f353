package sandbox

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func (h *host) checkTier() check.Result {
	return CheckTier(&h.policy, h.env, "/opt/sesame").Run(h.t.Context())
}

func TestCheckTier(t *testing.T) {
	h := newHost(t)
	r := h.checkTier()
	if r.Status != check.OK || !strings.HasPrefix(r.Summary, "namespaces (user namespaces, home on overlayfs, seccomp; Linux ") || len(r.Details) < 4 {
		t.Errorf("got %+v", r)
	}
	if _, err := os.Stat(h.policy.HomeState); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left traces: %v", err)
	}
	h.env = []string{"PATH=/nonexistent"} // no `true`, and a sandbox nevertheless
	if r := h.checkTier(); r.Status != check.OK {
		t.Errorf("without true: %+v", r)
	}
	h.policy.Tier = Off
	if r := h.checkTier(); r.Status != check.Warn || len(r.Remedy) == 0 {
		t.Errorf("off: %+v", r)
	}
	h.policy.Tier = Seatbelt
	if r := h.checkTier(); r.Status != check.Fail || r.Code != fault.SandboxUnavailable || !strings.Contains(r.Summary, "seatbelt") {
		t.Errorf("seatbelt: %+v", r)
	}
	h.policy.Tier = Auto
	h.policy.AllowRead = []string{"/nonexistent"}
	if r := h.checkTier(); r.Status != check.Fail || r.Code != fault.Usage || !strings.HasPrefix(r.Summary, `allow-read "/nonexistent"`) {
		t.Errorf("a rule that makes no sense: %+v", r)
	}
}

// Files of the kernel have names that overlayfs cannot compare.
func TestCheckTierHome(t *testing.T) {
	h := newHost(t)
	h.policy.Home, h.policy.HomeState = "/proc/sys/kernel", ""
	r := h.checkTier()
	if r.Status != check.Fail || !strings.Contains(r.Summary, "the home directory /proc/sys/kernel cannot be shown copy-on-write") ||
		!strings.Contains(r.Remedy[0], "set HOME") {
		t.Errorf("got %+v", r)
	}
}

// worlds are places without user namespaces, made for real. They are entered by a
// process of its own, since there is no way back.
var worlds = map[string]struct {
	flags uintptr
	enter func() error
}{
	// The sysctl, as an administrator sets it.
	"limit": {unix.CLONE_NEWUSER, func() error {
		return os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
	}},
	// A filter of system calls, as Docker has one.
	"filter": {0, func() error {
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		return refuseUserNamespaces()
	}},
}

// refuseUserNamespaces refuses on all threads what Docker's default does, as far as sandboxes are made of it.
func refuseUserNamespaces() error {
	const number, firstArgument = 0, 16 // in struct seccomp_data
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: number, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE3, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE, SkipTrue: 4},
		bpf.LoadAbsolute{Off: firstArgument, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: namespaces, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	}
	for _, nr := range []uint32{
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_OPEN_TREE,
		unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP, unix.SYS_PROCESS_MADVISE, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_KEYCTL,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	} {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return err
	}
	insns := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}

const worldVariable = "SESAME_TEST_WORLD"

// TestCheckTierInWorld is the process in one of the worlds.
func TestCheckTierInWorld(t *testing.T) {
	name := os.Getenv(worldVariable)
	if name == "" {
		return // nothing to test in this one: TestCheckTierWithoutNamespaces starts another
	}
	h := newHost(t)
	h.policy.Tier = Namespaces
	if err := json.NewEncoder(os.Stdout).Encode(h.checkTier()); err != nil {
		t.Fatal(err)
	}
}

func TestCheckTierWithoutNamespaces(t *testing.T) {
	for name, want := range map[string]string{
		"limit":  "`sudo sysctl -w user.max_user_namespaces=15000`",
		"filter": "`docker run --security-opt seccomp=unconfined ",
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestCheckTierInWorld$", "-test.count=1")
			cmd.Env = append(os.Environ(), worldVariable+"="+name)
			cmd.SysProcAttr = userNamespace(worlds[name].flags)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var r check.Result
			if err := json.Unmarshal([]byte(strings.SplitN(string(out), "\n", 2)[0]), &r); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if r.Status != check.Fail || r.Code != fault.SandboxUnavailable || !strings.HasPrefix(r.Summary, "the sandbox cannot be had here: ") {
				t.Errorf("got %+v", r)
			}
			if !slices.ContainsFunc(r.Remedy, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("no %q in %q", want, r.Remedy)
			}
			if r.Remedy[len(r.Remedy)-1] != lastResort {
				t.Errorf("no way out in %q", r.Remedy)
			}
		})
	}
}

// What this machine does not have is told from the files of one that has it.
func TestReason(t *testing.T) {
	refused := fault.New(fault.SandboxUnavailable, "the sandbox cannot be had here: %w", os.NewSyscallError("fork/exec", syscall.EPERM))
	mount := fault.New(fault.SandboxUnavailable, "the sandbox cannot be had here: files: make mounts private: permission denied")
	tests := []struct {
		name  string
		files map[string]string
		root  bool
		err   error
		want  string // of the reason and the remedy; "" for none
	}{
		{"ubuntu", map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, false, mount, "/etc/apparmor.d/sesame && sudo apparmor_parser -r"},
		{"ubuntu, named program", map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, false, mount, `profile sesame "/opt/se same" flags=(unconfined)`},
		{"ubuntu, allowed", map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "0"}, false, mount, ""},
		{"ubuntu, root", map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, true, mount, ""},
		{"debian", map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0"}, false, refused, "kernel.unprivileged_userns_clone=1"},
		{"debian, root", map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0"}, true, refused, "RestrictNamespaces"},
		{"limit", map[string]string{"proc/sys/user/max_user_namespaces": "0"}, false, refused, "user.max_user_namespaces=15000"},
		{"docker", map[string]string{".dockerenv": ""}, true, mount, "docker run --security-opt seccomp=unconfined"},
		{"docker on ubuntu", map[string]string{".dockerenv": "", "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, false, mount, "docker run"},
		{"kubernetes", map[string]string{"var/run/secrets/kubernetes.io/x": ""}, true, mount, "procMount: Unmasked"},
		{"podman", map[string]string{"run/.containerenv": ""}, true, refused, "podman run"},
		{"old", map[string]string{"proc/sys/kernel/osrelease": "5.4.0-1-generic"}, false, mount, "Linux 5.12 or newer"},
		{"just new enough", map[string]string{"proc/sys/kernel/osrelease": "5.12-rc1"}, false, mount, ""},
		{"no namespaces", map[string]string{"proc/sys/user/max_user_namespaces": ""}, false, refused, "CONFIG_USER_NS"},
		{"refused", nil, true, refused, "a security module"},
		{"no idea", nil, true, mount, ""},
		{"no setfcap", map[string]string{"proc/self/status": "Name:\tx\nCapEff:\t000001ff7fffffff\n"}, true, refused, "CapabilityBoundingSet"},
		{"no setfcap in docker", map[string]string{".dockerenv": "", "proc/self/status": "CapEff:\t0000000000000000\n"}, true, refused, "docker run --cap-add SETFCAP --security-opt"},
		{"no capabilities, and no root", map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}, false, refused, "RestrictNamespaces"},
		{"all capabilities", map[string]string{"proc/self/status": "CapEff:\t000001ffffffffff\n"}, true, refused, "RestrictNamespaces"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			files := map[string]string{
				"proc/sys/kernel/osrelease": "6.8.0-45-generic\n", "proc/sys/user/max_user_namespaces": "15000\n",
				"proc/filesystems": "nodev\toverlay\n", "proc/sys/kernel/seccomp/actions_avail": "allow\n",
			}
			for path, text := range test.files {
				files[path] = text
			}
			for path, text := range files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			k := readKernel(root, "/opt/se same")
			k.root = test.root
			why, remedy := k.reason(test.err)
			got := why + "\n" + strings.Join(remedy, "\n")
			if !strings.Contains(got, test.want) || (test.want == "") != (why == "") {
				t.Errorf("got %s", got)
			}
			if !k.overlay || !k.seccomp {
				t.Errorf("not seen: %+v", k)
			}
		})
	}
}
