package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// mountPoint is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mountPoint struct {
	device string
	root   string // what of the device is shown
	at     string // and where
}

func mountPoints() ([]mountPoint, error) {
	data, err := readMounts()
	if err != nil {
		return nil, err
	}
	var mounts []mountPoint
	for line := range strings.Lines(data) {
		// Two numbers, the device, what of it, where.
		_, line, _ = strings.Cut(line, " ")
		_, line, _ = strings.Cut(line, " ")
		device, line, _ := strings.Cut(line, " ")
		root, line, _ := strings.Cut(line, " ")
		if at, _, ok := strings.Cut(line, " "); ok {
			mounts = append(mounts, mountPoint{device, unescaped(root), unescaped(at)})
		}
	}
	return mounts, nil
}

func readMounts() (string, error) {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var data strings.Builder
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", err
		case n == 0:
			return data.String(), nil
		default:
			data.Write(buf[:n])
		}
	}
}

func unescaped(path string) string {
	if !strings.Contains(path, `\`) { // as good as always
		return path
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// hideBinds hides what is hidden already, and the homes, where another mount shows the same: a bind, or a disk that is mounted twice.
// In the tier namespaces the home has no mounts.
func (t *tree) hideBinds() {
	var hidden []string // collected when it is needed
	for _, m := range t.mounts {
		for _, other := range t.mounts {
			if m.device != other.device || m == other || !within(m.root, other.root) && !within(other.root, m.root) {
				continue
			}
			if hidden == nil {
				hidden = t.hiddenPaths()
			}
			for _, path := range t.homes {
				t.hideIn(other, m, path, false)
			}
			for _, path := range hidden {
				t.hideIn(other, m, path, true)
			}
		}
	}
}

// hiddenPaths is all that the tree hides so far.
func (t *tree) hiddenPaths() []string {
	paths := slices.Clone(t.deny)
	for path, op := range t.ops {
		if op.Kind == shim.Hide {
			paths = append(paths, path)
		}
	}
	if t.layers != nil {
		for _, rel := range t.layers.Absent {
			paths = append(paths, t.layers.Host+"/"+rel)
		}
	}
	return paths
}

// hideIn hides what another mount shows of a path that is in m, and with parts also where it shows no more than a part of that.
func (t *tree) hideIn(other, m mountPoint, path string, parts bool) {
	if !within(path, m.at) {
		return
	}
	onDevice := path
	if m.root != m.at {
		onDevice = filepath.Join(m.root, strings.TrimPrefix(path, m.at))
	}
	there := other.at
	switch {
	case within(onDevice, other.root):
		there = filepath.Join(other.at, strings.TrimPrefix(onDevice, other.root))
	case parts && within(other.root, onDevice):
		path = filepath.Join(path, strings.TrimPrefix(other.root, onDevice))
	default:
		return
	}
	if there == path {
		return
	}
	by := there
	if _, ok := t.ops[there]; !ok {
		by, _ = t.above(there)
	}
	if kind := t.ops[by].Kind; kind != shim.ReadOnly && kind != shim.ReadWrite && kind != shim.Home {
		return // it is not shown
	}
	// One of them may be covered by a further mount.
	one, err := os.Lstat(path)
	if err != nil {
		return
	}
	if two, err := os.Lstat(there); err == nil && os.SameFile(one, two) {
		t.hideDefault(there)
	}
}
