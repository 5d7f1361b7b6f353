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
	container  string // "Docker", "Podman" or ""
	root       bool   // we are root, whom the two sysctls above do not concern
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
		program:    program,
	}
	switch {
	case exists(".dockerenv"):
		k.container = "Docker"
	case exists("run/.containerenv"):
		k.container = "Podman"
	}
	return k
}

// basis says in a line what the sandbox is made of.
func (k kernel) basis() string {
	return "user namespaces, home on overlayfs, seccomp; Linux " + k.release
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

// explain finds the reason of a sandbox that cannot be had, and its remedy.
func (k kernel) explain(ctx context.Context, p *Policy, env []string, err error) check.Result {
	r := check.Failed(err)
	switch p.Tier {
	case "", Auto, Namespaces:
	default:
		return r // a tier of another system: its own hints say so
	}
	if p.Home != "" && ctx.Err() == nil {
		bare := *p
		bare.Home, bare.AllowRead, bare.AllowWrite = "", nil, nil
		if _, bareErr := try(ctx, &bare, env); bareErr == nil {
			r.Remedy = []string{
				fmt.Sprintf("the home directory %s cannot be shown copy-on-write; all else works: overlayfs needs Linux 5.11 and a file system such as ext4, xfs or btrfs", p.Home),
				"set HOME to a directory on such a file system",
				lastResort,
			}
			return r
		}
	}
	if lines := k.remedy(err); lines != nil {
		r.Remedy = append(lines, lastResort)
	}
	return r
}

// remedy is what to do about an error of starting the namespaces; nil for one that its
// own hints explain best. The first reason that fits is the one that has to go first.
func (k kernel) remedy(err error) []string {
	switch {
	case k.old():
		return []string{fmt.Sprintf("this kernel is too old: sesame's sandbox needs Linux %d.%d or newer", kernelMajor, kernelMinor)}
	case k.namespaces == "0", errors.Is(err, syscall.ENOSPC):
		return []string{
			"user namespaces are switched off by a limit: `sudo sysctl -w user.max_user_namespaces=15000`",
			"to keep it so: `echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/90-sesame.conf`",
		}
	case k.cloning == "0" && !k.root:
		return []string{
			"user namespaces are for root only here: `sudo sysctl -w kernel.unprivileged_userns_clone=1`",
			"to keep it so: `echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/90-sesame.conf`",
		}
	case k.container != "":
		return k.containerRemedy()
	case k.apparmor != "" && k.apparmor != "0" && !k.root:
		return []string{
			"AppArmor keeps user namespaces from programs that it does not know, as on Ubuntu 24.04; tell it of sesame: `" + k.profileCommand() + "`",
			"or allow them to all programs: `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
		}
	case k.namespaces == "":
		return []string{"this kernel was built without user namespaces (CONFIG_USER_NS)"}
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return []string{
			"something refuses user namespaces, such as the container, service manager or security module that sesame runs under",
			"in Docker: `docker run " + dockerFlags + " IMAGE`; in a systemd unit: `RestrictNamespaces=no`",
		}
	case !k.seccomp && strings.Contains(err.Error(), "system call filter"):
		return []string{"this kernel was built without seccomp filters (CONFIG_SECCOMP_FILTER)"}
	}
	return nil
}

// dockerFlags lift what Docker's defaults take away: the system calls, the mounts, and
// a /proc that nobody covered, without which none may be mounted.
const dockerFlags = "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"

func (k kernel) containerRemedy() []string {
	if k.container == "Podman" {
		return []string{"the container refuses user namespaces: `podman run --security-opt seccomp=unconfined --security-opt unmask=ALL IMAGE`"}
	}
	return []string{"the container refuses user namespaces: `docker run " + dockerFlags + " IMAGE`"}
}

// profileCommand installs an AppArmor profile that allows this program user namespaces
// and is otherwise as if there were none, which is what Ubuntu has for browsers.
func (k kernel) profileCommand() string {
	profile := fmt.Sprintf(`abi <abi/4.0>,\ninclude <tunables/global>\nprofile sesame "%s" flags=(unconfined) {\n  userns,\n}\n`, k.program)
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
