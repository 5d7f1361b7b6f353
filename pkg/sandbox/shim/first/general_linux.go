package first

import (
	"syscall"
	"unsafe"
)

// What the general script leaves in slots.
const (
	Tree         Slot = iota + 1 // a tmpfs, not mounted anywhere yet: all that the sandbox has of its own lies in directories of it
	Proc                         // the process namespace's own /proc, likewise
	NamesUDP                     // listens for questions to name servers, whatever the address
	NamesTCP                     //
	Refusals                     // a raw socket: gets what TCP answers where nothing listens
	Unreachables                 // a raw socket: gets what ICMP answers to UDP there
	Umask                        // the caller's, which the command is to have
	Generally                    // the last slot in use
)

// Directories and files of Tree.
const (
	RootDir   = "root"  // will be the root directory
	BlankDir  = "dir"   // is empty
	BlankFile = "file"  // cannot be read
	FilesDir  = "files" // for files that are given
)

// Calls that package syscall does not know, and their flags. They have the same numbers on all architectures.
const (
	sysFsopen, sysFsconfig, sysFsmount         = 430, 431, 432
	sysOpenTree, sysMoveMount, sysMountSetattr = 428, 429, 442

	fsopenCloexec, fsmountCloexec = 1, 1

	configFlag, configString, configCreate = 0, 1, 6
	attrNosuid, attrNodev                  = 2, 4
)

// HostAddress is an address of the sandbox that is not 127.0.0.1: without one, resolvers that are told to look
// what the machine can reach (AI_ADDRCONFIG) do not ask for IPv4 at all. It lies in the range of made-up addresses, at its end.
var HostAddress = [4]byte{198, 19, 255, 254}

// generally is the memory of the script with which a first process begins.
var generally [12 << 10 / 8]uint64

// general is what every sandbox needs, whatever its policy: it is carried out while the parent still finds out about that.
func general(memory []byte) (*Script, error) {
	const forSteps = 8 << 10
	s := NewScript(memory, forSteps, Generally)
	s.Call(syscall.SYS_UMASK, Value(0)).Into(Umask)
	s.Topic("network", "")
	network(s)
	s.Topic("files", "")
	// Nothing may propagate to the host.
	s.Call(syscall.SYS_MOUNT, s.Text(""), s.Text("/"), Value(0), Value(syscall.MS_REC|syscall.MS_PRIVATE), Value(0))
	s.Filesystem("tmpfs", Tree, attrNosuid|attrNodev, Option{"mode", s.Text("755")})
	for _, dir := range []struct {
		name string
		mode int
	}{{RootDir, 0o755}, {BlankDir, 0o555}, {FilesDir, 0o755}} {
		s.Call(syscall.SYS_MKDIRAT, In(Tree), s.Text(dir.name), Value(dir.mode))
	}
	s.Call(syscall.SYS_MKNODAT, In(Tree), s.Text(BlankFile), Value(syscall.S_IFREG), Value(0))
	s.Filesystem("proc", Proc, attrNosuid|attrNodev)
	_, err := s.Finish()
	return s, err
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

// network makes every address of the new network namespace local and listens for questions to name servers.
func network(s *Script) {
	s.Listen(NamesUDP, syscall.AF_INET, syscall.SOCK_DGRAM, 53)
	// `ip link set lo up`: a name, and flags behind it.
	ifreq := make([]byte, 40)
	copy(ifreq, "lo")
	*(*uint16)(unsafe.Pointer(&ifreq[syscall.IFNAMSIZ])) = syscall.IFF_UP
	s.Call(syscall.SYS_IOCTL, In(NamesUDP), Value(syscall.SIOCSIFFLAGS), s.Data(ifreq))

	netlink := s.Call(syscall.SYS_SOCKET, Value(syscall.AF_NETLINK), Value(syscall.SOCK_RAW|syscall.SOCK_CLOEXEC), Value(syscall.NETLINK_ROUTE)).Result()
	s.RouteLocally(netlink, syscall.AF_INET)
	// `ip address add ADDRESS/32 dev lo`
	address := appendUint32([]byte{syscall.AF_INET, 32, 0, syscall.RT_SCOPE_UNIVERSE}, loopbackIndex)
	s.netlink(netlink, syscall.RTM_NEWADDR, appendAttribute(address, syscall.IFA_LOCAL, HostAddress[:]))
	s.Close(netlink)

	// Without this an answer would come from another address than the one that was asked.
	s.Call(syscall.SYS_SETSOCKOPT, In(NamesUDP), Value(syscall.IPPROTO_IP), Value(syscall.IP_PKTINFO), s.Data(appendUint32(nil, 1)), Value(4))
	s.Listen(NamesTCP, syscall.AF_INET, syscall.SOCK_STREAM, 53)
	s.HearRefusals(Refusals, Unreachables, syscall.AF_INET)
}

// HearRefusals opens sockets that get a copy of each packet with which the kernel answers where nothing listens on a port, and of no
// other: of those with which TCP refuses a connection, and those with which ICMP refuses UDP. The gateway knows what is refused elsewhere.
func (s *Script) HearRefusals(tcp, udp Slot, family int) {
	const sequenceAt, flagsAt, flags, resetAndAck = 4, 13, 0x3f, 0x14
	refused := []syscall.SockFilter{
		// The header of IPv4 is there, and its length in it; that of IPv6 is not.
		{Code: syscall.BPF_LDX | syscall.BPF_B | syscall.BPF_MSH},
		{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_IND, K: sequenceAt},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: 0, Jf: 4}, // there was no connection
		{Code: syscall.BPF_LD | syscall.BPF_B | syscall.BPF_IND, K: flagsAt},
		{Code: syscall.BPF_ALU | syscall.BPF_AND | syscall.BPF_K, K: flags},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: resetAndAck, Jf: 1},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: ^uint32(0)},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: 0},
	}
	icmp, portUnreachable := syscall.IPPROTO_ICMP, uint32(0x0303) // type and code
	if family == syscall.AF_INET6 {
		refused[0] = syscall.SockFilter{Code: syscall.BPF_LDX | syscall.BPF_W | syscall.BPF_IMM}
		icmp, portUnreachable = syscall.IPPROTO_ICMPV6, 0x0104
	}
	unreachable := []syscall.SockFilter{
		refused[0],
		{Code: syscall.BPF_LD | syscall.BPF_H | syscall.BPF_IND, K: 0},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: portUnreachable, Jf: 1},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: ^uint32(0)},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: 0},
	}
	s.hear(tcp, family, syscall.IPPROTO_TCP, refused)
	s.hear(udp, family, icmp, unreachable)
}

// hear opens a raw socket that gets what a filter lets through.
func (s *Script) hear(into Slot, family, protocol int, filter []syscall.SockFilter) {
	s.Call(syscall.SYS_SOCKET, Value(family), Value(syscall.SOCK_RAW|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK), Value(protocol)).Into(into)
	program, size := Filter(s, filter)
	s.Call(syscall.SYS_SETSOCKOPT, In(into), Value(syscall.SOL_SOCKET), Value(syscall.SO_ATTACH_FILTER), program, Value(size))
}

// Listen listens on a port, whatever the address, and leaves the socket in a slot.
func (s *Script) Listen(fd Slot, family, kind, port int) {
	s.Call(syscall.SYS_SOCKET, Value(family), Value(kind|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK), Value(0)).Into(fd)
	address := make([]byte, syscall.SizeofSockaddrInet4)
	if family == syscall.AF_INET6 {
		address = make([]byte, syscall.SizeofSockaddrInet6)
		s.Call(syscall.SYS_SETSOCKOPT, In(fd), Value(syscall.IPPROTO_IPV6), Value(syscall.IPV6_V6ONLY), s.Data(appendUint32(nil, 1)), Value(4))
	}
	*(*uint16)(unsafe.Pointer(&address[0])) = uint16(family)
	address[2], address[3] = byte(port>>8), byte(port)
	s.Call(syscall.SYS_BIND, In(fd), s.Data(address), Value(len(address)))
	if kind == syscall.SOCK_STREAM {
		s.Call(syscall.SYS_LISTEN, In(fd), Value(syscall.SOMAXCONN))
	}
}

// loopbackIndex is that of lo in every new network namespace.
const loopbackIndex = 1

// RouteLocally is `ip route add local default dev lo`, by a netlink socket.
func (s *Script) RouteLocally(netlink Slot, family byte) {
	body := []byte{family, 0, 0, 0, syscall.RT_TABLE_LOCAL, syscall.RTPROT_BOOT, syscall.RT_SCOPE_HOST, syscall.RTN_LOCAL}
	body = appendUint32(body, 0) // flags
	s.netlink(netlink, syscall.RTM_NEWROUTE, appendAttribute(body, syscall.RTA_OIF, appendUint32(nil, loopbackIndex)))
}

// netlink makes one request in the words of rtnetlink(7) and waits for its answer.
func (s *Script) netlink(socket Slot, kind uint16, body []byte) {
	msg := appendUint32(nil, uint32(syscall.SizeofNlMsghdr+len(body)))
	msg = appendUint16(msg, kind)
	msg = appendUint16(msg, syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|syscall.NLM_F_CREATE)
	msg = append(append(msg, make([]byte, 8)...), body...) // sequence number and port
	s.Call(syscall.SYS_SENDTO, In(socket), s.Data(msg), Value(len(msg)), Value(0), Value(0), Value(0))
	const answer = 256 // it has the request in it
	reply := s.Data(make([]byte, answer))
	s.Call(syscall.SYS_RECVFROM, In(socket), reply, Value(answer), Value(0), Value(0), Value(0))
	s.Check(reply.At(syscall.SizeofNlMsghdr))
}

// appendAttribute appends an attribute of four bytes, which needs no padding.
func appendAttribute(body []byte, kind uint16, value []byte) []byte {
	body = appendUint16(body, uint16(syscall.SizeofRtAttr+len(value)))
	return append(appendUint16(body, kind), value...)
}

// Numbers as the kernel reads them: on all architectures of sesame's the low byte first.

func appendUint16(b []byte, v uint16) []byte { return append(b, byte(v), byte(v>>8)) }

func appendUint32(b []byte, v uint32) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}
