package first

import (
	"slices"
	"syscall"
	"unsafe"
)

// HostAddress is an address of the sandbox that is not 127.0.0.1: without one, resolvers that are told to look
// what the machine can reach (AI_ADDRCONFIG) do not ask for IPv4 at all. It lies in the range of made-up addresses, at its end.
var HostAddress = [4]byte{198, 19, 255, 254}

// NamesPort is that of name servers.
const NamesPort = 53

// UsualPorts are those of a family on which sesame listens whatever the rules name: none of IPv6, which only rules for its addresses are for.
func UsualPorts(family byte) []int {
	if family == syscall.AF_INET6 {
		return nil
	}
	return []int{80, 443, NamesPort}
}

// network makes every address of the new network namespace local and listens for questions to name servers.
func network(s *Script) {
	s.Listen(NamesUDP, syscall.AF_INET, syscall.SOCK_DGRAM, NamesPort)
	// `ip link set lo up`: a name, and flags behind it.
	ifreq := make([]byte, 40)
	copy(ifreq, "lo")
	*(*uint16)(unsafe.Pointer(&ifreq[syscall.IFNAMSIZ])) = syscall.IFF_UP
	s.Call(syscall.SYS_IOCTL, In(NamesUDP), Value(syscall.SIOCSIFFLAGS), s.Data(ifreq))

	netlink := s.Netlink()
	// `ip address add ADDRESS/32 dev lo`
	address := appendUint32([]byte{syscall.AF_INET, 32, 0, syscall.RT_SCOPE_UNIVERSE}, loopbackIndex)
	s.netlink(netlink, syscall.RTM_NEWADDR, appendAttribute(address, syscall.IFA_LOCAL, HostAddress[:]...))
	s.netlink(netlink, syscall.RTM_NEWROUTE, routeLocally(syscall.AF_INET))
	s.request(netlink, answerNoAttempts(syscall.AF_INET))
	s.hearAttempts(Attempts, syscall.AF_INET)
	s.hearUnreachables(Unreachables, syscall.AF_INET)

	var without Label
	s.hearAttempts(Attempts6, syscall.AF_INET6).Spare(syscall.EAFNOSUPPORT).Else(&without)
	s.hearUnreachables(Unreachables6, syscall.AF_INET6)
	// Where that is refused, because IPv6 is switched off, programs hear that there is no way to its addresses.
	s.request(netlink, append(message(syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE, routeLocally(syscall.AF_INET6)), answerNoAttempts(syscall.AF_INET6)...))
	s.Here(&without)
	s.Close(netlink)

	// Without this an answer would come from another address than the one that was asked.
	s.Call(syscall.SYS_SETSOCKOPT, In(NamesUDP), Value(syscall.IPPROTO_IP), Value(syscall.IP_PKTINFO), s.Data(appendUint32(nil, 1)), Value(4))
	s.Listen(NamesTCP, syscall.AF_INET, syscall.SOCK_STREAM, NamesPort)
}

// hearAttempts opens a raw socket that gets a copy of the first packet of each TCP connection to an address that is not really the
// sandbox's own, but for those to the usual ports. The kernel does not answer where nothing listens: the program would be told at once,
// and be gone before anybody could find out which one it was. Whoever has the socket answers; AnswerFrom is for other ports.
func (s *Script) hearAttempts(into Slot, family byte) (opened *Call) {
	const (
		network         = ^uint32(0xfffff) // from here on the header of IP is read (SKF_NET_OFF)
		ip4To, ip6To    = 16, 24           // there
		portAt, flagsAt = 2, 13            // in that of TCP
		opening, opens  = 0x17, 0x02       // of the flags FIN, SYN, RST and ACK: SYN alone
		first           = 0xff << 24       // byte of an address
		loopback        = 127 << 24
	)
	load := func(size uint16, from uint32) syscall.SockFilter {
		return syscall.SockFilter{Code: syscall.BPF_LD | size, K: from}
	}
	mask := func(bits uint32) syscall.SockFilter {
		return syscall.SockFilter{Code: syscall.BPF_ALU | syscall.BPF_AND | syscall.BPF_K, K: bits}
	}
	// unless skips some instructions if the value is another one.
	unless := func(value uint32, skip uint8) syscall.SockFilter {
		return syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: value, Jf: skip}
	}
	stop := syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: 0}

	var program []syscall.SockFilter
	if family == syscall.AF_INET {
		host := uint32(HostAddress[0])<<24 | uint32(HostAddress[1])<<16 | uint32(HostAddress[2])<<8 | uint32(HostAddress[3])
		program = []syscall.SockFilter{
			load(syscall.BPF_W|syscall.BPF_ABS, network+ip4To), unless(host, 1), stop, mask(first), unless(loopback, 1), stop,
			{Code: syscall.BPF_LDX | syscall.BPF_B | syscall.BPF_MSH}, // TCP's header is behind IP's
		}
	} else {
		for i, word := range [...]uint32{0, 0, 0, 1} { // ::1
			program = append(program, load(syscall.BPF_W|syscall.BPF_ABS, network+ip6To+4*uint32(i)), unless(word, uint8(7-2*i)))
		}
		program = append(program, stop, syscall.SockFilter{Code: syscall.BPF_LDX | syscall.BPF_W | syscall.BPF_IMM}) // IP's is not there
	}
	program = append(program, load(syscall.BPF_B|syscall.BPF_IND, flagsAt), mask(opening), syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: opens, Jt: 1}, stop,
		load(syscall.BPF_H|syscall.BPF_IND, portAt))
	for _, port := range UsualPorts(family) {
		program = append(program, unless(uint32(port), 1), stop)
	}
	return s.hear(into, int(family), syscall.IPPROTO_TCP, append(program, syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: ^uint32(0)}))
}

// hearUnreachables opens a raw socket that gets a copy of each packet with which ICMP answers UDP where nothing listens on a port.
func (s *Script) hearUnreachables(into Slot, family int) {
	header := syscall.SockFilter{Code: syscall.BPF_LDX | syscall.BPF_B | syscall.BPF_MSH} // IP's is before ICMP's
	protocol, portUnreachable := syscall.IPPROTO_ICMP, uint32(0x0303)                     // type and code
	if family == syscall.AF_INET6 {
		header = syscall.SockFilter{Code: syscall.BPF_LDX | syscall.BPF_W | syscall.BPF_IMM} // it is not there
		protocol, portUnreachable = syscall.IPPROTO_ICMPV6, 0x0104
	}
	s.hear(into, family, protocol, []syscall.SockFilter{
		header,
		{Code: syscall.BPF_LD | syscall.BPF_H | syscall.BPF_IND, K: 0},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: portUnreachable, Jf: 1},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: ^uint32(0)},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: 0},
	})
}

// hear opens a raw socket that gets what a filter lets through.
func (s *Script) hear(into Slot, family, protocol int, filter []syscall.SockFilter) (opened *Call) {
	opened = s.Call(syscall.SYS_SOCKET, Value(family), Value(syscall.SOCK_RAW|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK), Value(protocol)).Into(into)
	program, size := Filter(s, filter)
	s.Call(syscall.SYS_SETSOCKOPT, In(into), Value(syscall.SOL_SOCKET), Value(syscall.SO_ATTACH_FILTER), program, Value(size))
	return opened
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

// routeLocally is `ip route add local default dev lo`: all addresses of a family are the sandbox's own. From HostAddress, or ::1, programs
// connect to those that are not really.
func routeLocally(family byte) []byte {
	body := []byte{family, 0, 0, 0, syscall.RT_TABLE_LOCAL, syscall.RTPROT_BOOT, syscall.RT_SCOPE_HOST, syscall.RTN_LOCAL}
	body = appendAttribute(appendUint32(body, 0), syscall.RTA_OIF, appendUint32(nil, loopbackIndex)...)
	if family == syscall.AF_INET {
		body = appendAttribute(body, syscall.RTA_PREFSRC, HostAddress[:]...)
	}
	return body
}

// answerNoAttempts has the kernel route nowhere what it answers to connections to such addresses, but from the usual ports. A
// kernel without rules for routes answers as before.
func answerNoAttempts(family byte) (requests []byte) {
	type prefix struct {
		address []byte
		bits    byte
	}
	own := []prefix{{HostAddress[:], 32}, {[]byte{127, 0, 0, 0}, 8}}
	sources := append(slices.Clone(own), prefix{make([]byte, 4), 32}) // who connects looks the way up with no source yet
	if family == syscall.AF_INET6 {
		own = []prefix{{append(make([]byte, 15), 1), 128}} // ::1
		sources = own
	}
	var rules []byte
	// What programs inside answer each other comes from the sandbox's own addresses.
	for _, p := range sources {
		rules = append(rules, rule(family, toLocal, 1, 0, p.bits, appendAttribute(nil, ruleFrom, p.address...))...)
	}
	rules = append(rules, answersFrom(family, UsualPorts(family))...)
	for _, p := range own {
		rules = append(rules, rule(family, toNowhere, 3, p.bits, 0, appendAttribute(appendAttribute(nil, ruleTo, p.address...), ruleProtocol, syscall.IPPROTO_TCP))...)
	}
	rules = append(rules, rule(family, toLocal, 4, 0, 0, nil)...)
	// The kernel's own rule for all comes before these.
	old := []byte{family, 0, 0, 0, syscall.RT_TABLE_LOCAL, 0, 0, toLocal, 0, 0, 0, 0}
	return append(rules, message(syscall.RTM_DELRULE, 0, appendAttribute(old, rulePriority, 0, 0, 0, 0))...)
}

// AnswerFrom has what the kernel answers from ports, on which somebody listens, be answered all the same.
func (s *Script) AnswerFrom(netlink Slot, family byte, ports []int) {
	s.request(netlink, answersFrom(family, ports))
}

func answersFrom(family byte, ports []int) (rules []byte) {
	for _, port := range ports {
		only := appendAttribute(nil, ruleProtocol, syscall.IPPROTO_TCP)
		only = appendAttribute(only, ruleSourcePort, appendUint16(appendUint16(nil, uint16(port)), uint16(port))...)
		rules = append(rules, rule(family, toLocal, 2, 0, 0, only)...)
	}
	return rules
}

// What rules for routes do with a packet, and their attributes (linux/fib_rules.h).
const (
	toLocal, toNowhere                                           = 1, 6
	ruleTo, ruleFrom, rulePriority, ruleProtocol, ruleSourcePort = 1, 2, 6, 22, 23
)

// rule is a request for one. Of a rule with a source it is also asked for what has no source yet (IPv6 only).
func rule(family, action, priority, toBits, fromBits byte, attributes []byte) []byte {
	const findSource = 1 << 16
	table := byte(0)
	if action == toLocal {
		table = syscall.RT_TABLE_LOCAL
	}
	body := appendUint32([]byte{family, toBits, fromBits, 0, table, 0, 0, action}, findSource)
	body = appendAttribute(body, rulePriority, priority, 0, 0, 0)
	return message(syscall.RTM_NEWRULE, syscall.NLM_F_CREATE, append(body, attributes...))
}

// Netlink opens a socket for what rtnetlink(7) has.
func (s *Script) Netlink() Slot {
	return s.Call(syscall.SYS_SOCKET, Value(syscall.AF_NETLINK), Value(syscall.SOCK_RAW|syscall.SOCK_CLOEXEC), Value(syscall.NETLINK_ROUTE)).Result()
}

// message is a request in the words of rtnetlink(7).
func message(kind, flags uint16, body []byte) []byte {
	msg := appendUint32(nil, uint32(syscall.SizeofNlMsghdr+len(body)))
	msg = appendUint16(msg, kind)
	msg = appendUint16(msg, syscall.NLM_F_REQUEST|flags)
	return append(append(msg, make([]byte, 8)...), body...) // sequence number and port
}

// request sends requests, one behind the other.
func (s *Script) request(socket Slot, messages []byte) {
	s.Call(syscall.SYS_SENDTO, In(socket), s.Data(messages), Value(len(messages)), Value(0), Value(0), Value(0))
}

// netlink makes a request and waits for its answer.
func (s *Script) netlink(socket Slot, kind uint16, body []byte) {
	msg := message(kind, syscall.NLM_F_ACK|syscall.NLM_F_CREATE, body)
	s.request(socket, msg)
	const answer = 256 // it has the request in it
	reply := s.Data(make([]byte, answer))
	s.Call(syscall.SYS_RECVFROM, In(socket), reply, Value(answer), Value(0), Value(0), Value(0))
	s.Check(reply.At(syscall.SizeofNlMsghdr))
}

// appendAttribute appends an attribute. Each begins at a whole word.
func appendAttribute(body []byte, kind uint16, value ...byte) []byte {
	body = appendUint16(body, uint16(syscall.SizeofRtAttr+len(value)))
	body = append(appendUint16(body, kind), value...)
	return append(body, make([]byte, -len(value)&(syscall.RTA_ALIGNTO-1))...)
}

// Numbers as the kernel reads them: on all architectures of sesame's the low byte first.

func appendUint16(b []byte, v uint16) []byte { return append(b, byte(v), byte(v>>8)) }

func appendUint32(b []byte, v uint32) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}
