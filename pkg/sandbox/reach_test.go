package sandbox

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

const reachVariable = "SESAME_TEST_REACH"

// TestReachInside is the program that tries to reach a place, when a check starts it.
func TestReachInside(t *testing.T) {
	if os.Getenv(reachVariable) == "" {
		return // nothing to test in this one: TestCheckReach starts another
	}
	if err := Reach(t.Context(), os.Args[2], os.Args[3:], os.Stdout); err != nil {
		t.Fatal(err)
	}
	os.Exit(0)
}

// Without a sandbox every place is reached, and the check has to say so: by its name, or past all name servers.
func TestCheckReach(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	nobody := strings.Replace(server.URL, "127.0.0.1", "[::1]", 1) // what it is called leads nowhere
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	tests := []struct {
		name, address string
		addrs         []netip.Addr
		onHost        bool
		allow         []string
		status        check.Status
		says          string
	}{
		{"reached and not allowed", server.URL, nil, true, nil, check.Fail, "by its name, which no rule allows"},
		{"reached by its address alone", nobody, loopback, true, nil, check.Fail, " at 127.0.0.1, which no rule allows"},
		{"reached and allowed", server.URL, nil, true, []string{strings.TrimPrefix(server.URL, "https://")}, check.OK, "as the policy says"},
		{"refused, as it is to be", closed.URL, nil, true, nil, check.OK, "is refused, as it is to be: not needed"},
		{"allowed and refused", closed.URL, nil, true, []string{strings.TrimPrefix(closed.URL, "http://")}, check.Warn, "cannot be reached inside"},
		{"allowed, and nowhere", closed.URL, nil, false, []string{strings.TrimPrefix(closed.URL, "http://")}, check.Skip, "does not reach"},
		{"no address", "", nil, false, nil, check.Skip, "no address"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			policy := &Policy{Tier: Off, Workspace: dir}
			for _, text := range test.allow {
				rule, err := gateway.ParseRule(text)
				if err != nil {
					t.Fatal(err)
				}
				policy.AllowHosts = append(policy.AllowHosts, rule)
			}
			command := &Command{Args: []string{self, "-test.run=^TestReachInside$"}, Env: append(os.Environ(), reachVariable+"=1")}
			r := CheckReach(policy, command, Place{Title: "x", Otherwise: "not needed", Where: func() (string, []netip.Addr, bool) {
				return test.address, test.addrs, test.onHost
			}}).Run(t.Context())
			if r.Status != test.status || !strings.Contains(r.Summary, test.says) {
				t.Errorf("got %+v", r)
			}
			if r.Status == check.Fail && (r.Code != fault.SandboxUnavailable || len(r.Remedy) == 0) {
				t.Errorf("got %+v", r)
			}
		})
	}
}
