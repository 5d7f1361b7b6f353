//go:build !linux

package sandbox

import "github.com/sesame-cli/sesame/pkg/config/fault"

// ExplainPath is for systems with the tier namespaces.
func (p *Policy) ExplainPath(string, Tier) (Verdict, error) {
	return Verdict{}, fault.New(fault.SandboxUnavailable, "paths are explained on Linux only")
}

// ExplainPaths is for systems with the tier namespaces.
func (p *Policy) ExplainPaths(Tier) ([]Verdict, error) { return nil, nil }
