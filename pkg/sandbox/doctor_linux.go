package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// The first kernel with all that the tier namespaces is made of: mount_setattr.
const kernelMajor, kernelMinor = 5, 12

// kernel is what the namespaces rest on, as the kernel itself tells it. It explains
// a failure; whether the sandbox works is found out by making one.
type kernel struct {
	release    string // of uname
	namespaces string // sysctl user.max_user_namespaces; "" where there is none, as for those below
	cloning    string // Debian's kernel.unprivileged_userns_clone
	apparmor   string // Ubuntu's kernel.apparmor_restrict_unprivileged_userns
	overlay    bool   // overlayfs is there, or a module may still be loaded: nothing tells
	seccomp    bool
	container  string // "Kubernetes", "Docker", "Podman" or ""
	root       bool   // we are root, whom the two sysctls above do not concern
	capable    bool   // we have the capability that root needs for a user namespace, or nothing tells
	program    string // this executable
}

// readKernel looks at the kernel through the files below root, "/" but for tests.
func readKernel(root, program string) kernel {
	read := func(path string) string {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(data))
	}
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	k := kernel{
		release:    read("proc/sys/kernel/osrelease"),
		namespaces: read("proc/sys/user/max_user_namespaces"),
		cloning:    read("proc/sys/kernel/unprivileged_userns_clone"),
		apparmor:   read("proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
		overlay:    strings.Contains(read("proc/filesystems"), "\toverlay"),
		seccomp:    exists("proc/sys/kernel/seccomp/actions_avail"),
		root:       os.Geteuid() == 0,
		capable:    hasSetfcap(read("proc/self/status")),
		program:    program,
	}
	switch {
	case exists("var/run/secrets/kubernetes.io"):
		k.container = "Kubernetes"
	case exists(".dockerenv"):
		k.container = "Docker"
	case exists("run/.containerenv"):
		k.container = "Podman"
	}
	return k
}

// hasSetfcap reads the capabilities of a process from its status. Since Linux 5.12 root gets no user namespace with
// itself in it unless it has this one.
func hasSetfcap(status string) bool {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return err != nil || set&(1<<unix.CAP_SETFCAP) != 0
		}
	}
	return true
}

// basis says in a line what a sandbox of the policy is made of.
func (k kernel) basis(p *Policy) string {
	home := "home on overlayfs"
	if p.Home == "" {
		home = "an empty home"
	}
	return "user namespaces, " + home + ", seccomp; Linux " + k.release
}

func (k kernel) details() []string {
	known := func(b bool) string {
		if b {
			return "yes"
		}
		return "not seen"
	}
	lines := []string{
		fmt.Sprintf("kernel %s (%d.%d or newer is needed)", k.release, kernelMajor, kernelMinor),
		"overlayfs: " + known(k.overlay),
		"seccomp filters: " + known(k.seccomp),
	}
	for _, sysctl := range []struct{ name, value string }{
		{"user.max_user_namespaces", k.namespaces},
		{"kernel.unprivileged_userns_clone", k.cloning},
		{"kernel.apparmor_restrict_unprivileged_userns", k.apparmor},
	} {
		if sysctl.value != "" {
			lines = append(lines, sysctl.name+" = "+sysctl.value)
		}
	}
	if k.container != "" {
		lines = append(lines, "in a container of "+k.container)
	}
	return lines
}

// weaker is the result where the tier is landlock: what it holds less, and, where it was not asked for, what stands in the way of
// the tier namespaces.
func (k kernel) weaker(ctx context.Context, p *Policy, env []string) check.Result {
	r := check.Warned("landlock (Landlock %d, seccomp; Linux %s), which holds less than namespaces", LandlockVersion(), k.release)
	if p.Tier != Landlock {
		strong := *p
		strong.Tier = Namespaces
		if _, err := try(ctx, &strong, env); err != nil {
			why := k.explain(ctx, &strong, env, err)
			r.Details = append(r.Details, why.Summary)
			for _, line := range why.Remedy {
				if line != lastResort {
					r.Remedy = append(r.Remedy, line)
				}
			}
		}
	}
	for _, w := range Weaknesses(Landlock, LandlockVersion()) {
		r.Details = append(r.Details, "weaker: "+w.Text)
	}
	r.Details = append(r.Details, k.details()...)
	return r
}

// explain finds the reason of a sandbox that cannot be had, and its remedy.
func (k kernel) explain(ctx context.Context, p *Policy, env []string, err error) check.Result {
	r := check.Failed(err)
	switch p.Tier {
	case "", Auto, Namespaces:
	default:
		return r // a tier of another system: its own hints say so
	}
	why, remedy := "", []string(nil)
	if p.Home != "" && ctx.Err() == nil {
		bare := *p
		bare.Home, bare.AllowRead, bare.AllowWrite = "", nil, nil
		if _, bareErr := try(ctx, &bare, env); bareErr == nil {
			why = fmt.Sprintf("the home directory %s cannot be shown copy-on-write, while all else works", p.Home)
			remedy = []string{"overlayfs needs Linux 5.11 and a file system such as ext4, xfs or btrfs: set HOME to a directory on one"}
		}
	}
	if why == "" {
		why, remedy = k.reason(err)
	}
	if why == "" {
		return r
	}
	// The kernel's own words may mislead: a limit is "no space left on device" to it.
	r.Details = []string{err.Error()}
	r.Summary = "the sandbox cannot be had here: " + why
	r.Remedy = append(remedy, lastResort)
	return r
}

// reason is why the namespaces cannot be had, and what to do about it; "" where the
// error explains itself best. The first one that fits is the one that has to go first.
func (k kernel) reason(err error) (why string, remedy []string) {
	if k.root && !k.capable {
		return "root is without the capability setfcap here, and so gets no user namespace", k.capabilityRemedy()
	}
	switch {
	case k.old():
		return "this kernel is too old", []string{fmt.Sprintf("the sandbox needs Linux %d.%d or newer", kernelMajor, kernelMinor)}
	case k.namespaces == "0", errors.Is(err, syscall.ENOSPC):
		return "no more user namespaces are allowed", sysctlRemedy("user.max_user_namespaces=15000")
	case k.cloning == "0" && !k.root:
		return "user namespaces are for root only", sysctlRemedy("kernel.unprivileged_userns_clone=1")
	case k.container == "Kubernetes":
		return "the pod refuses it", []string{
			"in the pod's spec, set `hostUsers: false`",
			"and in the container's: `securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}`",
		}
	case k.container == "Podman":
		return "the container refuses it", []string{"start it with `podman run --security-opt seccomp=unconfined --security-opt unmask=ALL IMAGE`"}
	case k.container != "":
		return "the container refuses it", []string{"start it with `docker run " + dockerFlags + " IMAGE`"}
	case k.apparmor != "" && k.apparmor != "0" && !k.root:
		return "AppArmor keeps user namespaces from programs that it does not know, as on Ubuntu 24.04", []string{
			"make sesame known to it: `" + k.profileCommand() + "`",
			"or allow them to all programs: `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
		}
	case k.namespaces == "":
		return "this kernel has no user namespaces", []string{"use one that was built with CONFIG_USER_NS"}
	case !k.seccomp && strings.Contains(err.Error(), "system call filter"):
		return "this kernel has no seccomp filters", []string{"use one that was built with CONFIG_SECCOMP_FILTER"}
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "something that sesame runs under refuses user namespaces: a container, a service manager or a security module", []string{
			"in Docker, start it with `docker run " + dockerFlags + " IMAGE`",
			"in a systemd unit, set `RestrictNamespaces=no`",
		}
	}
	return "", nil
}

// capabilityRemedy gives setfcap back; where there is a container it lifts what else that would refuse, too.
func (k kernel) capabilityRemedy() []string {
	switch k.container {
	case "Kubernetes":
		return []string{"in the container's spec: `securityContext: {capabilities: {add: [SETFCAP]}, procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}`"}
	case "Podman":
		return []string{"start it with `podman run --cap-add SETFCAP --security-opt seccomp=unconfined --security-opt unmask=ALL IMAGE`"}
	case "Docker":
		return []string{"start it with `docker run --cap-add SETFCAP " + dockerFlags + " IMAGE`"}
	}
	return []string{"in a systemd unit, add CAP_SETFCAP to `CapabilityBoundingSet=`", "or run sesame as an ordinary user"}
}

func sysctlRemedy(setting string) []string {
	return []string{
		"allow them: `sudo sysctl -w " + setting + "`",
		"and to keep it so: `echo " + setting + " | sudo tee /etc/sysctl.d/90-sesame.conf`",
	}
}

// dockerFlags lift what Docker's defaults take away: the system calls, the mounts, and
// a /proc that nobody covered, without which none may be mounted.
const dockerFlags = "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"

// profileCommand installs an AppArmor profile that allows this program user namespaces
// and is otherwise as if there were none, which is what Ubuntu has for browsers.
func (k kernel) profileCommand() string {
	profile := fmt.Sprintf(`abi <abi/4.0>,\ninclude <tunables/global>\nprofile sesame "%s" flags=(unconfined) {\n  userns,\n}\n`,
		strings.NewReplacer("%", "%%", "'", `'\''`).Replace(k.program))
	return "printf '" + profile + "' | sudo tee /etc/apparmor.d/sesame && sudo apparmor_parser -r /etc/apparmor.d/sesame"
}

// old tells whether the kernel is known to lack what is needed.
func (k kernel) old() bool {
	major, rest, _ := strings.Cut(k.release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	minor, _, _ = strings.Cut(minor, "-")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA == nil && errB == nil && (a < kernelMajor || a == kernelMajor && b < kernelMinor)
}
