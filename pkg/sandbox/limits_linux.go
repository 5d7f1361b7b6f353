package sandbox

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Go program that gets no thread when it needs one is at its end. A sandbox may have fewer processes than there are to be
// had, so that one that uses up all it gets does not take sesame's.

// processLimit is how many processes the user may have when a sandbox is refused more, all threads counted.
func processLimit() int {
	limit := uint64(math.MaxInt32)
	var own unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NPROC, &own) == nil {
		limit = min(limit, own.Cur)
	}
	if os.Getuid() == 0 { // others have no more than half of that
		if n, ok := readLimit("/proc/sys/kernel/threads-max"); ok {
			limit = min(limit, n)
		}
	}
	if n, ok := readLimit("/proc/sys/kernel/pid_max"); ok {
		limit = min(limit, n-min(n, reservedIDs))
	}
	// A container's, where it sees no cgroups but its own.
	if n, ok := readLimit("/sys/fs/cgroup/pids.max"); ok {
		limit = min(limit, n)
	}
	left := min(max(limit/8, 16), 64, limit/2)
	return int(limit - left)
}

// processLimitInside is the same for a user namespace, in which the user's other processes are not counted. There are not more of them than
// of everybody's, unless that would leave the sandbox too few.
func processLimitInside() int {
	limit := processLimit()
	return max(limit-tasksOfAll(), limit/2)
}

// tasksOfAll is how many processes and threads there are on this machine.
func tasksOfAll() int {
	text, _ := readText("/proc/loadavg") // "0.00 0.01 0.05 1/123 4567"
	_, rest, _ := strings.Cut(text, "/")
	count, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return 0
	}
	return n
}

// reservedIDs are the process ids that the kernel gives but once.
const reservedIDs = 300

func readLimit(file string) (limit uint64, ok bool) {
	text, ok := readText(file)
	if !ok {
		return 0, false
	}
	limit, err := strconv.ParseUint(text, 10, 64)
	return limit, err == nil
}

// readText is for the start of each sandbox: without Go's poller, which would know of the file.
func readText(file string) (text string, ok bool) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	var buffer [64]byte
	n, err := unix.Read(fd, buffer[:])
	if err != nil {
		return "", false
	}
	return strings.TrimSpace(string(buffer[:n])), true
}
