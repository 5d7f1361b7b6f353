package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// Each build reads the MCP servers that it is given, in each tier, also from a file that the sandbox does not show,
// and starts them inside.
func TestE2EServers(t *testing.T) {
	for _, build := range amptest.Builds() {
		t.Run(build.Name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, build)
			for _, tier := range []sandbox.Tier{sandbox.Namespaces, sandbox.Landlock, sandbox.Off} {
				t.Run(string(tier), func(t *testing.T) {
					p := m.project(t)
					p.tier = tier
					p.env["SESAME_SANDBOX_TIER"] = string(tier)
					hidden := filepath.Join(t.TempDir(), "servers.json") // below /tmp, which the sandbox has of its own
					for i, give := range []func(string) string{
						func(servers string) string { return servers },
						func(servers string) string { put(t, hidden, servers); return hidden },
					} {
						started := p.path(fmt.Sprintf("started-%d", i))
						servers := fmt.Sprintf(`{"probe":{"command":"/bin/sh","args":["-c","echo \"$0\" > '%s'","server"]}}`, started)
						c := p.sesame("run", "--mcp-config", give(servers), "RUN:for i in 1 2 3 4 5 6 7 8 9; do test -s '"+started+"' && break; sleep 1; done").want(0)
						if _, err := os.Stat(started); err != nil {
							t.Errorf("way %d: the server was not started: %s%s", i, c.out, c.err)
						}
					}
				})
			}
		})
	}
}
