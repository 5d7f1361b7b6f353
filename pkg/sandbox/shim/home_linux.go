package shim

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/secret"
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
	var below []first.Slot
	if h.Bare { // there is nothing to hide
		below = []first.Slot{b.layer("bare", mode)}
	} else {
		b.mask(h, mode)
		below = []first.Slot{first.Mask, host}
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

// mask has the layer that hides secrets hide just those of this home. Some are in it already. The topmost layer's modes of
// directories are those that count.
func (b *builder) mask(h *Layers, mode uint32) {
	b.Call(unix.SYS_FCHMOD, first.In(first.Mask), first.Value(mode))
	there := map[string]bool{}
	for name := range secret.AtHome() {
		there[name] = true
	}
	rest := make([]string, 0, len(h.Absent))
	for _, rel := range h.Absent {
		if !there[rel] {
			rest = append(rest, rel)
		}
		delete(there, rel)
	}
	for name := range there { // the policy shows it
		b.Call(unix.SYS_UNLINKAT, first.In(first.Mask), b.Text(name), none())
	}
	for _, d := range h.Dirs {
		b.Call(unix.SYS_MKDIRAT, first.In(first.Mask), b.Text(d.Path), first.Value(uint32(d.Mode)))
	}
	b.Links(first.Tree, b.Text(first.Whiteout), first.Mask, slices.Values(rest))
}
