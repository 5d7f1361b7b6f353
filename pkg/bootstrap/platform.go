package bootstrap

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Platform is a build of Amp, by the name that it has in the HTTP trees.
type Platform string

// The platforms that Amp is built for.
const (
	DarwinARM64      Platform = "darwin-arm64"
	DarwinX64        Platform = "darwin-x64"
	LinuxARM64       Platform = "linux-arm64"
	LinuxX64         Platform = "linux-x64"
	LinuxX64Baseline Platform = "linux-x64-baseline"
	WindowsX64       Platform = "windows-x64"
)

// Executable is the name of Amp's file on the platform.
func (p Platform) Executable() string {
	if strings.HasPrefix(string(p), "windows-") {
		return "amp.exe"
	}
	return "amp"
}

// runs reports whether a build for p starts on a host that asks for host.
func (p Platform) runs(host Platform) bool {
	// The baseline build does without AVX2, so every x64 Linux runs it.
	return p == host || (p == LinuxX64Baseline && host == LinuxX64)
}

// DetectPlatform returns the build for the operating system and processor (in
// Go's words) of the machine whose file system starts at root, "/" but for
// tests. It fails with [fault.BootstrapFailed] where Amp has no build: other
// systems, and Linux with musl.
func DetectPlatform(goos, goarch, root string) (Platform, error) {
	switch goos + "/" + goarch {
	case "darwin/arm64":
		return DarwinARM64, nil
	case "darwin/amd64":
		return DarwinX64, nil
	case "windows/amd64", "windows/arm64": // Windows on ARM translates x64
		return WindowsX64, nil
	case "linux/arm64":
		if err := needGlibc(root, "lib/ld-linux-aarch64.so.1"); err != nil {
			return "", err
		}
		return LinuxARM64, nil
	case "linux/amd64":
		if err := needGlibc(root, "lib64/ld-linux-x86-64.so.2"); err != nil {
			return "", err
		}
		if hasAVX2(root) {
			return LinuxX64, nil
		}
		return LinuxX64Baseline, nil
	}
	return "", fault.New(fault.BootstrapFailed, "bootstrap failed: there is no build of amp for %s on %s", goos, goarch).
		Hint("give an executable of your own with --amp-path")
}

// needGlibc fails on a host that has musl's loader and lacks glibc's. One that
// has neither (NixOS, say) is left to what happens when Amp starts.
func needGlibc(root, loader string) error {
	if _, err := os.Stat(filepath.Join(root, loader)); err == nil {
		return nil
	}
	musl, err := filepath.Glob(filepath.Join(root, "lib", "ld-musl-*.so.1"))
	if err != nil || len(musl) == 0 {
		return nil
	}
	return fault.New(fault.BootstrapFailed, "bootstrap failed: this system has musl, and amp is built for glibc only").
		Hint("use a system with glibc (Debian, Ubuntu, Fedora; for containers, not Alpine)").
		Hint("or give an executable that runs here with --amp-path")
}

// hasAVX2 looks for the flag in /proc/cpuinfo, where Amp's own installer looks:
// the kernel leaves it out when it does not save the registers.
func hasAVX2(root string) bool {
	f, err := os.Open(filepath.Join(root, "proc", "cpuinfo"))
	if err != nil {
		return false // the baseline build runs everywhere
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, flags, ok := strings.Cut(lines.Text(), ":")
		if !ok || strings.TrimSpace(key) != "flags" {
			continue
		}
		for _, flag := range strings.Fields(flags) {
			if flag == "avx2" {
				return true
			}
		}
		return false // every processor has the same flags
	}
	return false
}
