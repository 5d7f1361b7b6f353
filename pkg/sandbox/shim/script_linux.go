package shim

import (
	"cmp"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// ScriptMemory is how many bytes of memory a script may take. What is not used is never there.
const ScriptMemory = 64 << 20

const forSteps = ScriptMemory / 4

// Script is a plan written down, in memory, as the system calls that carry it out. The first process of a sandbox does these and decides
// nothing: what is to be known of the host is known here. It may begin with what is written when the rest is not known yet.
type Script struct{ b *builder }

// NewScript begins one, in ScriptMemory bytes.
func NewScript(memory []byte) *Script {
	return &Script{&builder{Script: first.NewScript(memory, forSteps, first.Generally), sources: map[string]first.Slot{}, mounted: map[string]Mount{}, ours: map[string]bool{"/": true}}}
}

// Home writes how the home is put together, which is then mounted.
func (s *Script) Home(h *Layers, strict bool) error {
	s.b.strict = strict
	if err := s.b.makeHome(h); err != nil {
		return err
	}
	s.b.Await()
	return nil
}

// Mounts writes what is mounted, as far as that is known. Files may say otherwise.
func (s *Script) Mounts(mounts []Mount, strict bool) error {
	s.b.strict = strict
	if err := s.b.mountAll(mounts); err != nil {
		return err
	}
	s.b.Await()
	return nil
}

// Files writes all that there is to do before the command starts.
func (s *Script) Files(p *Plan) error {
	b := s.b
	b.plan, b.strict = p, p.Strict
	b.Topic("network", "")
	b.listen()
	b.Topic("files", "")
	if err := b.files(); err != nil {
		return err
	}
	if !p.Terminal {
		b.Topic("setsid", "")
		b.Call(unix.SYS_SETSID)
	}
	b.Topic("drop privileges", "")
	b.dropPrivileges()
	b.Await()
	return nil
}

// Start writes how the command starts.
func (s *Script) Start() {
	s.b.Topic("start", "")
	s.b.start()
}

// Finish completes what there is of it, for the first process to read.
func (s *Script) Finish() error {
	_, err := s.b.Finish()
	return err
}

// Failure is what there is to say of a failure of the first process, and whether that is that the command cannot be executed.
func (s *Script) Failure(at int) (text string, executing bool) {
	if s == nil {
		return first.Failure(at, nil), false
	}
	return first.Failure(at, s.b.Script), s.b.Executes(at - first.AtStep - first.NextScript)
}

// Changed tells whether a failure of the first process is that something of the host that the plan shows or hides is not there any more, or is
// something else by now.
func (s *Script) Changed(at int, errno unix.Errno) bool {
	if s == nil {
		return false
	}
	about, call := s.b.About(at - first.AtStep - first.NextScript)
	step, files := strings.CutPrefix(about, "files: ")
	what, _, _ := strings.Cut(step, " ")
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		if what == string(File) && call == unix.SYS_MOVE_MOUNT { // on /etc/hosts, which was found a moment before
			return files
		}
	case unix.EINVAL: // on what is being removed nothing can be mounted
		files = files && call == unix.SYS_MOVE_MOUNT
	default:
		return false
	}
	return files && slices.Contains([]string{opening, entering, string(ReadOnly), string(ReadWrite), string(Hide)}, what)
}

// What the steps that open something of the host, and the last ones, are about, beside the kinds of mounts.
const (
	opening  = "open"
	entering = "enter"
)

// builder writes a script. Everything of the host that is to be seen inside is opened once, and from then on named by descriptor only: a
// path that changes meanwhile changes nothing. Mounts are put in a tree that is nowhere on the way to what is opened.
type builder struct {
	*first.Script
	plan    *Plan
	root    first.Slot            // the new root
	sources map[string]first.Slot // of the host, by path
	mounted map[string]Mount      // what is, by path
	ours    map[string]bool       // directories of the new root with nothing in them but what was put there
	own     int                   // how many directories of first.Tree are used for such
	given   int                   // how many files are given
	readers []first.Slot          // mounts to make read-only at the end, when all mount points in them exist
	home    first.Slot            // the home, a mount that is not anywhere yet
	strict  bool                  // the profile is
}

func cwd() first.Arg { return first.Value(unix.AT_FDCWD) }

func none() first.Arg { return first.Value(0) }

// listen listens on the plan's ports and hands all listeners to the parent.
func (b *builder) listen() {
	listeners := []first.Slot{first.NamesUDP, first.NamesTCP, first.Attempts, first.Unreachables}
	families := []byte{unix.AF_INET}
	if b.plan.IPv6 {
		listeners = append(listeners, first.Attempts6, first.Unreachables6)
	}
	if b.plan.Listen6 { // else a program that tries ::1 before 127.0.0.1 is to find nobody there
		families = append(families, unix.AF_INET6)
	}
	for _, family := range families {
		for _, port := range b.plan.Ports {
			fd := b.NewSlot()
			b.Listen(fd, int(family), unix.SOCK_STREAM, port)
			listeners = append(listeners, fd)
		}
		unusual := slices.DeleteFunc(slices.Clone(b.plan.Ports), func(port int) bool { return slices.Contains(first.UsualPorts(family), port) })
		if len(unusual) > 0 {
			netlink := b.Netlink()
			b.AnswerFrom(netlink, family, unusual)
			b.Close(netlink)
		}
	}
	b.tell(first.Message{What: first.TellListening}, listeners...)
	for _, fd := range listeners {
		b.Close(fd)
	}
}

// tell sends the parent a message, with descriptors if there are any.
func (b *builder) tell(m first.Message, fds ...first.Slot) {
	text := b.Data(m.Bytes())
	iov := b.Data(first.AsBytes(&[2]uint64{text.Offset(), uint64(first.Size)}))
	b.Address(iov)
	header := struct {
		name              uint64
		nameLength        uint64
		iov, iovs         uint64
		control, controls uint64
		flags             uint64
	}{iov: iov.Offset(), iovs: 1}
	if len(fds) > 0 {
		rights := unix.UnixRights(make([]int, len(fds))...)
		control := b.Data(rights)
		for i, fd := range fds {
			b.Poke(control.At(unix.CmsgLen(0)+4*i), fd)
		}
		header.control, header.controls = control.Offset(), uint64(len(rights))
	}
	message := b.Data(first.AsBytes(&header))
	b.Address(message.At(int(unsafe.Offsetof(header.iov))))
	if len(fds) > 0 {
		b.Address(message.At(int(unsafe.Offsetof(header.control))))
	}
	b.Call(unix.SYS_SENDMSG, first.Value(first.Socket), message, first.Value(unix.MSG_NOSIGNAL))
}

// start starts the command, found as a shell inside would.
func (b *builder) start() {
	p := b.plan
	arguments, environment := b.texts(p.Args), b.texts(p.Env)
	b.Call(unix.SYS_CLOSE_RANGE, first.Value(first.Socket+1), first.Value(^uint32(0)), none())
	var command first.Label
	b.Start(&command)
	var end first.Label
	b.Jump(&end)
	b.Here(&command)
	b.Call(unix.SYS_UMASK, first.In(first.Umask))
	for _, path := range commandPaths(p.Args[0], p.Env, p.Dir) {
		b.Call(unix.SYS_EXECVE, b.Text(path), arguments, environment).Spare(unix.ENOENT, unix.ENOTDIR, unix.EACCES)
	}
	b.NoCommand()
	b.Here(&end)
}

func (b *builder) texts(list []string) first.Arg {
	args := make([]first.Arg, 0, len(list)+1)
	for _, text := range list {
		args = append(args, b.Text(text))
	}
	return b.Table(append(args, first.Arg{})...)
}

// commandPaths are the paths at which a command may be.
func commandPaths(name string, env []string, dir string) (paths []string) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		return []string{name}
	}
	search := "/usr/local/bin:/usr/bin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	for d := range strings.SplitSeq(search, ":") {
		if p := path.Join(d, name); path.IsAbs(p) && name != "" {
			paths = append(paths, p)
		}
	}
	return paths
}

// dropPrivileges gives up every capability for good, forbids gaining any by executing something, and installs the
// filter of system calls, for the first process and the command that it starts.
func (b *builder) dropPrivileges() {
	prctl := func(option int, args ...first.Arg) {
		args = append([]first.Arg{first.Value(option)}, args...)
		for len(args) < 5 {
			args = append(args, none())
		}
		b.Call(unix.SYS_PRCTL, args...)
	}
	if first.LimitsRoot() {
		b.Topic("limit processes", "")
		b.LimitIDs(strconv.Itoa(max(b.plan.Processes, first.LeastIDs)))
	}
	// Memory and descriptors of PID 1 are not for the command to see, though it has the same uid.
	prctl(unix.PR_SET_DUMPABLE, none())
	prctl(unix.PR_SET_SECUREBITS, first.Value(lockedBits))
	prctl(unix.PR_CAP_AMBIENT, first.Value(unix.PR_CAP_AMBIENT_CLEAR_ALL))
	b.Call(unix.SYS_CAPSET, b.Data(first.AsBytes(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})), b.Data(first.AsBytes(&[2]unix.CapUserData{})))
	prctl(unix.PR_SET_NO_NEW_PRIVS, first.Value(1))

	b.Topic("limit processes", "")
	limit := unix.Rlimit{Cur: uint64(b.plan.Processes), Max: uint64(b.plan.Processes)}
	b.Call(unix.SYS_PRLIMIT64, none(), first.Value(unix.RLIMIT_NPROC), b.Data(first.AsBytes(&limit)), none())

	b.Topic("landlock", "")
	b.landlock(LandlockABI())
	b.Topic("system call filter", "")
	filter := filterProgram(nil)
	if b.plan.Strict {
		filter = filterProgram(strictRules)
	}
	program, _ := first.Filter(b.Script, filter)
	b.Call(unix.SYS_SECCOMP, first.Value(unix.SECCOMP_SET_MODE_FILTER), none(), program)
}

// landlock keeps signals inside, where the kernel's Landlock can: at a terminal the command shares the caller's process group, which
// kill(0) reaches past the process namespace. Under the strict profile it has programs started from what the plan shows of the host
// only, and from nothing that the sandbox has of its own: the second lock beside mounts that nothing can be executed on,
// and the only one for Libraries.
func (b *builder) landlock(abi int) {
	var attr unix.LandlockRulesetAttr
	if abi >= abiScopes {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	if b.plan.Strict && abi >= abiRefer {
		attr.Handled_access_fs = unix.LANDLOCK_ACCESS_FS_EXECUTE
	}
	if attr == (unix.LandlockRulesetAttr{}) {
		return
	}
	// A layer that says nothing of moving files between directories refuses it, beside another one: beside that of a program
	// inside that confines itself, too.
	attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	rules := b.Call(unix.SYS_LANDLOCK_CREATE_RULESET, b.Data(first.AsBytes(&attr)), first.Value(unsafe.Sizeof(attr)), none()).Result()
	b.grant(rules, "/", unix.LANDLOCK_ACCESS_FS_REFER)
	if b.plan.Strict && abi >= abiRefer {
		for _, op := range b.plan.Mounts {
			switch {
			case op.Kind != ReadOnly && op.Kind != ReadWrite:
			case isDir(op.Source):
				b.grant(rules, op.Path, attr.Handled_access_fs)
			default:
				b.grant(rules, op.Path, unix.LANDLOCK_ACCESS_FS_EXECUTE)
			}
		}
	}
	b.Call(unix.SYS_LANDLOCK_RESTRICT_SELF, first.In(rules), none())
	b.Close(rules)
}

// grant adds a rule for a path to a ruleset. Who may not go there needs no rule for it.
func (b *builder) grant(rules first.Slot, path string, access uint64) {
	var skip first.Label
	fd := b.NewSlot()
	b.Call(unix.SYS_OPENAT, cwd(), b.Text(path), first.Value(unix.O_PATH|unix.O_CLOEXEC), none()).Into(fd).Spare(unix.EACCES).Else(&skip)
	const ruleSize, parentAt = 12, 8 // struct landlock_path_beneath_attr, which is packed
	rule := b.Data(append(first.AsBytes(&access)[:parentAt:parentAt], make([]byte, ruleSize-parentAt)...))
	b.Poke(rule.At(parentAt), fd)
	b.Call(unix.SYS_LANDLOCK_ADD_RULE, first.In(rules), first.Value(unix.LANDLOCK_RULE_PATH_BENEATH), rule, none())
	b.Close(fd)
	b.Here(&skip)
}

func isDir(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// relative is a path of the new root as seen from there.
func relative(path string) string { return cmp.Or(strings.TrimPrefix(path, "/"), ".") }

// unixMode is a mode as the kernel has it.
func unixMode(mode os.FileMode) uint32 {
	m := uint32(mode.Perm())
	if mode&os.ModeSticky != 0 {
		m |= unix.S_ISVTX
	}
	return m
}
