package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// mounted runs a test again where it may mount, and tells whether this is the second time.
func mounted(t *testing.T) bool {
	t.Helper()
	return again(t, mountedVariable, unix.CLONE_NEWUSER|unix.CLONE_NEWNS)
}

// elsewhere makes a disk of its own the workspace, which is a repository.
func (h *host) elsewhere() {
	h.t.Helper()
	disk := filepath.Join(filepath.Dir(h.policy.Home), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Mount("none", disk, "tmpfs", 0, ""); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	h.policy.Workspace = filepath.Join(disk, "project")
	if err := os.Mkdir(h.policy.Workspace, 0o755); err != nil {
		h.t.Fatal(err)
	}
	for name, text := range map[string]string{"project/README": "hello", "other": "other"} {
		if err := os.WriteFile(filepath.Join(disk, name), []byte(text), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	h.repository()
}

// What the workspace's disk has besides it is as closed as any.
func TestWorkspaceOnAnotherDisk(t *testing.T) {
	if !mounted(t) {
		return
	}
	h := newHost(t)
	h.elsewhere()
	h.sh("echo made > made; mkdir d; mv made d/made; cat README")
	if data, err := os.ReadFile(h.policy.Workspace + "/d/made"); err != nil || string(data) != "made\n" {
		t.Errorf("%q, %v", data, err)
	}
	// What is swept cannot be moved to the state's disk, and is not lost.
	h.sh("echo kept > .envrc")
	if _, err := os.Lstat(filepath.Join(h.policy.Workspace, ".envrc")); err == nil {
		t.Error(".envrc is still there")
	}
	kept, _ := filepath.Glob(filepath.Join(h.policy.Workspace, "sesame-swept-*", "from.envrc"))
	if len(kept) != 1 {
		t.Fatalf("kept: %q", kept)
	}
	if data, err := os.ReadFile(kept[0]); err != nil || string(data) != "kept\n" {
		t.Errorf("%q, %v", data, err)
	}
	attacks := []attack{
		{"beside the workspace", `echo EVIL > ../other && echo GOT; echo other > ../other`, true},
		{"new beside the workspace", `echo EVIL > ../new && echo GOT; rm -f ../new`, true},
		{"unmount the disk", `umount -l ../ && echo GOT`, false}, // outside there would be no workspace left
	}
	if testTier() == Namespaces { // where the workspace is guarded
		attacks = append(attacks, attack{"a hook", `echo EVIL > .git/hooks/x && echo GOT; rm -f .git/hooks/x`, true})
	}
	h.refuse(attacks)
}

// What cannot be written outside cannot be inside.
func TestReadOnlyWorkspace(t *testing.T) {
	if !mounted(t) {
		return
	}
	h := newHost(t)
	h.elsewhere()
	if err := unix.MountSetattr(unix.AT_FDCWD, filepath.Dir(h.policy.Workspace), 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		t.Fatal(err)
	}
	if out := h.sh(`cat README; git log --oneline | wc -l; touch x 2> /dev/null || echo refused; echo x > ~/x; cat ~/x`); out != "hello1\nrefused\nx\n" {
		t.Errorf("inside: %q", out)
	}
	h.refuse([]attack{
		{"write", `touch x && echo GOT; echo y >> README && echo GOT`, false}, // outside, too, the disk is read-only
		{"make it writable", `root sh -c 'mount -o remount,bind,rw "$(dirname "$PWD")" && echo GOT'`, false},
	})
}

// A path of almost 4 KB is a workspace like any other or none, but never one whose guard is left out because the
// names in it are too long.
func TestLongWorkspacePath(t *testing.T) {
	for _, length := range []int{2000, 3900, unix.PathMax - 20, unix.PathMax - 12, unix.PathMax - 2} {
		var started bool
		for _, tier := range []Tier{Off, Namespaces} {
			h := newHost(t)
			h.policy.Tier = tier
			path := h.policy.Workspace
			for len(path) < length {
				path += "/" + strings.Repeat("d", min(200, max(1, length-len(path)-1)))
			}
			path = path[:length]
			if strings.HasSuffix(path, "/") {
				path = path[:length-1] + "d"
			}
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			h.policy.Workspace = path
			// By relative names, which have no such limit.
			script := `mkdir -p .git/hooks .vscode; echo EVIL > .git/hooks/pre-commit; echo EVIL > .vscode/tasks.json; echo EVIL > .envrc; echo ran`
			prepare := exec.CommandContext(t.Context(), "/bin/sh", "-c", "mkdir .git .git/hooks .git/objects .vscode; echo ref > .git/HEAD")
			prepare.Dir = path
			if out, err := prepare.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var out lockedBuffer
			p, err := h.start(t.Context(), &out, "/bin/bash", "-c", script)
			if err == nil {
				_, err = p.Wait()
				started = started || tier == Namespaces
			}
			look := exec.CommandContext(t.Context(), "grep", "-rs", "EVIL", ".")
			look.Dir = path
			found, _ := look.CombinedOutput() // its status says whether there is any
			switch {
			case tier == Off && len(found) == 0:
				t.Errorf("%d: the attack fails outside, too: %v %s", length, err, out.String())
			case tier != Off && len(found) > 0:
				t.Errorf("%d: the attack succeeds: %s", length, found)
			case tier != Off && err != nil && fault.CodeOf(err) != fault.Usage:
				t.Errorf("%d: %v", length, err)
			}
		}
		if !started && length <= 3900 {
			t.Errorf("%d bytes are too many", length)
		}
	}
}
