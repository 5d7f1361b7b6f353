package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// twice is a source whose deliveries wait for each other.
type twice struct {
	data    []byte
	meeting sync.WaitGroup
}

func (s *twice) Name() string { return "twice" }

func (s *twice) Latest(context.Context, Platform) (string, error) { return "0.0.1-ga", nil }

func (s *twice) Open(context.Context, Request) (*Artifact, error) {
	s.meeting.Done()
	s.meeting.Wait()
	sum := sha256.Sum256(s.data)
	return &Artifact{
		Body: io.NopCloser(bytes.NewReader(s.data)), Size: int64(len(s.data)), URL: "http://127.0.0.1/",
		Digest: Digest{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}, Validator: `"v"`,
	}, nil
}

// TestFileSystemWithoutLocks has two fetch one version at the same time: both get it whole.
func TestFileSystemWithoutLocks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "amp")
	source := &twice{data: append([]byte("#!/bin/sh\n#"), bytes.Repeat([]byte("x"), 3<<20)...)}
	source.meeting.Add(2)
	var wg sync.WaitGroup
	for range 2 {
		in, err := New(Options{Dir: dir, Sources: []Source{source}, Platform: LinuxX64})
		if err != nil {
			t.Fatal(err)
		}
		in.cache.lock = func(*os.File, bool) error { return errNoLocksHere }
		wg.Go(func() {
			b, err := in.Ensure(context.Background(), "latest")
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, source.data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	for _, pattern := range []string{".work-*", ".part-*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}
