package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// mountedVariable says that a test runs where it may mount.
const mountedVariable = "SESAME_TEST_MOUNTS"

// A home that has other mounts in it cannot be a layer of an overlay. The tier namespaces says so; the strongest
// tier that works is landlock then, where what is mounted is shown and not written.
func TestHomeWithMounts(t *testing.T) {
	if os.Getenv(tierVariable) != "" || !mounted(t) {
		return // it names the tiers itself
	}
	h := newHost(t)
	disk := filepath.Join(h.policy.Home, "my disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", disk, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }()
	h.write("my disk/notes", "mine")
	_, err := h.start(t.Context(), nil, "true")
	if fault.CodeOf(err) != fault.SandboxUnavailable || !strings.Contains(err.Error(), disk) || !strings.Contains(strings.Join(fault.HintsOf(err), " "), "--sandbox landlock") {
		t.Errorf("%v, hints %q", err, fault.HintsOf(err))
	}
	h.policy.Tier = Auto
	var notices []string
	h.policy.Notice = func(s string) { notices = append(notices, s) }
	if out := h.sh("cat ~/'my disk'/notes; echo evil 2> /dev/null > ~/'my disk'/notes; echo evil > '" + disk + "/new'; touch ~/mine"); out == "" || !strings.HasPrefix(out, "mine") {
		t.Errorf("%q", out)
	}
	if got := h.read("my disk/notes"); got != "mine" {
		t.Errorf("the mount was written: %q", got)
	}
	for _, name := range []string{"my disk/new", "mine"} {
		if _, err := os.Lstat(filepath.Join(h.policy.Home, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	if len(notices) != 1 || !strings.Contains(notices[0], "weaker than namespaces") {
		t.Errorf("notices %q", notices)
	}
}
