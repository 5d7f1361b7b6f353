package shim

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// home mounts the copy-on-write home: from below, the host's home, a mask that says which
// paths are not there, and what earlier turns changed. The host's home is only ever a lower layer.
//
// It takes two overlays. An upper layer may not lie in a lower one, and sesame's state usually lies in
// the home; but the kernel compares only direct layers. So the host's home and the mask become an
// overlay of their own, which is the lower layer of the second.
func (r *root) home(p string, h *Layers) error {
	layers, err := r.tmpfs(layersDir, 0o755)
	if err != nil {
		return err
	}
	defer r.dropLayers()
	host := r.sources[h.Host]
	if err := makeMask(layers, host, h); err != nil {
		return fmt.Errorf("mask: %w", err)
	}
	mask, err := unix.Openat(layers, "mask", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mask)
	below := []int{mask, host}
	seen := mask
	if h.Bare {
		below = below[:1]
	} else {
		if seen, err = overlay(below, -1, -1); err != nil {
			return err
		}
		defer unix.Close(seen)
		if err := r.attach(seen, layersDir+"/seen", true); err != nil {
			return err
		}
	}
	lower := []int{seen}
	upper, work := -1, -1
	if h.State != "" {
		upper, work = r.sources[h.State+"/upper"], r.sources[h.State+"/work"]
	}
	if h.State == "" || h.Shared {
		// Two mounts must not share an upper layer: what is kept is read, and what is new is forgotten.
		if h.Shared {
			lower = []int{upper, seen}
		}
		if upper, work, err = makeUpper(layers, host); err != nil {
			return err
		}
	}
	home, err := overlay(lower, upper, work)
	if errors.Is(err, unix.EINVAL) {
		// On an overlay, as in most containers, two more on top are too many and none may be the upper
		// layer. One with its changes in memory is not.
		if upper, work, err = makeUpper(layers, host); err != nil {
			return err
		}
		if home, err = overlay(below, upper, work); err == nil && h.State != "" {
			r.notices = append(r.notices, "changes to the home directory are not kept for the next turn: its file system cannot do that")
		}
	}
	if err != nil {
		return err
	}
	defer unix.Close(home)
	var st unix.Stat_t
	if err := unix.Fstat(home, &st); err != nil {
		return err
	}
	r.homeDev = st.Dev
	if err := r.forbidExec(home); err != nil {
		return err
	}
	return r.attach(home, p, true)
}

// makeUpper makes an upper layer in memory and its work directory. They stay open until the command runs.
func makeUpper(layers, host int) (upper, work int, err error) {
	name := "upper"
	if unix.Faccessat(layers, name, unix.F_OK, 0) == nil {
		name = "upper-again" // the first was for a mount that failed
	}
	if upper, err = makeLayer(layers, name, host); err != nil {
		return -1, -1, err
	}
	work, err = makeLayer(layers, name+"-work", host)
	return upper, work, err
}

// overlay mounts layers, given by descriptor from the topmost down, under an upper one unless that is -1.
func overlay(lower []int, upper, work int) (int, error) {
	// Descriptors instead of paths: those may hold colons, and options are limited to 256 bytes.
	var layers []string
	for _, fd := range lower {
		layers = append(layers, fdPath(fd))
	}
	options := [][2]string{{"lowerdir", strings.Join(layers, ":")}, {"userxattr", ""}, {"index", "off"}}
	if upper >= 0 {
		options = append(options, [2]string{"upperdir", fdPath(upper)}, [2]string{"workdir", fdPath(work)}, [2]string{"volatile", ""})
	}
	return newFilesystem("overlay", options...)
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// makeMask makes the layer that hides secrets: a whiteout (a character device 0/0) says that
// a name does not exist, whatever the layers below have.
func makeMask(layers, host int, h *Layers) error {
	mask, err := makeLayer(layers, "mask", host)
	if err != nil {
		return err
	}
	defer unix.Close(mask)
	for _, d := range h.Dirs {
		if err := unix.Mkdirat(mask, d.Path, 0o700); err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
		// The topmost layer's mode is the one that counts.
		if err := unix.Fchmodat(mask, d.Path, uint32(d.Mode), 0); err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	for i, rel := range h.Absent {
		if i == 0 {
			err = unix.Mknodat(mask, rel, unix.S_IFCHR, 0)
		} else {
			err = unix.Linkat(mask, h.Absent[0], mask, rel, 0) // one is like the other, and a link is made faster
		}
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
	}
	return nil
}

// makeLayer makes a directory with the mode of like and returns a descriptor of it.
func makeLayer(dir int, name string, like int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(like, &st); err != nil {
		return -1, err
	}
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return -1, err
	}
	if err := unix.Fchmodat(dir, name, st.Mode&0o7777, 0); err != nil {
		return -1, err
	}
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// dropLayers takes the layers out of the tree; the overlays keep what they use.
func (r *root) dropLayers() {
	fd, err := r.lookup(layersDir, unix.O_DIRECTORY)
	if err != nil {
		return
	}
	_ = unix.Unmount(fdPath(fd), unix.MNT_DETACH)
	unix.Close(fd)
	_ = unix.Unlinkat(r.fd, strings.TrimPrefix(layersDir, "/"), unix.AT_REMOVEDIR)
}
