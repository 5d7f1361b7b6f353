// Package shim carries out a Plan: with namespaces as a script for the first process of a sandbox (package first), without them by
// processes that are sesame, started again.
package shim

import (
	"bytes"
	"os"
	"slices"
)

// Plan is a Policy spelled out: what to mount, where to listen, what
// to run. The parent makes it, where it can still see the host; carrying it out decides nothing.
type Plan struct {
	Mounts   []Mount
	Home     *Layers
	Ports    []int
	IPv6     bool // the kernel has it
	Listen6  bool // listen on IPv6, too
	Args     []string
	Dir      string
	Env      []string
	Terminal bool
	Strict   bool // nothing that the command can write can be executed, and there are no unix sockets
	// Processes is how many the user may have when the command is refused more.
	Processes int
	// Confine, if set, has the sandbox made without namespaces; nothing is mounted then.
	Confine *Confine
}

// Confine is what a command may reach that runs on the host's own tree and network, under Landlock.
type Confine struct {
	Grants []Grant
	Remove string // the run's own directory, removed when all is over
}

// Grant allows access to a file, or to a directory and all below it. What none allows cannot be opened.
type Grant struct {
	Path   string
	Access Access
}

// Access is what a Grant allows.
type Access string

// The kinds of access.
const (
	AccessRead   Access = "read"   // read, list and execute
	AccessWrite  Access = "write"  // all that there is to do, but for making devices
	AccessData   Access = "data"   // AccessWrite, but for executing
	AccessDevice Access = "device" // read, write and steer
)

// Kind is what a Mount does.
type Kind string

// The kinds.
const (
	ReadOnly  Kind = "ro"      // Source at Path, read-only
	ReadWrite Kind = "rw"      // Source at Path
	Hide      Kind = "hide"    // nothing at Path
	Tmp       Kind = "tmp"     // a new tmpfs
	Libraries Kind = "libs"    // a new tmpfs from which libraries are loaded, under the strict profile, too
	Proc      Kind = "proc"    // the pid namespace's own /proc
	Dev       Kind = "dev"     // a minimal /dev
	Home      Kind = "home"    // Plan.Home at Path
	Symlink   Kind = "symlink" // a link with the text Source
	File      Kind = "file"    // a file with Data
)

// Mount is one thing to have in the sandbox's tree.
type Mount struct {
	Kind   Kind
	Path   string
	Source string
	Data   []byte
	Mode   os.FileMode
	Also   []string // of a File: further paths of it
	Blank  Blank    // what a hidden path is covered with
	Gone   bool     // of what is hidden: it may be gone by now
}

// same tells whether two mounts are.
func (m Mount) same(other Mount) bool {
	return m.Kind == other.Kind && m.Path == other.Path && m.Source == other.Source && m.Mode == other.Mode && m.Blank == other.Blank && m.Gone == other.Gone &&
		bytes.Equal(m.Data, other.Data) && slices.Equal(m.Also, other.Also)
}

// Blank is what a hidden path is covered with.
type Blank string

// The blanks.
const (
	BlankDir    Blank = "dir"    // an empty directory
	BlankFile   Blank = "file"   // an unreadable file
	BlankParent Blank = "parent" // a directory with nothing in it but what the plan mounts there
)

// Layers says how the copy-on-write home is made: Host below, unless Bare, without what Absent names, and
// what was changed in earlier turns above it.
type Layers struct {
	Host   string
	State  string   // has "upper" and "work"; "" keeps nothing
	Bare   bool     // nothing of Host is shown
	Shared bool     // State is in use by another sandbox: read what it has, keep nothing
	Absent []string // relative to Host
	Dirs   []DirMode
}

// DirMode is a directory that the mask layer has to have, with the mode of the host's.
type DirMode struct {
	Path string
	Mode os.FileMode
}
