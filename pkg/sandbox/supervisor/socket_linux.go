package supervisor

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/asker"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// address is a sockaddr of the caller's.
type address struct {
	family  int
	ip      netip.AddrPort
	path    string // of a unix socket; "" if it is abstract
	name    string // of an abstract one
	unnamed bool   // unix: the kernel is to choose
}

func (c *call) address() (address, error) {
	const most = 128 // sizeof(struct sockaddr_storage)
	n := int(int32(c.Args[2]))
	if n < 2 || n > most {
		return address{}, unix.EINVAL
	}
	data, err := c.readAll(c.Args[1], n)
	if err != nil {
		return address{}, err
	}
	a := address{family: int(binary.NativeEndian.Uint16(data))}
	switch a.family {
	case unix.AF_INET:
		if n < unix.SizeofSockaddrInet4 {
			return a, unix.EINVAL
		}
		a.ip = netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[4:8])), binary.BigEndian.Uint16(data[2:]))
	case unix.AF_INET6:
		const oldest = 24 // without the scope
		if n < oldest {
			return a, unix.EINVAL
		}
		a.ip = netip.AddrPortFrom(netip.AddrFrom16([16]byte(data[8:24])).Unmap(), binary.BigEndian.Uint16(data[2:]))
	case unix.AF_UNIX:
		text := string(data[2:])
		switch {
		case text == "":
			a.unnamed = true
		case text[0] == 0:
			a.name = text[1:]
		default:
			a.path, _, _ = strings.Cut(text, "\x00")
		}
	}
	return a, nil
}

// flagsOf are the flags for a descriptor that takes the place of the caller's, after the socket itself got its own.
func (c *call) flagsOf(fd, with int) (uint32, error) {
	flags, err := c.descriptorFlags(fd)
	if err != nil {
		return 0, err
	}
	if err := unix.SetNonblock(with, flags&unix.O_NONBLOCK != 0); err != nil {
		return 0, err
	}
	return uint32(flags & unix.O_CLOEXEC), nil
}

// substitute replaces the caller's socket by ours, which is closed here, or tells why there is none.
func (c *call) substitute(fd, with int, err error) {
	if err != nil {
		c.answer(err)
		return
	}
	defer unix.Close(with)
	flags, err := c.flagsOf(fd, with)
	if err != nil {
		c.answer(err)
		return
	}
	c.replace(fd, with, flags)
}

func (s *Supervisor) connect(c *call) {
	fd := int(int32(c.Args[0]))
	inode, err := c.socketOf(fd)
	if err != nil {
		c.answer(err)
		return
	}
	to, err := c.address()
	if err != nil {
		c.answer(err)
		return
	}
	if s.isDatagram(inode) {
		c.answer(s.aim(c, to))
		return
	}
	var with int
	switch to.family {
	case unix.AF_INET, unix.AF_INET6:
		with, err = s.dial(c, to)
	case unix.AF_UNIX:
		with, err = s.dialUnix(c, to)
	default:
		err = unix.EACCES
	}
	c.substitute(fd, with, err)
}

// dial makes the connection that is meant: to a server inside, or to the gateway.
func (s *Supervisor) dial(c *call, to address) (int, error) {
	a := to.ip.Addr()
	local := a.IsLoopback() || a.IsUnspecified()
	if local && to.ip.Port() != 53 {
		if !s.capture.Allows(to.ip) {
			return s.dialInside(to)
		}
	} else if !s.capture.Allows(to.ip) {
		s.capture.Refuse(c.asker(), to.ip, "")
		return -1, unix.ECONNREFUSED
	}
	fd, err := stream(to.family)
	if err != nil {
		return -1, err
	}
	if err := bindTo(fd, to.family, netip.AddrPortFrom(loopback, 0)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	from, err := boundTo(fd)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	s.capture.Expect(from.Port(), to.ip, c.holderOf(fd))
	if err := connectTo(fd, to.family, s.capture.Addr()); err != nil {
		s.capture.Forget(from.Port())
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// dialInside connects to a server inside. That it is one is seen by its socket: the one that was made here listens
// at its address before and after, so nobody else can have taken the connection.
func (s *Supervisor) dialInside(to address) (int, error) {
	s.mu.Lock()
	inode, ok := s.ports[to.ip.Port()]
	s.mu.Unlock()
	if !ok {
		return -1, unix.ECONNREFUSED
	}
	at := netip.AddrPortFrom(s.own, to.ip.Port())
	if !listens(inode) {
		s.mu.Lock()
		if s.ports[to.ip.Port()] == inode {
			delete(s.ports, to.ip.Port())
		}
		s.mu.Unlock()
		return -1, unix.ECONNREFUSED
	}
	fd, err := stream(to.family)
	if err != nil {
		return -1, err
	}
	if err := connectTo(fd, to.family, at); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if !listens(inode) {
		unix.Close(fd)
		return -1, unix.ECONNREFUSED
	}
	return fd, nil
}

// listens tells whether the TCP socket with an inode is in the state LISTEN, as /proc/net has it.
func listens(inode uint64) bool {
	const stateField, inodeField, listening = 3, 9, "0A"
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) > inodeField && f[stateField] == listening && f[inodeField] == formatInode(inode) {
				return true
			}
		}
	}
	return false
}

// stream makes a TCP socket. What it waits for, it waits for briefly: everything is on this machine.
func stream(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	gateway.Unpace(fd) // it goes to the gateway or to a server inside
	return fd, nil
}

// sockaddr writes an IPv4 address for a socket of either family.
func sockaddr(family int, a netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET6 {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

func connectTo(fd, family int, to netip.AddrPort) error {
	for {
		err := unix.Connect(fd, sockaddr(family, to))
		switch err {
		case unix.EINTR:
			continue
		case unix.EINPROGRESS, unix.EAGAIN:
			return unix.ETIMEDOUT
		case nil, unix.EISCONN:
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{})
		}
		return err
	}
}

func bindTo(fd, family int, to netip.AddrPort) error {
	if family == unix.AF_INET6 {
		// IPv4 by IPv6: the address is 127.x.y.z in either.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return err
		}
	}
	return unix.Bind(fd, sockaddr(family, to))
}

func boundTo(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

// bind makes a listening socket at the run's own address, or one that has a path or a name of the run's own.
// It listens from the start, so that it never has to be told to, which would be about whatever the descriptor is then.
func (s *Supervisor) bind(c *call) {
	fd := int(int32(c.Args[0]))
	inode, err := c.socketOf(fd)
	if err != nil {
		c.answer(err)
		return
	}
	at, err := c.address()
	if err != nil {
		c.answer(err)
		return
	}
	if s.isDatagram(inode) {
		if at.ip.Port() != 0 {
			c.answer(unix.EADDRNOTAVAIL)
			return
		}
		c.answer(nil)
		return
	}
	var with int
	switch at.family {
	case unix.AF_NETLINK:
		// What the caller has in memory may be another address by the time that the kernel looks.
		with, err = routeSocket()
	case unix.AF_INET, unix.AF_INET6:
		with, err = s.serve(at)
	case unix.AF_UNIX:
		with, err = s.serveUnix(c, at)
	default:
		err = unix.EACCES
	}
	c.substitute(fd, with, err)
}

// routeSocket is a netlink socket for reading interfaces, bound to a number that the kernel chooses.
func routeSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s *Supervisor) serve(at address) (int, error) {
	if a := at.ip.Addr(); !a.IsLoopback() && !a.IsUnspecified() {
		return -1, unix.EADDRNOTAVAIL
	}
	fd, err := unix.Socket(at.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = bindTo(fd, at.family, netip.AddrPortFrom(s.own, at.ip.Port()))
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	var bound netip.AddrPort
	if err == nil {
		bound, err = boundTo(fd)
	}
	if err == nil {
		err = s.remember(fd, bound)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// remember notes a socket that listens. at is the zero value for unix sockets.
func (s *Supervisor) remember(fd int, at netip.AddrPort) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.listening) >= maxSockets {
		s.sweep()
	}
	if len(s.listening) >= maxSockets {
		return unix.ENOBUFS
	}
	s.listening[st.Ino] = at
	if at.IsValid() {
		s.ports[at.Port()] = st.Ino
	}
	return nil
}

// sweep forgets TCP sockets that listen no more.
func (s *Supervisor) sweep() {
	for inode, at := range s.listening {
		if at.IsValid() && s.ports[at.Port()] != inode {
			delete(s.listening, inode)
		}
	}
}

// listen is done already for what was bound.
func (s *Supervisor) listen(c *call) {
	inode, err := c.socketOf(int(int32(c.Args[0])))
	if err == nil {
		s.mu.Lock()
		_, ok := s.listening[inode]
		s.mu.Unlock()
		if !ok {
			err = unix.EDESTADDRREQ
		}
	}
	c.answer(err)
}

// socket gives, for a UDP socket, something that sends to our name server and nowhere else: a pair that keeps the
// borders of packets and has no use for an address to send to.
func (s *Supervisor) socket(c *call) {
	s.mu.Lock()
	full := len(s.datagram) >= maxSockets
	s.mu.Unlock()
	if full {
		c.answer(unix.ENOBUFS)
		return
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.answer(err)
		return
	}
	defer unix.Close(pair[1])
	var st unix.Stat_t
	kind := int(int32(c.Args[1]))
	err = unix.Fstat(pair[1], &st)
	if err == nil {
		err = unix.SetNonblock(pair[1], kind&unix.SOCK_NONBLOCK != 0)
	}
	if err == nil {
		err = unix.SetNonblock(pair[0], true)
	}
	if err != nil {
		unix.Close(pair[0])
		c.answer(err)
		return
	}
	s.mu.Lock()
	s.datagram[st.Ino] = true
	s.mu.Unlock()
	ours := os.NewFile(uintptr(pair[0]), "datagrams")
	go func() {
		defer ours.Close()
		s.answerDatagrams(ours, func() string { return asker.Holder(int(c.PID), st.Ino) })
		s.mu.Lock()
		delete(s.datagram, st.Ino)
		s.mu.Unlock()
	}()
	c.give(pair[1], uint32(kind&unix.SOCK_CLOEXEC))
}

func (s *Supervisor) answerDatagrams(ours *os.File, by gateway.Asker) {
	buf := make([]byte, 4096)
	for {
		n, err := ours.Read(buf)
		if err != nil || n == 0 {
			return
		}
		if reply := s.capture.Answer(buf[:n], by); reply != nil {
			if _, err := ours.Write(reply); err != nil {
				return
			}
		}
	}
}

func (s *Supervisor) isDatagram(inode uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.datagram[inode]
}

// aim is connect of a datagram socket: only to name servers. That it was tried to reach a host that is allowed is not told:
// C libraries do so to sort addresses.
func (s *Supervisor) aim(c *call, to address) error {
	switch {
	case to.family == unix.AF_UNSPEC:
		return nil
	case !to.ip.IsValid():
		return unix.EAFNOSUPPORT
	case to.ip.Port() == 53:
		return nil
	}
	if a := to.ip.Addr(); !a.IsLoopback() && !s.capture.Known(a) {
		s.capture.Refuse(c.asker(), to.ip, "UDP")
	}
	return unix.ECONNREFUSED
}
