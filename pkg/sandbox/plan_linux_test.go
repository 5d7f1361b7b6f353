package sandbox

import "testing"

// BenchmarkPlan is what a sandbox's start spends on looking at the host.
func BenchmarkPlan(b *testing.B) {
	home := b.TempDir()
	p := &Policy{Workspace: home, Home: home, HomeState: home + "/state"}
	c := &Command{Args: []string{"true"}}
	for b.Loop() {
		tree, err := drawTree(p)
		if err != nil {
			b.Fatal(err)
		}
		tree.plan(c)
	}
}
