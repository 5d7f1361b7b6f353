package sandbox

import (
	"path/filepath"
	"strings"
	"testing"
)

// What is explained must be what the sandbox does.
func TestExplainPathIsTrue(t *testing.T) {
	for _, profile := range []Profile{Standard, Strict} {
		h := newHost(t)
		h.policy.Profile = profile
		h.repository()
		home := h.policy.Home
		h.write(".ssh/id", "SECRET")
		h.write("notes", "n")
		h.write("denied", "d")
		h.write(".nvm/node", "n")
		h.write("shown/.ssh", "s")
		h.policy.DenyRead = []string{home + "/denied"}
		h.policy.AllowRead = []string{home + "/shown"}
		for _, path := range []string{
			home + "/.ssh/id", home + "/.cargo/credentials.toml", home + "/notes", home + "/denied", home + "/.nvm/node", home + "/shown/.ssh", h.policy.HomeState,
			h.policy.Workspace + "/README", h.policy.Workspace + "/.git/config", h.policy.Workspace + "/.git/HEAD",
			"/etc/passwd", "/etc/shadow", "/usr/bin/env", "/root/.profile", "/proc/version", "/dev/null", "/etc/hosts", "/etc/resolv.conf",
		} {
			v, err := h.policy.ExplainPath(path, h.policy.Tier)
			if err != nil {
				t.Fatal(err)
			}
			if v.Access == AccessOwn {
				continue // it is another file
			}
			// Without moving anything: read is what can be opened, and written what can be opened for that.
			got := h.sh("p='" + path + "'; { if [ -d \"$p\" ]; then [ -n \"$(ls -A \"$p\")\" ]; else : < \"$p\"; fi; } 2>/dev/null && echo readable; [ ! -d \"$p\" ] && [ -e \"$p\" ] && { : >> \"$p\"; } 2>/dev/null && echo writable; true")
			readable, writable := strings.Contains(got, "readable"), strings.Contains(got, "writable")
			wantRead := v.Access == AccessWrite || v.Access == AccessRead || v.Access == AccessCopy
			wantWrite := v.Access == AccessWrite || v.Access == AccessCopy
			if readable != wantRead || writable && !wantWrite || !writable && wantWrite && filepath.Base(path) != "project" {
				t.Errorf("%s, %s: %+v, but readable %v, writable %v", profile, path, v, readable, writable)
			}
		}
	}
}

// The list of all paths says of each what it would say of it alone, and leaves none out that differs.
func TestExplainPathsAgree(t *testing.T) {
	for _, profile := range []Profile{Standard, Strict} {
		h := newHost(t)
		h.policy.Profile = profile
		h.repository()
		h.write(".ssh/id", "SECRET")
		h.write("denied", "d")
		h.policy.DenyRead = []string{h.policy.Home + "/denied"}
		list, err := h.policy.ExplainPaths(Namespaces)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]Verdict{}
		for _, v := range list {
			got[v.Target] = v
			if alone, err := h.policy.ExplainPath(v.Target, Namespaces); err != nil || resolve(v.Target) == v.Target && alone != v {
				t.Errorf("%s: in the list %+v, alone %+v, %v", profile, v, alone, err)
			}
		}
		for path, want := range map[string]Access{
			h.policy.Workspace: AccessWrite, h.policy.Workspace + "/.git/config": AccessRead, h.policy.Workspace + "/.envrc": AccessAbsent,
			h.policy.Home + "/denied": AccessAbsent, h.policy.Home + "/.ssh": AccessAbsent, "/usr": AccessRead, "/dev": AccessOwn,
		} {
			if got[path].Access != want {
				t.Errorf("%s, %s: %+v, want %s", profile, path, got[path], want)
			}
		}
	}
}

func TestExplainHost(t *testing.T) {
	p := &Policy{}
	h := &host{t: t}
	h.allow("example.com", "*.example.org", "db.internal:5432", "10.0.0.7:80")
	p.AllowHosts = h.policy.AllowHosts
	for _, c := range []struct {
		host    string
		port    int
		allowed bool
		flag    string
	}{
		{"example.com", 443, true, ""},
		{"EXAMPLE.com.", 80, true, ""},
		{"example.com", 22, false, "--allow-host example.com:22"},
		{"a.example.org", 443, true, ""},
		{"example.org", 443, false, "--allow-host example.org"},
		{"evilexample.com", 443, false, "--allow-host evilexample.com"},
		{"db.internal", 5432, true, ""},
		{"10.0.0.7", 80, true, ""},
		{"10.0.0.7", 81, false, "--allow-host 10.0.0.7:81"},
		{"a\x00b", 443, false, ""},
	} {
		if v := p.ExplainHost(c.host, c.port); v.Allowed != c.allowed || v.Flag != c.flag || v.Rule == "" {
			t.Errorf("%s:%d: %+v", c.host, c.port, v)
		}
	}
}

// The strict profile's promises, each broken by the standard one.
func TestStrictProfile(t *testing.T) {
	for script, name := range map[string]string{
		"cat ~/notes ../../notes && echo GOT":                                                "the home",
		"cp /bin/true ~/t && ~/t && echo GOT":                                                "a program in the home",
		"cp /bin/true ${TMPDIR:-/tmp}/t && ${TMPDIR:-/tmp}/t && echo GOT":                    "a program in /tmp",
		"cp /bin/true /dev/shm/t && /dev/shm/t && echo GOT; rm -f /dev/shm/t":                "a program in /dev/shm",
		"/lib64/ld-linux-x86-64.so.2 ${TMPDIR:-/tmp}/u && echo GOT":                          "the loader",
		"/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX)' && echo GOT":     "a unix socket",
		"d=/run/sesame/lib; [ -d $d ] || d=~; cp /bin/true \"$d/t\" && \"$d/t\" && echo GOT": "a program where libraries are unpacked",
		"head -c1 /var/lib/dpkg/status && echo GOT":                                          "what others have in /var",
		"cd ~ && cp /bin/true t && mv t moved && ./moved && echo GOT":                        "a program in the home, moved",
		"/usr/bin/python3 -c 'import os; f=os.memfd_create(\"x\"); os.write(f, open(\"/bin/true\",\"rb\").read()); os.execv(\"/proc/self/fd/%d\" % f, [\"GOT\"])' && echo GOT": "a program in memory",
	} {
		if !holds(t, weakAttacks[name]) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for _, profile := range []Profile{Standard, Strict} {
				h := newHost(t)
				h.write("notes", "n")
				h.policy.Profile = profile
				r := h.run("/bin/bash", "-c", "cp /bin/true ${TMPDIR:-/tmp}/u; "+script)
				if got := strings.Contains(r.out, "GOT"); got != (profile == Standard) {
					t.Errorf("%s: got %v: %s", profile, got, r.out)
				}
			}
		})
	}
	h := newHost(t)
	h.policy.Profile = Strict
	h.sh("cp /bin/true ./t && ./t")                                  // the workspace is for programs
	h.sh("/usr/bin/python3 -c 'import socket; socket.socketpair()'") // pairs stay in the family
	h.sh("echo kept > ~/state; cat /etc/passwd > /dev/null; ls ~ /usr")
	if out := h.sh("cat ~/state"); out != "kept\n" {
		t.Errorf("the home does not last: %q", out)
	}
	if out := h.sh("find ~ -type c"); out != "" {
		t.Errorf("names of what is hidden are in a home of which nothing is shown:\n%s", out)
	}
}
