//go:build !linux

package sandbox

// head is a sandbox that was begun: nothing here.
type head interface {
	abandon()
	close()
}

func begin() head { return nil }

func forgo() {}
