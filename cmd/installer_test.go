//go:build unix

package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Without a registry in its configuration npm itself is asked, as a program: the key is
// none of its business.
func TestInstallerKeepsKeyFromNPM(t *testing.T) {
	w := newWorld(t)
	bin := t.TempDir()
	seen := filepath.Join(bin, "seen")
	npm := w.write(t, filepath.Join(bin, "npm"), "#!/bin/sh\n/usr/bin/env > "+seen+"\necho undefined\n")
	if err := os.Chmod(npm, 0o700); err != nil {
		t.Fatal(err)
	}
	w.env["PATH"], w.env["AMP_API_KEY"], w.env["SESAME_AMP_SOURCES"] = bin, goodKey, "npm"
	_, errOut := w.want(t, 5, "amp", "install")
	wantIn(t, errOut, "no npm registry configured")
	data, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); strings.Contains(text, goodKey) || !strings.Contains(text, "HOME="+w.home) {
		t.Errorf("npm's environment: %s", text)
	}
}
