package shim

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// makeHome puts together the copy-on-write home: from below, the host's home, a mask that says which
// paths are not there, and what earlier turns changed. The host's home is only ever a lower layer.
//
// What is kept usually lies in the host's home itself, in sesame's state, which the mask hides: an upper layer may lie in
// a lower one (Linux 5.13). One overlay has to do, because each that a path is looked up in takes its time.
func (b *builder) makeHome(h *Layers) error {
	var upper, work first.Slot
	host := b.source(h.Host)
	if h.State != "" {
		upper, work = b.source(h.State+"/upper"), b.source(h.State+"/work")
	}
	b.Topic("files: home", h.Host)
	var st unix.Stat_t
	if err := unix.Stat(h.Host, &st); err != nil {
		return fmt.Errorf("%s: %w", h.Host, err)
	}
	mode := st.Mode & 0o7777
	b.mask(h, mode)
	b.tell(first.Message{What: first.TellMask}, first.Mask, first.Tree)
	below := []first.Slot{first.Mask, host}
	if h.Bare {
		below = below[:1]
	}
	lower := below
	if h.State == "" || h.Shared {
		// Two mounts must not share an upper layer: what is kept is read, and what is new is forgotten.
		if h.Shared {
			lower = []first.Slot{upper, b.join(below)}
		}
		upper, work = b.layer("upper", mode), b.layer("work", mode)
	}
	b.home = b.NewSlot()
	var refused, made first.Label
	for _, call := range b.overlay(b.home, lower, upper, work) {
		call.Spare(unix.EINVAL, unix.ELOOP).Else(&refused)
	}
	b.Jump(&made)
	b.Here(&refused)
	// On an overlay, as in most containers, there can be no upper layer, and on an old kernel none in a lower one. In memory there can.
	upper, work = b.layer("upper-again", mode), b.layer("work-again", mode)
	if h.State != "" {
		b.awaitFilling(upper)
	}
	b.overlay(b.home, below, upper, work)
	b.Here(&made)
	b.forbidExec(b.home)
	return nil
}

// awaitFilling has the parent fill the layer of changes.
func (b *builder) awaitFilling(upper first.Slot) {
	filled := b.Call(unix.SYS_EVENTFD2, none(), first.Value(unix.EFD_CLOEXEC)).Result()
	b.tell(first.Message{What: first.TellHome}, upper, filled)
	const size = 8
	b.Call(unix.SYS_READ, first.In(filled), b.Data(make([]byte, size)), first.Value(size))
	b.Close(filled)
}

// join makes one layer of several: a lower one may not lie in another, but the kernel compares only direct ones.
func (b *builder) join(layers []first.Slot) first.Slot {
	if len(layers) == 1 {
		return layers[0]
	}
	one := b.NewSlot()
	b.overlay(one, layers, 0, 0)
	b.Call(unix.SYS_MKDIRAT, first.In(first.Tree), b.Text("seen"), first.Value(0o700))
	b.Call(unix.SYS_MOVE_MOUNT, first.In(one), b.Text(""), first.In(first.Tree), b.Text("seen"), first.Value(unix.MOVE_MOUNT_F_EMPTY_PATH))
	return one
}

// layer makes a directory in the sandbox's own file system that is a layer of the home, or for its work.
func (b *builder) layer(name string, mode uint32) first.Slot {
	b.Call(unix.SYS_MKDIRAT, first.In(first.Tree), b.Text(name), first.Value(mode))
	return b.Call(unix.SYS_OPENAT, first.In(first.Tree), b.Text(name), first.Value(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC), none()).Result()
}

// overlay mounts layers, given from the topmost down, under an upper one unless that is 0.
func (b *builder) overlay(into first.Slot, lower []first.Slot, upper, work first.Slot) []*first.Call {
	// Descriptors instead of paths: those may hold colons, and options are limited to 256 bytes.
	options := []first.Option{{Name: "lowerdir", Value: b.Paths(lower...)}, {Name: "userxattr"}, {Name: "index", Value: b.Text("off")}}
	if upper != 0 {
		options = append(options, first.Option{Name: "upperdir", Value: b.Paths(upper)}, first.Option{Name: "workdir", Value: b.Paths(work)}, first.Option{Name: "volatile"})
	}
	return b.Filesystem("overlay", into, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options...)
}

// mask has the layer that hides secrets hide those of this home. The topmost layer's modes of directories are those that count.
func (b *builder) mask(h *Layers, mode uint32) {
	b.Call(unix.SYS_FCHMOD, first.In(first.Mask), first.Value(mode))
	if h.Bare { // there is nothing to hide
		return
	}
	for _, d := range h.Dirs {
		b.Call(unix.SYS_MKDIRAT, first.In(first.Mask), b.Text(d.Path), first.Value(uint32(d.Mode)))
	}
	b.Links(first.Tree, b.Text(first.Whiteout), first.Mask, h.Absent)
}

// Hide hides what is in Later, by the descriptors of TellMask, beside the first process: to make some hundred files takes as long as a fifth
// of all that this does. It fails if the host has made one of them meanwhile, which the command might see then.
//
// This is done to a layer of an overlay that is mounted already. Nobody has looked for any of these names before: that is what the kernel
// would remember.
func (h *Layers) Hide(mask, tree int) error {
	if h.Bare {
		return nil
	}
	for _, name := range h.Later {
		if err := unix.Linkat(tree, first.Whiteout, mask, name, 0); err != nil {
			return fmt.Errorf("hide %s: %w", path.Join(h.Host, name), err)
		}
	}
	for _, name := range h.Later {
		var st unix.Stat_t
		if err := unix.Lstat(h.Host+"/"+name, &st); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("%s was made when it had just begun, and may have been seen", path.Join(h.Host, name))
		}
	}
	return nil
}
