package cmd

import (
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// TestE2ETiers has each generation of Amp go through a short session in each way that it can be held on Linux:
// text, a tool, what follows on it, and deep mode with a tool and its own second turn.
func TestE2ETiers(t *testing.T) {
	for _, build := range amptest.Builds() {
		t.Run(build.Name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, build)
			for _, tier := range []sandbox.Tier{sandbox.Namespaces, sandbox.Landlock} {
				for _, profile := range []sandbox.Profile{sandbox.Standard, sandbox.Strict} {
					t.Run(string(tier)+" "+string(profile), func(t *testing.T) { // in turn: each keeps a processor busy
						p := m.project(t)
						p.tier = tier
						p.env["SESAME_SANDBOX_TIER"], p.env["SESAME_SANDBOX_PROFILE"] = string(tier), string(profile)
						e2eSession(p)
					})
				}
			}
		})
	}
}

func e2eSession(p *project) {
	first := p.ok("run", "-o", "json", "hello").report()
	if first.Result != p.echo("smart", "hello", "1") || first.Sandbox.Tier != p.tier || len(first.Sandbox.Denials) != 0 {
		p.t.Errorf("text: %+v", first)
	}
	tool := p.ok("continue", "-o", "json", "RUN:echo made by amp > made-here; echo kept > ~/kept; cat ~/.ssh/id; cat '"+p.home+"/.ssh/id'; echo did it").report()
	if tool.ThreadID != first.ThreadID || !strings.Contains(tool.Result, "did it") || strings.Contains(tool.Result, secret) || p.read(p.path("made-here")) != "made by amp\n" {
		p.t.Errorf("tool: %+v", tool)
	}
	after := p.ok("continue", "-o", "json", "RUN:cat ~/kept").report()
	if after.ThreadID != first.ThreadID || !strings.Contains(after.Result, "kept") {
		p.t.Errorf("after the tool: %+v", after)
	}
	e2eDeep(p)
}
