package sandbox

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// mountPoint is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mountPoint struct {
	device string
	root   string // what of the device is shown
	at     string // and where
}

func mountPoints() ([]mountPoint, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data strings.Builder
	buf := make([]byte, 32<<10) // the kernel writes it anew for each part that is asked for
	for {
		n, err := f.Read(buf)
		data.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var mounts []mountPoint
	for line := range strings.Lines(data.String()) {
		if fields := strings.SplitN(line, " ", 6); len(fields) == 6 {
			mounts = append(mounts, mountPoint{fields[2], unescape.Replace(fields[3]), unescape.Replace(fields[4])})
		}
	}
	return mounts, nil
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
	onDevice := filepath.Join(m.root, strings.TrimPrefix(path, m.at))
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
