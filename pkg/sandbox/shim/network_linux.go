package shim

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// openNetwork makes every address of the new network namespace local and listens for DNS over UDP and
// TCP, whatever the address.
func openNetwork() ([]int, error) {
	if err := loopbackUp(); err != nil {
		return nil, fmt.Errorf("bring up the loopback interface: %w", err)
	}
	if err := routeAllLocally(unix.AF_INET); err != nil {
		return nil, fmt.Errorf("route all addresses to the loopback interface: %w", err)
	}
	if err := addAddress(); err != nil {
		return nil, fmt.Errorf("give the loopback interface an address: %w", err)
	}
	udp, err := listen(unix.AF_INET, unix.SOCK_DGRAM, 53)
	if err != nil {
		return nil, err
	}
	// Without this an answer would come from another address than the one that was asked.
	if err := unix.SetsockoptInt(udp, unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err != nil {
		return nil, err
	}
	tcp, err := listen(unix.AF_INET, unix.SOCK_STREAM, 53)
	if err != nil {
		return nil, err
	}
	return []int{udp, tcp}, nil
}

// listenOn listens on TCP ports, whatever the address.
func listenOn(ports []int, ipv6 bool) ([]int, error) {
	if len(ports)*2+3 > MaxListeners {
		return nil, fmt.Errorf("%d different ports are too many", len(ports))
	}
	var fds []int
	for _, port := range ports {
		fd, err := listen(unix.AF_INET, unix.SOCK_STREAM, port)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	if !ipv6 {
		return fds, nil // an IPv6 address is unreachable: no route
	}
	if err := routeAllLocally(unix.AF_INET6); err != nil {
		return nil, fmt.Errorf("route all IPv6 addresses to the loopback interface: %w", err)
	}
	for _, port := range ports {
		fd, err := listen(unix.AF_INET6, unix.SOCK_STREAM, port)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func listen(family, kind, port int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	var addr unix.Sockaddr = &unix.SockaddrInet4{Port: port}
	if family == unix.AF_INET6 {
		addr = &unix.SockaddrInet6{Port: port}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, err
		}
	}
	if err := unix.Bind(fd, addr); err != nil {
		return -1, fmt.Errorf("bind port %d: %w", port, err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
			return -1, fmt.Errorf("listen on port %d: %w", port, err)
		}
	}
	return fd, nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// loopbackIndex is that of lo in every new network namespace.
const loopbackIndex = 1

// hostAddress is an address of the sandbox that is not 127.0.0.1: without one, resolvers that are told to look
// what the machine can reach (AI_ADDRCONFIG) do not ask for IPv4 at all. It lies in the range of made-up addresses, at its end.
var hostAddress = [4]byte{198, 19, 255, 254}

// addAddress is `ip address add ADDRESS/32 dev lo`.
func addAddress() error {
	body := []byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_UNIVERSE}
	body = binary.NativeEndian.AppendUint32(body, loopbackIndex)
	body = appendAttr(body, unix.IFA_LOCAL, hostAddress[:])
	return netlink(unix.RTM_NEWADDR, body)
}

// routeAllLocally is `ip route add local default dev lo`.
func routeAllLocally(family uint8) error {
	body := []byte{family, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL}
	body = binary.NativeEndian.AppendUint32(body, 0) // rtm_flags
	body = appendAttr(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, loopbackIndex))
	return netlink(unix.RTM_NEWROUTE, body)
}

// appendAttr appends an attribute of four bytes, which needs no padding.
func appendAttr(body []byte, kind uint16, value []byte) []byte {
	body = binary.NativeEndian.AppendUint16(body, uint16(unix.SizeofRtAttr+len(value)))
	body = binary.NativeEndian.AppendUint16(body, kind)
	return append(body, value...)
}

// netlink makes one request in the words of rtnetlink(7) and waits for its answer.
func netlink(kind uint16, body []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ne := binary.NativeEndian
	msg := ne.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = ne.AppendUint16(msg, kind)
	msg = ne.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	msg = append(msg, make([]byte, 8)...) // sequence number and port
	if err := unix.Sendto(fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || ne.Uint16(reply[4:]) != unix.NLMSG_ERROR {
		return errors.New("unexpected answer of rtnetlink")
	}
	if code := int32(ne.Uint32(reply[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
