package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

func TestHide(t *testing.T) {
	for name, test := range map[string]struct {
		layers Layers
		made   string // by the host
		want   string // that is hidden
		fails  string // with
	}{
		"what is not there":   {layers: Layers{Later: []string{".aws", ".config/gh"}}, want: ".aws,.config/gh"},
		"in an empty home":    {layers: Layers{Later: []string{".aws"}, Bare: true}},
		"what was made":       {layers: Layers{Later: []string{".aws", ".config/gh"}}, made: ".config/gh", want: ".aws,.config/gh", fails: "/.config/gh was made when it had just begun"},
		"without a directory": {layers: Layers{Later: []string{".kube/config"}}, fails: "/.kube/config: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			host, tree := t.TempDir(), t.TempDir()
			mask := filepath.Join(tree, first.MaskDir)
			for _, dir := range []string{filepath.Join(host, ".config"), filepath.Join(mask, ".config"), filepath.Join(host, test.made)} {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			// A file will do: to make devices is not possible everywhere.
			if err := os.WriteFile(filepath.Join(tree, first.Whiteout), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			test.layers.Host = host
			err := test.layers.Hide(opened(t, mask), opened(t, tree))
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), host+test.fails)) {
				t.Errorf("it failed with %v", err)
			}
			var hidden []string
			for _, rel := range test.layers.Later {
				if _, err := os.Lstat(filepath.Join(mask, rel)); err == nil {
					hidden = append(hidden, rel)
				}
			}
			if got := strings.Join(hidden, ","); got != test.want {
				t.Errorf("hidden: %s", got)
			}
		})
	}
}

func opened(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
