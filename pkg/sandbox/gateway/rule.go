// Package gateway is the only way out of a sandbox: it answers the sandbox's DNS
// questions, accepts its connections, and passes on those that a rule allows. It
// needs nothing of the kernel but listeners, so every tier can use it.
package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Rule allows one host or, with a leading "*.", every name below one.
type Rule struct {
	Host string // lower case, no trailing dot; a name, "*.name" or an IP address
	Port int    // 0 means the web's: 443 and 80
}

// DefaultPorts are the ports of a Rule that names none.
var DefaultPorts = [...]int{443, 80}

// ParseRule reads HOST, HOST:PORT, *.HOST, ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT.
func ParseRule(s string) (Rule, error) {
	bad := func(why string) (Rule, error) { return Rule{}, fmt.Errorf("host rule %q: %s", s, why) }
	if strings.Contains(s, "://") || strings.ContainsAny(s, "/@") {
		return bad("write a host, not a URL")
	}
	host, port := s, 0
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") && strings.Contains(s, ":") {
		bare = s[1 : len(s)-1] // an IPv6 address as it is written before a port
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		return ruleForAddr(addr, 0)
	}
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > 65535 {
			return bad("the port must be 1 to 65535")
		}
		if n == dnsPort {
			return bad("port 53 is for name servers, and sesame is the only one inside")
		}
		host, port = h, n
	} else if strings.Contains(s, ":") {
		return bad("write HOST or HOST:PORT")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return ruleForAddr(addr, port)
	}
	name := strings.TrimPrefix(host, "*.")
	clean, ok := CanonicalName(name)
	if !ok {
		return bad("not a host name (a wildcard is written *.example.com)")
	}
	if looksNumeric(clean) {
		return bad("not a host name, and no address in the usual form either")
	}
	if strings.HasPrefix(host, "*.") {
		if !strings.Contains(clean, ".") {
			return bad("a wildcard over a whole top-level domain is too wide")
		}
		clean = "*." + clean
	}
	return Rule{Host: clean, Port: port}, nil
}

func ruleForAddr(addr netip.Addr, port int) (Rule, error) {
	if addr.Zone() != "" {
		return Rule{}, fmt.Errorf("host rule %q: zones are not supported", addr)
	}
	return Rule{Host: addr.Unmap().String(), Port: port}, nil
}

// looksNumeric tells names such as 2130706433, 127.1 or 0x7f.1, which C
// libraries read as addresses: no such name may ever match.
func looksNumeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if strings.HasPrefix(last, "0x") {
		return true
	}
	_, err := strconv.ParseUint(last, 10, 64)
	return err == nil
}

// CanonicalName lowers a host name, drops one trailing dot, and says whether
// it is a host name at all.
func CanonicalName(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "" || len(s) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' {
			return "", false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	return s, true
}

// CanonicalHost is a host as rules have it: a name in CanonicalName's form, or an address.
func CanonicalHost(s string) (string, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap().String(), true
	}
	return CanonicalName(s)
}

// String is the rule as ParseRule reads it.
func (r Rule) String() string {
	if r.Port == 0 {
		return r.Host
	}
	return net.JoinHostPort(r.Host, strconv.Itoa(r.Port))
}

// Addr is the address that the rule names literally, if it does.
func (r Rule) Addr() (netip.Addr, bool) {
	a, err := netip.ParseAddr(r.Host)
	return a, err == nil
}

// matches tells whether the rule covers the canonical name (or address text).
func (r Rule) matches(name string) bool {
	if suffix, ok := strings.CutPrefix(r.Host, "*"); ok {
		return len(name) > len(suffix) && strings.HasSuffix(name, suffix) && !looksNumeric(name)
	}
	return r.Host == name
}

// ports are the ports that the rule allows.
func (r Rule) ports() []int {
	if r.Port == 0 {
		return DefaultPorts[:]
	}
	return []int{r.Port}
}

// MayBePrivate tells whether the host may be at a private address: whoever wrote down one host and one port meant that machine,
// wherever it is. A rule without a port, and a wildcard, reach public addresses only,
// or a name server under someone else's control could point them at the user's network.
func (r Rule) MayBePrivate() bool {
	_, literal := r.Addr()
	return literal || r.Port != 0 && !strings.HasPrefix(r.Host, "*.")
}

// Rules is a list of what is allowed; everything else is not.
type Rules []Rule

// Resolves tells whether any rule covers the canonical name, on whatever port.
func (rs Rules) Resolves(name string) bool {
	for _, r := range rs {
		if r.matches(name) {
			return true
		}
	}
	return false
}

// Find returns the rule that allows host (canonical name or address) at port. A rule
// under which the host may be private is preferred, being the more explicit one.
func (rs Rules) Find(host string, port int) (Rule, bool) {
	var found Rule
	ok := false
	for _, r := range rs {
		if !r.matches(host) {
			continue
		}
		for _, p := range r.ports() {
			if p == port && (!ok || r.MayBePrivate()) {
				found, ok = r, true
			}
		}
	}
	return found, ok
}

// NameIPv6 tells whether a rule names an address of IPv6.
func (rs Rules) NameIPv6() bool {
	return slices.ContainsFunc(rs, func(r Rule) bool {
		a, ok := r.Addr()
		return ok && a.Is6()
	})
}

// Ports are all ports that some rule allows, and the web's, so that attempts there are seen.
func (rs Rules) Ports() []int {
	seen := map[int]bool{}
	var ports []int
	add := func(ps []int) {
		for _, p := range ps {
			if !seen[p] {
				seen[p] = true
				ports = append(ports, p)
			}
		}
	}
	add(DefaultPorts[:])
	for _, r := range rs {
		add(r.ports())
	}
	return ports
}
