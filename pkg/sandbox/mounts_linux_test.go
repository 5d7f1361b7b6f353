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

// What is hidden, and homes, are so by all the names that mounts and links give them.
func TestSecretsMountedTwiceAreAbsent(t *testing.T) {
	if !mounted(t) {
		return
	}
	mount := func(from, to, kind string, flags uintptr) {
		t.Helper()
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(from, to, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
	}
	h := newHost(t)
	h.write(".ssh/id_ed25519", "SECRET")
	h.write(".netrc", "SECRET")
	h.write("notes", "SECRET") // the home, by whatever name, is its copy
	h.write(".config/tool/settings", "public")
	mount("none", "/mnt", "tmpfs", 0)
	mount("none", "/srv", "tmpfs", 0)
	mount("none", "/home", "tmpfs", 0)
	for path, text := range map[string]string{"/srv/bob/.ssh/id_ed25519": "SECRET", "/srv/www/index": "public", "/home/own": "SECRET"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Another user's home that is a link.
	users := filepath.Join(filepath.Dir(h.policy.Home), "passwd")
	if err := os.WriteFile(users, []byte("root:x:0:0::/root:/bin/sh\nbob:x:1234:1234::/home/bob:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(users, "/etc/passwd", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/etc/passwd", unix.MNT_DETACH) })
	if err := os.Symlink("/srv/bob", "/home/bob"); err != nil {
		t.Fatal(err)
	}
	mount(filepath.Dir(h.policy.Home), "/mnt/homes", "", unix.MS_BIND)
	mount("/home", "/mnt/other homes", "", unix.MS_BIND)
	mount(filepath.Join(h.policy.Home, ".ssh"), "/mnt/part", "", unix.MS_BIND)
	mount(filepath.Join(h.policy.Home, ".config"), "/mnt/settings", "", unix.MS_BIND)
	mount(h.policy.Home, "/media", "", unix.MS_BIND)
	h.refuse([]attack{
		{"binds", `grep -rs SECRET /mnt /media | grep . && echo GOT`, true},
		{"links", `grep -rs SECRET /srv | grep . && echo GOT`, true},
	})
	if out := h.sh("cat /srv/www/index /mnt/settings/tool/settings"); out != "publicpublic" {
		t.Errorf("what is no secret: %q", out)
	}
	// Whoever works by the other name still does.
	h.policy.Workspace = "/mnt/homes/home/src/project"
	if out := h.sh("echo made > made; cat README; grep -rs SECRET /mnt || true"); out != "hello" {
		t.Errorf("in the workspace by another name: %q", out)
	}
}
