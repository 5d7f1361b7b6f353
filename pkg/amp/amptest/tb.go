package amptest

import (
	"context"
	"os"
	"testing"
	"time"
)

// installTimeout bounds the fetching of one build: about 40 MB.
const installTimeout = 5 * time.Minute

// StartT starts a service that ends with the test.
func StartT(tb testing.TB, opts ...Option) *Service {
	tb.Helper()
	s := New(opts...)
	if err := s.Start(context.Background()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// InstallT is Install for tests: a build that cannot be had fails the test in
// CI and skips it elsewhere.
func (b Build) InstallT(tb testing.TB, native NativeSource) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	path, err := b.Install(ctx, native)
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		tb.Fatalf("no Amp build %s: %v", b.Name, err)
	default:
		tb.Skipf("NOT TESTED with the real Amp build %s, which cannot be had here: %v", b.Name, err)
	}
	return path
}
