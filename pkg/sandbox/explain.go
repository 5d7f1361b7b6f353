package sandbox

import "github.com/sesame-cli/sesame/pkg/sandbox/gateway"

// Access is what a sandboxed command may do with a path.
type Access string

// The accesses.
const (
	AccessWrite  Access = "read-write"    // changes reach the host
	AccessRead   Access = "read-only"     //
	AccessCopy   Access = "copy-on-write" // changes stay in the sandbox
	AccessOwn    Access = "own"           // the sandbox has something of its own there
	AccessAbsent Access = "absent"        //
)

// Verdict is what a policy says of one path or host, and why.
type Verdict struct {
	Target  string `json:"target"`
	Allowed bool   `json:"allowed"`          // a path: that it can be read; a host: that it is connected to
	Access  Access `json:"access,omitempty"` // of a path
	Rule    string `json:"rule"`             // what decides
	Flag    string `json:"flag,omitempty"`   // what would allow (more of) it, if anything does
}

// ExplainHost says whether a host can be reached at a port.
func (p *Policy) ExplainHost(host string, port int) Verdict {
	v := Verdict{Target: gateway.Rule{Host: host, Port: port}.String()}
	name, ok := gateway.CanonicalHost(host)
	if !ok {
		v.Rule = "not a host name"
		return v
	}
	rule, ok := gateway.Rules(p.AllowHosts).Find(name, port)
	switch {
	case ok:
		v.Allowed, v.Rule = true, "allow-host "+rule.String()
		if !rule.MayBePrivate() {
			v.Rule += ", at public addresses only"
		}
	case gateway.Rules(p.AllowHosts).Resolves(name):
		v.Rule = "the name is allowed, but not at this port"
	default:
		v.Rule = "no rule allows it: the network has no way out"
	}
	if !ok {
		v.Flag = "--allow-host " + gateway.Rule{Host: name, Port: port}.String()
		if port == 443 || port == 80 {
			v.Flag = "--allow-host " + name
		}
	}
	return v
}
