package sandbox

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// reachTimeout is for one attempt of a program inside.
const reachTimeout = 2 * time.Second

// Place is a host that programs inside are to reach or not, as the policy says.
type Place struct {
	Title     string // for the screen, and of the id
	Group     string
	Otherwise string // how it is reached where the policy does not allow it
	// Where is asked when the check runs: the address ("" for nothing to reach), what its name is on the host, and
	// whether the host reached it.
	Where func() (address string, addrs []netip.Addr, reached bool)
}

// attempts are what Reach got: how the place was reached, or why each way failed.
type attempts struct {
	By      string   `json:"by"` // "" where it was not
	Refused []string `json:"refused"`
}

// CheckReach is the check that a program inside reaches a place where the policy says so, and only there. It is
// tried by name and by the addresses that the host knows. The command has to end in Reach; the place is added to it.
func CheckReach(policy *Policy, command *Command, place Place, needs ...string) check.Check {
	return check.Check{
		ID: "inside." + place.Title, Group: place.Group, Title: place.Title, Needs: needs,
		Run: func(ctx context.Context) check.Result {
			address, addrs, onHost := place.Where()
			if address == "" {
				return check.Skipped("there is no address to try")
			}
			u, err := url.Parse(address)
			if err != nil {
				return check.Skipped("its address cannot be read")
			}
			c := *command
			// Not what may stand in it besides: a password, a path.
			c.Args = append(append([]string{}, command.Args...), u.Scheme+"://"+u.Host+"/")
			for _, a := range addrs {
				c.Args = append(c.Args, a.String())
			}
			got, err := reachFromInside(ctx, policy, &c)
			if err != nil {
				return check.Failed(err)
			}
			r := judgeReach(policy.ExplainHost(u.Hostname(), portOf(u)), got, onHost, place.Otherwise)
			r.Details = append(r.Details, got.Refused...)
			return r
		},
	}
}

func judgeReach(v Verdict, got attempts, onHost bool, otherwise string) check.Result {
	switch {
	case got.By != "" && v.Allowed:
		return check.Passed("%s can be reached, as the policy says (%s)", v.Target, v.Rule)
	case got.By != "":
		return check.Failed(fault.New(fault.SandboxUnavailable, "a program inside reached %s %s, which no rule allows", v.Target, got.By)).
			Hint(reportBreach)
	case !v.Allowed:
		return check.Passed("%s is refused, as it is to be: %s", v.Target, otherwise)
	case !onHost:
		return check.Skipped("this machine does not reach %s either", v.Target)
	}
	return check.Warned("%s is allowed (%s), and cannot be reached inside", v.Target, v.Rule).Hint("no turn needs it: " + otherwise)
}

func portOf(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}

// reachFromInside runs the command in the sandbox.
func reachFromInside(ctx context.Context, policy *Policy, command *Command) (got attempts, err error) {
	ran, err := ask(ctx, policy, command, nil)
	switch {
	case err != nil:
		return got, err
	case ctx.Err() != nil:
		return got, fault.New(fault.SandboxUnavailable, "a program in the sandbox did not end in time")
	case json.Unmarshal(ran.out, &got) != nil:
		return got, fmt.Errorf("the program that asks from the sandbox ended with status %d: %s", ran.code, ran.errs)
	}
	return got, nil
}

// Reach is the part of CheckReach that runs in the sandbox: it tries to get an answer at base by its name, and then past
// all name servers at the addresses, and prints what became of it. Who answers does not matter, so no certificate is looked at.
func Reach(ctx context.Context, base string, addrs []string, w io.Writer) error {
	var got attempts
	ways := append([]string{""}, addrs...)
	for _, addr := range ways {
		how := "by its name"
		if addr != "" {
			how = "at " + addr
		}
		err := answers(ctx, base, addr)
		if err == nil {
			got.By = how
			break
		}
		got.Refused = append(got.Refused, fmt.Sprintf("inside, %s: %v", how, err))
	}
	return json.NewEncoder(w).Encode(got)
}

// answers tells whether anything answers at base; addr stands in for what its name is, where it is not "".
func answers(ctx context.Context, base, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base, http.NoBody)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		Proxy:             http.ProxyFromEnvironment,                                           // some tiers let nothing out but through theirs
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // an answer of anybody counts, and nothing is sent
		DisableKeepAlives: true,
	}
	if addr != "" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(to)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort(addr, port))
		}
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	// The gateway's own refusal of what is not encrypted.
	if resp.StatusCode == http.StatusForbidden && req.URL.Scheme == "http" && transport.Proxy != nil {
		if via, err := transport.Proxy(req); err == nil && via != nil {
			return fmt.Errorf("the sandbox's proxy says %s", resp.Status)
		}
	}
	return nil
}
