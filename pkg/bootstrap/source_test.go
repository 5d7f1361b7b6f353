package bootstrap_test

import (
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// fixed is a source that always sends the same.
type fixed struct {
	artifact bootstrap.Artifact
	data     []byte
}

func (f *fixed) Name() string { return "fixed" }

func (f *fixed) Latest(context.Context, bootstrap.Platform) (string, error) { return newVersion, nil }

func (f *fixed) Open(context.Context, bootstrap.Request) (*bootstrap.Artifact, error) {
	a := f.artifact
	a.Body = io.NopCloser(bytes.NewReader(f.data))
	return &a, nil
}

// TestSourceOfAnotherKind has the Installer hold a source to what it promised.
func TestSourceOfAnotherKind(t *testing.T) {
	data := program(newVersion)
	sum := bootstrap.Digest{Algorithm: "sha256", Hex: sha256Hex(data)}
	size := int64(len(data))
	tests := map[string]struct {
		artifact bootstrap.Artifact
		words    string
	}{
		"as promised":            {artifact: bootstrap.Artifact{Size: size, Digest: sum}},
		"size unknown":           {artifact: bootstrap.Artifact{Size: -1, Digest: sum}},
		"digest of what is sent": {artifact: bootstrap.Artifact{Size: size, Digest: sum, Covers: bootstrap.CoversTransport}},
		"longer than promised":   {artifact: bootstrap.Artifact{Size: size - 1, Digest: sum}, words: "more came than was promised"},
		"shorter":                {artifact: bootstrap.Artifact{Size: size + 1, Digest: sum}, words: "ended early"},
		"unknown algorithm":      {artifact: bootstrap.Artifact{Size: size, Digest: bootstrap.Digest{Algorithm: "md5", Hex: "00"}}, words: `"md5"`},
		"unknown packing":        {artifact: bootstrap.Artifact{Size: size, Digest: sum, Packing: 9}, words: "packing 9"},
		"no digest":              {artifact: bootstrap.Artifact{Size: size}, words: "no checksum"},
		"digest of other bytes": {
			artifact: bootstrap.Artifact{Size: size, Digest: bootstrap.Digest{Algorithm: "sha384", Hex: sum.Hex}}, words: "wrong sha384 of the file",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cache := filepath.Join(t.TempDir(), "amp")
			in := installer(t, bootstrap.Options{Dir: cache, Sources: []bootstrap.Source{&fixed{artifact: test.artifact, data: data}}})
			b, err := in.Ensure(t.Context(), "latest")
			if test.words != "" {
				wantFault(t, err, fault.BootstrapFailed, "fixed: ", test.words)
				wantEmpty(t, cache)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, b.Path, data)
		})
	}
}

func TestPinnedAndCachedNeedsNoNetwork(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	data := s.publish(t, newVersion, bootstrap.LinuxX64)
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, s.URL), SHA256: sha256Hex(data)})
	if _, err := in.Ensure(t.Context(), "latest"); err != nil {
		t.Fatal(err)
	}
	before := s.total()
	if _, err := in.Ensure(t.Context(), "latest"); err != nil || s.total() != before {
		t.Errorf("asked %d times, %v", s.total()-before, err)
	}
}
