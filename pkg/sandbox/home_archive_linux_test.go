package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onOverlay moves the host's home to an overlay, as a container has it.
func (h *host) onOverlay() {
	h.t.Helper()
	base := filepath.Dir(h.policy.Home)
	at := filepath.Join(base, "merged")
	for _, dir := range []string{"changes", "for work", "merged"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	options := "userxattr,lowerdir=" + h.policy.Home + ",upperdir=" + filepath.Join(base, "changes") + ",workdir=" + filepath.Join(base, "for work")
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	move := func(path string) string { return at + strings.TrimPrefix(path, h.policy.Home) }
	h.policy.Workspace, h.policy.HomeState, h.policy.Private = move(h.policy.Workspace), move(h.policy.HomeState), []string{move(h.policy.Private[0])}
	h.policy.Home = at
	h.env = Environment(os.Environ(), at, nil)
}

// A home on an overlay can have no upper layer. What turns change in it lasts all the same.
func TestHomeOnAnOverlayLasts(t *testing.T) {
	if !mounted(t) {
		return
	}
	h := newHost(t)
	h.policy.Tier = Namespaces
	for _, name := range []string{"host", "removed", "dir/of the host", "changed"} {
		h.write(name, "the host's")
	}
	h.write(".ssh/id_ed25519", "SECRET")
	h.onOverlay()
	var told []string
	h.policy.Notice = func(s string) { told = append(told, s) }
	before := h.state(h.policy.Home + "/dir")
	h.sh(`cd ~
echo new > new; chmod 640 new; touch -d 2001-02-03 new
ln new linked; ln -s new symbolic
rm removed; rm -r dir; mkdir dir; echo mine > dir/mine
echo more >> changed
mkdir -p .cache/tool/deep; echo x > .cache/tool/deep/x; chmod 500 .cache/tool
echo locked > locked; chmod 0 locked; mkdir closed; echo in > closed/in; chmod 0 closed
mkfifo pipe`)
	for turn := range 2 {
		out := h.sh(`cd ~
cat new linked symbolic changed; stat -c '%a %Y %h' new; ls dir; ls removed 2>&1; cat .cache/tool/deep/x
stat -c %a .cache/tool locked closed; chmod 700 locked closed; cat locked closed/in; chmod 0 locked closed; cat host; ls -a .ssh 2>&1 || true`)
		want := "new\nnew\nnew\nthe host'smore\n640 981158400 2\nmine\nls: cannot access 'removed': No such file or directory\nx\n" +
			"500\n0\n0\nlocked\nin\nthe host'sls: cannot access '.ssh': No such file or directory\n"
		if out != want {
			t.Errorf("turn %d: %q, want %q", turn, out, want)
		}
	}
	if after := h.state(h.policy.Home + "/dir"); after != before {
		t.Errorf("the host's home was\n%s, is\n%s", before, after)
	}
	if len(told) > 0 {
		t.Errorf("told %q", told)
	}

	// Holes stay holes, and the home itself may be closed.
	h.sh("truncate -s 100M ~/sparse; chmod 300 ~")
	if out := h.sh("du -k ~/sparse | cut -f 1; stat -c %s ~/sparse; rm ~/sparse"); out != "0\n104857600\n" {
		t.Errorf("%q", out)
	}
	// What stands in the way of a mount goes.
	h.sh("ln -s /usr/share ~/later; echo x > ~/file")
	h.write("later/of the host", "shown")
	h.write("file/of the host", "shown")
	h.policy.AllowRead = []string{h.policy.Home + "/later", h.policy.Home + "/file"}
	if out := h.sh("cd; cat later/* file/*"); out != "shownshown" {
		t.Errorf("%q", out)
	}
	h.policy.AllowRead = nil

	// What is not as it was put away is not believed, and not written over.
	archive := filepath.Join(h.policy.HomeState, archiveFile)
	whole, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	h.sh("true")
	if data, err := os.ReadFile(archive); err != nil || len(data) != len(whole)/2 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "cannot all be brought back") {
		t.Errorf("told %q", told)
	}
	if err := os.WriteFile(archive, whole, 0o600); err != nil {
		t.Fatal(err)
	}

	// Nor is one that is too large put away.
	told = nil
	h.sh("truncate -s 5G ~/large")
	if len(told) != 1 || !strings.Contains(told[0], "not kept for the next turn: they are more than 4 GiB") {
		t.Errorf("told %q", told)
	}
	if out := h.sh("cd; ls large 2>&1; cat new"); out != "ls: cannot access 'large': No such file or directory\nnew\n" {
		t.Errorf("%q", out)
	}
}

// A part of an archive is not taken for all of it, wherever it was cut off.
func TestArchiveIsWhole(t *testing.T) {
	state := t.TempDir()
	open := func() *memoryHome {
		upper, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { upper.Close() })
		return &memoryHome{upper: upper, archive: filepath.Join(state, archiveFile)}
	}
	m := open()
	for _, name := range []string{"one", "dir", "two"} {
		if name == "dir" {
			if err := m.upper.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if err := m.upper.WriteFile(name, []byte(strings.Repeat(name, 400)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.keep(); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(m.archive)
	if err != nil {
		t.Fatal(err)
	}
	const trailer = 1024 // says nothing
	for size := range len(all) + 1 {
		if err := os.WriteFile(m.archive, all[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if size%64 > 1 && size < len(all)-trailer-1 {
			continue
		}
		if err := open().fill(); (err == nil) != (size >= len(all)-trailer) {
			t.Errorf("%d bytes of %d: %v", size, len(all), err)
		}
	}
}
