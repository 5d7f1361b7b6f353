package shim

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// What is known early is mounted early. In the end everything has to be as if it had been mounted at once.
func TestMountsInParts(t *testing.T) {
	ro := func(path string) Mount { return Mount{Kind: ReadOnly, Path: path, Source: path} }
	rw := func(path string) Mount { return Mount{Kind: ReadWrite, Path: path, Source: path} }
	tmp := func(path string) Mount { return Mount{Kind: Tmp, Path: path, Mode: 0o755} }
	hide := func(path string, with Blank) Mount { return Mount{Kind: Hide, Path: path, Blank: with} }
	file := func(path, data string) Mount { return Mount{Kind: File, Path: path, Data: []byte(data)} }
	for name, test := range map[string]struct {
		early, all []Mount
		late       string
	}{
		"all known":          {[]Mount{ro("/a"), tmp("/t"), file("/t/f", "x")}, []Mount{ro("/a"), tmp("/t"), file("/t/f", "x")}, ""},
		"nothing known":      {nil, []Mount{ro("/a"), rw("/a/b")}, "ro /a, rw /a/b"},
		"more":               {[]Mount{ro("/a"), rw("/w")}, []Mount{ro("/a"), hide("/a/s", BlankFile), rw("/w"), ro("/w/.git")}, "hide /a/s, ro /w/.git"},
		"another kind":       {[]Mount{ro("/a"), rw("/w")}, []Mount{hide("/a", BlankDir), rw("/w")}, "hide /a"},
		"another content":    {[]Mount{tmp("/t"), file("/t/f", "x")}, []Mount{tmp("/t"), file("/t/f", "y")}, "file /t/f"},
		"around one":         {[]Mount{rw("/h/u/w")}, []Mount{hide("/h/u", BlankParent), rw("/h/u/w")}, "hide /h/u, rw /h/u/w"},
		"over some":          {[]Mount{ro("/a"), rw("/a/b"), rw("/a/b/c"), tmp("/t")}, []Mount{hide("/a", BlankParent), rw("/a/b"), rw("/a/b/c"), tmp("/t")}, "hide /a, rw /a/b, rw /a/b/c"},
		"beside one in name": {[]Mount{ro("/a"), ro("/a-b"), rw("/a/c")}, []Mount{hide("/a", BlankParent), ro("/a-b"), rw("/a/c")}, "hide /a, rw /a/c"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewScript(make([]byte, ScriptMemory))
			if err := s.b.mountAll(test.early); err != nil {
				t.Fatal(err)
			}
			_, before := s.mounts(0)
			if err := s.b.mountAll(test.all); err != nil {
				t.Fatal(err)
			}
			late, _ := s.mounts(before)
			if got := strings.Join(late, ", "); got != test.late {
				t.Errorf("later it mounts %s, not %s", got, test.late)
			}
			if len(s.b.mounted) != len(test.all) {
				t.Errorf("it takes for mounted %v", s.b.mounted)
			}
		})
	}
}

// mounts is what a script mounts from a step on, by kind and path, as its topics say, and how many steps there are.
func (s *Script) mounts(from int) (list []string, steps int) {
	last := ""
	for at := from; ; at++ {
		about, number := s.b.About(at)
		if about == "" && number == 0 {
			return list, at
		}
		kind, path, _ := strings.Cut(strings.TrimPrefix(about, "files: "), " ")
		if about != last && slices.Contains([]Kind{ReadOnly, ReadWrite, Hide, Tmp, File}, Kind(kind)) {
			list = append(list, kind+" "+path)
		}
		last = about
	}
}

// A directory that was made in what is covered now has to be made again.
func TestDirectoriesOfWhatIsCovered(t *testing.T) {
	s := NewScript(make([]byte, ScriptMemory))
	work := Mount{Kind: ReadWrite, Path: "/t/x/w", Source: "/t/x/w"}
	for range 2 {
		_, before := s.mounts(0)
		top := Mount{Kind: Tmp, Path: "/t", Mode: 0o755}
		if before > 0 {
			top = Mount{Kind: Hide, Path: "/t", Blank: BlankParent}
		}
		if err := s.b.mountAll([]Mount{top, work}); err != nil {
			t.Fatal(err)
		}
		_, after := s.mounts(0)
		made := 0
		for at := before; at < after; at++ {
			if about, number := s.b.About(at); about == "files: rw /t/x/w" && number == unix.SYS_MKDIRAT {
				made++
			}
		}
		if made == 0 {
			t.Errorf("from step %d on no directory is made", before)
		}
	}
}

// In a directory of the host's nothing is made to mount on: it would be there from then on.
func TestNothingIsMadeOnTheHost(t *testing.T) {
	s := NewScript(make([]byte, ScriptMemory))
	mounts := []Mount{
		{Kind: ReadOnly, Path: "/etc", Source: "/etc"},
		{Kind: File, Path: "/etc/hosts"},
		{Kind: Hide, Path: "/etc/shadow", Blank: BlankFile},
		{Kind: ReadWrite, Path: "/srv/w", Source: "/srv/w"},
		{Kind: ReadOnly, Path: "/srv/w/.vscode", Source: "/srv/w/.vscode"},
		{Kind: ReadWrite, Path: "/srv/w/a", Source: "/srv/w/a"},
		{Kind: Hide, Path: "/srv/w/a/s", Blank: BlankFile},
		{Kind: Hide, Path: "/srv/w/d", Blank: BlankParent},
	}
	if err := s.b.mountAll(mounts); err != nil {
		t.Fatal(err)
	}
	made := map[string]int{}
	_, steps := s.mounts(0)
	for at := range steps {
		if about, number := s.b.About(at); number == unix.SYS_MKDIRAT || number == unix.SYS_MKNODAT {
			made[about]++
		}
	}
	// The blank of a parent is made where all such are.
	if want := map[string]int{"files: ro /etc": 1, "files: rw /srv/w": 2, "files: hide /srv/w/d": 1}; !maps.Equal(made, want) {
		t.Errorf("made %v, want %v", made, want)
	}
}

// What has changed on the host since the plan was made is told from what the machine cannot do.
func TestWhatHasChanged(t *testing.T) {
	s := NewScript(make([]byte, ScriptMemory))
	mounts := []Mount{{Kind: ReadOnly, Path: "/etc", Source: "/etc"}, {Kind: File, Path: "/etc/hosts"}, {Kind: Tmp, Path: "/srv", Mode: 0o755}, {Kind: ReadWrite, Path: "/srv/w", Source: "/srv/w"}, {Kind: Hide, Path: "/srv/w/s", Blank: BlankFile}}
	if err := s.b.mountAll(mounts); err != nil {
		t.Fatal(err)
	}
	changed := func(what string, call uintptr, errno unix.Errno) bool {
		_, steps := s.mounts(0)
		for at := range steps {
			if about, number := s.b.About(at); about == what && number == call {
				return s.Changed(at+first.AtStep+first.NextScript, errno)
			}
		}
		t.Fatalf("there is no such step: %s", what)
		return false
	}
	for _, c := range []struct {
		what  string
		call  uintptr
		errno unix.Errno
		want  bool
	}{
		{"files: open /srv/w", unix.SYS_OPENAT2, unix.ENOENT, true},
		{"files: open /srv/w", unix.SYS_OPENAT2, unix.ELOOP, true},
		{"files: open /srv/w", unix.SYS_OPENAT2, unix.EMFILE, false},
		{"files: rw /srv/w", unix.SYS_MOUNT_SETATTR, unix.EINVAL, false},
		{"files: hide /srv/w/s", unix.SYS_OPENAT2, unix.ENOENT, true},
		{"files: hide /srv/w/s", unix.SYS_MOVE_MOUNT, unix.EINVAL, true},
		{"files: file /etc/hosts", unix.SYS_MOVE_MOUNT, unix.ENOENT, true},
		{"files: file /etc/hosts", unix.SYS_OPENAT, unix.ENOENT, false},
		{"files: tmp /srv", unix.SYS_MKDIRAT, unix.ENOENT, false},
	} {
		if got := changed(c.what, c.call, c.errno); got != c.want {
			t.Errorf("%s, %v: %v", c.what, c.errno, got)
		}
	}
}
