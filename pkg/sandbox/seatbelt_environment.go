//go:build unix

package sandbox

import (
	"bufio"
	"net/netip"
	"os"
	"strings"
)

// proxyVariables make programs use the proxy, which are told by variables only.
func proxyVariables(p *Policy, proxy string) []string {
	var set []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		set = append(set, name+"="+proxy, strings.ToLower(name)+"="+proxy)
	}
	// A server inside is reached without; but not where the service itself is on this machine: the proxy has its key.
	local := "localhost,127.0.0.1,::1"
	if p.Swap != nil {
		if addr, err := netip.ParseAddr(p.Swap.Host); p.Swap.Host == "localhost" || err == nil && addr.IsLoopback() {
			local = ""
		}
	}
	// Node heeds the others from versions 22.21 and 24 on, if it is told to.
	return append(set, "NO_PROXY="+local, "no_proxy="+local, "NODE_USE_ENV_PROXY=1")
}

// isNodeScript tells whether a program is a script for Node, as Amp's builds to May 2026 are.
func isNodeScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadSlice('\n') // of a program, the first few kilobytes
	return strings.HasPrefix(string(line), "#!") && strings.Contains(string(line), "node")
}
