package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// forgetVolatile removes the mark that a volatile overlay leaves behind and that keeps the next one from
// being mounted. The home's lock must be held. A home may be volatile, which spares every
// sandbox's end a sync of the whole disk: if the machine crashes, what a turn left in it may be incomplete.
func forgetVolatile(state string) error {
	work := filepath.Join(state, "work", "work")
	mark := filepath.Join(work, "incompat")
	// Root may remove them as they are.
	if err := syscall.Rmdir(filepath.Join(mark, "volatile")); err == nil {
		return syscall.Rmdir(mark)
	} else if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, dir := range []string{work, mark, filepath.Join(mark, "volatile")} { // the kernel makes them for nobody to enter
		if err := os.Chmod(dir, 0o700); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return os.RemoveAll(mark)
}

// mountsBelow lists what is mounted below a directory.
func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || dir == "" {
		return nil
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var found []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			if path := unescape.Replace(fields[4]); path != dir && within(path, dir) {
				found = append(found, path)
			}
		}
	}
	return found
}
