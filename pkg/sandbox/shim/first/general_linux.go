package first

import (
	"syscall"

	"github.com/sesame-cli/sesame/pkg/sandbox/secret"
)

// What the general script leaves in slots.
const (
	Tree          Slot = iota + 1 // a tmpfs: all that the sandbox has of its own lies in directories of it
	Proc                          // the process namespace's own /proc, mounted in Tree
	NamesUDP                      // listens for questions to name servers, whatever the address
	NamesTCP                      //
	Attempts                      // a raw socket: gets the first packet of each connection of TCP that nobody listens for; who has it answers
	Unreachables                  // a raw socket: gets what ICMP answers to UDP where nothing listens
	Attempts6                     // these for IPv6, where the kernel has that
	Unreachables6                 //
	Mask                          // the directory MaskDir
	Dev                           // the devices, mounted in Tree
	Shm                           // what is mounted in that for shared memory
	Umask                         // the caller's, which the command is to have
	MostIDs                       // the number at which the process namespace's ids end, if LimitsRoot
	Generally                     // the last slot in use
)

// Directories and files of Tree.
const (
	RootDir   = "root"  // will be the root directory
	BlankDir  = "dir"   // is empty
	BlankFile = "file"  // cannot be read
	FilesDir  = "files" // for files that are given
	ShmDir    = "shm"   // in Dev
	MaskDir   = "mask"  // has a link of Whiteout for each of secret.AtHome
	Whiteout  = "gone"  // says in a layer of an overlay that a name does not exist, whatever those below have: a device 0/0
)

// Calls that package syscall does not know, and their flags. They have the same numbers on all architectures.
const (
	sysFsopen, sysFsconfig, sysFsmount         = 430, 431, 432
	sysOpenTree, sysMoveMount, sysMountSetattr = 428, 429, 442
	sysOpenat2                                 = 437

	fsopenCloexec, fsmountCloexec = 1, 1
	moveMountEmptyPath            = 4
	moveMountToEmptyPath          = 0x40
	openTreeClone                 = 1
	atEmptyPath, atRecursive      = 0x1000, 0x8000
	oPath                         = 0x200000
	resolveNoSymlinks             = 4
	currentDirectory              = -100 // for paths that are absolute anyway

	configFlag, configString, configCreate = 0, 1, 6
	attrReadOnly, attrNosuid, attrNodev    = 1, 2, 4
)

// generally is the memory of the script with which a first process begins.
var generally [20 << 10 / 8]uint64

// general is what every sandbox needs, whatever its policy: it is carried out while the parent still finds out about that.
func general(memory []byte) (*Script, error) {
	const forSteps = 12 << 10
	s := NewScript(memory, forSteps, Generally)
	s.Call(syscall.SYS_UMASK, Value(0)).Into(Umask)
	s.Topic("network", "")
	network(s)
	s.Topic("files", "")
	// Nothing may propagate to the host.
	s.Call(syscall.SYS_MOUNT, s.Text(""), s.Text("/"), Value(0), Value(syscall.MS_REC|syscall.MS_PRIVATE), Value(0))
	s.Filesystem("tmpfs", Tree, attrNosuid|attrNodev, Option{"mode", s.Text("755")})
	s.attachTree()
	for _, dir := range []struct {
		name string
		mode int
	}{{RootDir, 0o755}, {BlankDir, 0o555}, {FilesDir, 0o755}} {
		s.Call(syscall.SYS_MKDIRAT, In(Tree), s.Text(dir.name), Value(dir.mode))
	}
	s.Call(syscall.SYS_MKNODAT, In(Tree), s.Text(BlankFile), Value(syscall.S_IFREG), Value(0))
	s.Call(syscall.SYS_MKDIRAT, In(Tree), s.Text(MaskDir), Value(0o700))
	s.Call(syscall.SYS_OPENAT, In(Tree), s.Text(MaskDir), Value(syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC), Value(0)).Into(Mask)
	gone := s.Text(Whiteout)
	s.Call(syscall.SYS_MKNODAT, In(Tree), gone, Value(syscall.S_IFCHR), Value(0))
	s.Links(Tree, gone, Mask, secret.AtHome())
	proc(s)
	dev(s)
	s.Topic("drop privileges", "")
	s.DropBounding() // of those that are given up later none can come back
	_, err := s.Finish()
	return s, err
}

// attachTree mounts Tree: layers of an overlay have to be mounted somewhere (before Linux 6.15). What is shown of the host is opened
// later, so it must not be below that. The host's tree is left behind with it in the end.
func (s *Script) attachTree() {
	var there Label
	stages := []string{"/proc/fs", "/proc/bus", "/proc/tty", "/dev/mqueue", "/dev/shm"} // a service or a container may lack some
	for i, stage := range stages {
		var next Label
		call := s.Call(sysMoveMount, In(Tree), s.Text(""), Value(currentDirectory), s.Text(stage), Value(moveMountEmptyPath))
		if i+1 < len(stages) {
			call.Spare(syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES, syscall.EINVAL).Else(&next)
			s.Jump(&there)
			s.Here(&next)
		}
	}
	s.Here(&there)
}

// Option is one of a file system; without a value it is a flag.
type Option struct {
	Name  string
	Value Arg
}

// Filesystem makes a file system with options and leaves a mount of it in a slot, which is not anywhere yet. Errors that
// are spared let the script go on elsewhere.
func (s *Script) Filesystem(kind string, into Slot, attributes int, options ...Option) (calls []*Call) {
	fs := s.NewSlot()
	s.Call(sysFsopen, s.Text(kind), Value(fsopenCloexec)).Into(fs)
	for _, o := range options {
		set := configString
		if o.Value == (Arg{}) {
			set = configFlag
		}
		calls = append(calls, s.Call(sysFsconfig, In(fs), Value(set), s.Text(o.Name), o.Value, Value(0)))
	}
	calls = append(calls, s.Call(sysFsconfig, In(fs), Value(configCreate), Value(0), Value(0), Value(0)))
	s.Call(sysFsmount, In(fs), Value(fsmountCloexec), Value(attributes)).Into(into)
	s.Close(fs)
	return calls
}

// Close closes the descriptor in a slot.
func (s *Script) Close(slot Slot) { s.Call(syscall.SYS_CLOSE, In(slot)) }
