//go:build unix

package sandbox

import (
	"bytes"
	"path/filepath"
	"testing"
)

// Without a sandbox the command finds the policy's files as with one, and nothing of them is left.
func TestOffHasFiles(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out bytes.Buffer
	p := &Policy{Tier: Off, Workspace: t.TempDir(), Files: []File{{Path: PrivateDir + "/a/settings.json", Data: []byte("the settings\n")}}}
	process, err := Start(t.Context(), p, &Command{
		Args:   []string{"/bin/sh", "-c", "cat " + PrivateDir + `/a/settings.json "$NAMED"; ls -ld "$(dirname "$NAMED")"`},
		Env:    []string{"PATH=/usr/bin:/bin", "NAMED=" + PrivateDir + "/a/settings.json"},
		Stdout: &out, Stderr: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := process.Wait(); err != nil || status.Code != 0 || !bytes.HasPrefix(out.Bytes(), []byte("the settings\nthe settings\ndrwx------")) {
		t.Errorf("ended with %+v, %v: %s", status, err, &out)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if _, err := Start(t.Context(), p, &Command{Args: []string{"/nowhere/at/all"}}); err == nil {
		t.Error("a command that is not there was started")
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left %q by what did not start", left)
	}
}
