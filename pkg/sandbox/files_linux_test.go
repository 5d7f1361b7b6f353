package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

func TestWorkspaceIsWritable(t *testing.T) {
	h := newHost(t)
	h.sh(`echo made > made-here; mkdir d; mv made-here d/`)
	if got := h.read("src/project/d/made-here"); got != "made\n" {
		t.Errorf("the file has %q", got)
	}
}

func TestHomeIsCopyOnWriteAndLasts(t *testing.T) {
	h := newHost(t)
	h.write(".config/tool/settings", "host's")
	h.write(".profile", "host's")
	h.sh(`echo sandbox > ~/.config/tool/settings; rm ~/.profile; mkdir -p ~/.cache/go; echo warm > ~/.cache/go/x`)
	if got := h.read(".config/tool/settings"); got != "host's" {
		t.Errorf("the host's file became %q", got)
	}
	if got := h.read(".profile"); got != "host's" {
		t.Errorf("the host's file became %q", got)
	}
	if _, err := os.Stat(filepath.Join(h.policy.Home, ".cache")); err == nil {
		t.Error("the host's home got a new directory")
	}
	out := h.sh(`cat ~/.config/tool/settings ~/.cache/go/x; ls ~/.profile 2>&1 || true`)
	if !strings.HasPrefix(out, "sandbox\nwarm\n") || !strings.Contains(out, "No such file") {
		t.Errorf("the next turn sees %q", out)
	}
}

// What a turn closes in the home keeps no later one from starting.
func TestClosedHomeIsOpened(t *testing.T) {
	for name, script := range map[string]string{
		"home":        `chmod 000 ~`,
		"not entered": `chmod 400 ~`,
		"not listed":  `chmod 300 ~`,
		// In landlock that is a link to the host's, which is not to be changed.
		"on the way":        `chmod 000 ~/src || true`,
		"where copies go":   `mkdir -p ~/.config/tool ~/.cargo/bin; chmod 000 ~/.config/tool ~/.config ~/.cargo`,
		"something mounted": `mkdir -p ~/later/closed/in; chmod 000 ~/later/closed`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write(".config/tool/settings", "host's")
			h.write(".cargo/bin/tool", "host's")
			h.sh(`echo kept > ~/kept; ` + script)
			h.write("later", "shown")
			h.policy.AllowRead = []string{filepath.Join(h.policy.Home, "later")}
			for range 2 {
				if out := h.sh(`chmod 700 ~; cat ~/kept`); out != "kept\n" {
					t.Errorf("the next turn sees %q", out)
				}
			}
		})
	}
}

func TestHomeInUseIsSeenButNotShared(t *testing.T) {
	h := newHost(t)
	h.sh(`echo kept > ~/kept`)
	var notices []string
	h.policy.Notice = func(s string) { notices = append(notices, s) }
	p, err := h.start(t.Context(), nil, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	out := h.sh(`cat ~/kept; echo lost > ~/lost; cat ~/lost`)
	if testTier() == Landlock {
		// There it is a directory that both use, as programs of one user do.
		notices = notices[1:]
	}
	if out != "kept\nlost\n" || len(notices) != 1 {
		t.Errorf("the second sandbox says %q, notices %q", out, notices)
	}
	if err := p.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st.Code != 137 {
		t.Errorf("killed: %+v, %v", st, err)
	}
	if out := h.sh(`cat ~/kept; ls ~`); strings.Contains(out, "lost") != (testTier() == Landlock) {
		t.Errorf("the home kept what a second sandbox wrote: %s", out)
	}
}

// Who has no home may have no place for notes either, and is told nothing of that.
func TestNoHomeAtAll(t *testing.T) {
	for name, state := range map[string]func(base string) string{
		"notes":    func(base string) string { return filepath.Join(base, "new", "state") },
		"no notes": func(base string) string { return filepath.Join(base, "file", "state") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.policy.GuardState = state(filepath.Dir(h.write("file", "")))
			h.policy.HomeState = filepath.Join(h.policy.GuardState, "home")
			h.policy.Home, h.policy.Private = "", nil
			var notices []string
			h.policy.Notice = func(s string) { notices = append(notices, s) }
			h.sh("git init -q 2>/dev/null || exit 1; echo x > x")
			if testTier() == Landlock {
				notices = notices[1:]
			}
			if len(notices) > 0 {
				t.Errorf("told: %q", notices)
			}
			if _, err := os.Stat(filepath.Join(h.policy.GuardState, guardLocks)); (err == nil) != (name == "notes") {
				t.Errorf("the lock of notes: %v", err)
			}
		})
	}
}

func TestHomeWithoutStateIsForgotten(t *testing.T) {
	h := newHost(t)
	h.policy.HomeState = ""
	h.sh(`echo x > ~/x; mkdir ~/src/d; rmdir ~/src/d; mv ~/x ~/y`)
	if out := h.sh(`ls ~`); out != "src\n" {
		t.Errorf("home has %q", out)
	}
}

func TestNoHome(t *testing.T) {
	h := newHost(t)
	h.policy.Home, h.policy.HomeState = "", ""
	h.env = Environment(os.Environ(), h.policy.HomeInside(), nil)
	if out := h.sh(`touch ~/x; cd; pwd`); out != homeWithin+"\n" && (testTier() == Namespaces || !strings.HasSuffix(out, "/home\n")) {
		t.Errorf("home is %q", out)
	}
}

func TestSecretsAreAbsent(t *testing.T) {
	h := newHost(t)
	secrets := []string{
		".ssh/id_ed25519", ".gnupg/key", ".aws/credentials", ".azure/token", ".config/gcloud/db", ".kube/config", ".docker/config.json",
		".netrc", ".npmrc", ".pypirc", ".git-credentials", ".config/gh/hosts.yml", ".config/sesame/credentials.json",
		".local/share/amp/secrets.json", ".local/share/keyrings/login", ".password-store/x", ".mozilla/x", ".config/google-chrome-beta/x", ".claude.json", ".claude/x", ".codex/auth.json",
		".gemini/x", ".cargo/credentials.toml", ".gem/credentials", ".terraform.d/credentials.tfrc.json", ".vault-token", ".bash_history",
	}
	for _, s := range secrets {
		h.write(s, "SECRET")
	}
	h.write(".sshfoo", "public")
	h.write(".config/ghostty/config", "public")
	var attacks []attack
	for _, s := range secrets {
		attacks = append(attacks, attack{s, `grep -q SECRET ~/` + s + ` && echo GOT`, true})
	}
	// Reached some other way.
	link := filepath.Join(h.policy.Workspace, "link")
	if err := os.Symlink(filepath.Join(h.policy.Home, ".ssh"), link); err != nil {
		t.Fatal(err)
	}
	attacks = append(
		attacks,
		attack{"symlink in the workspace", `grep SECRET link/id_ed25519 && echo GOT`, true},
		attack{"find", `grep -rs SECRET ~/ | grep . && echo GOT`, true},
		attack{"other processes' roots", `cat /proc/*/root"$HOME"/.ssh/id_ed25519 /proc/*/cwd/../../.ssh/id_ed25519 2>/dev/null | grep SECRET && echo GOT`, true},
		attack{"sesame's state", `ls -A ~/.local/state/sesame && echo GOT`, true},
		// Outside there is nothing to remove but the secret itself.
		attack{"removing the whiteout", `rm -rf ~/.ssh; mkdir ~/.ssh; rmdir ~/.ssh; grep SECRET ~/.ssh/id_ed25519 && echo GOT; mv ~/.ssh ~/x; grep -rs SECRET ~/x && echo GOT`, false},
		attack{"a hard link", `ln ~/.ssh/id_ed25519 k && grep SECRET k && echo GOT; rm -f k`, true},
	)
	h.refuse(attacks)
	if out := h.sh(`cat ~/.sshfoo ~/.config/ghostty/config`); out != "publicpublic" {
		t.Errorf("files that are no secrets: %q", out)
	}
	if out := h.sh(`ls -A ~ ~/.config`); strings.Contains(out, "gcloud") || strings.Contains(out, ".ssh\n") {
		t.Errorf("the names of secrets are listed:\n%s", out)
	}
}

func TestSecretsBehindLinksAreAbsent(t *testing.T) {
	h := newHost(t)
	h.write("dotfiles/ssh/id", "SECRET")
	h.write("dotfiles/config/gh/hosts.yml", "SECRET")
	for link, to := range map[string]string{".ssh": "dotfiles/ssh", ".config": "dotfiles/config"} {
		if err := os.Symlink(to, filepath.Join(h.policy.Home, link)); err != nil {
			t.Fatal(err)
		}
	}
	h.refuse([]attack{{"search", `grep -rs SECRET ~/ | grep . && echo GOT`, true}})
}

func TestSecretInTheWorkspaceIsHidden(t *testing.T) {
	h := newHost(t)
	secret := h.write("src/project/.env", "SECRET")
	h.policy.DenyRead = []string{secret, filepath.Dir(secret) + "/not-there"}
	h.refuse([]attack{{"denied file", `grep SECRET .env && echo GOT`, true}})
}

func TestAllowReadAndWrite(t *testing.T) {
	h := newHost(t)
	npmrc := h.write(".npmrc", "registry")
	ghHosts := h.write(".config/gh/hosts.yml", "token")
	h.write(".config/gh/other", "SECRET")
	out := h.write("out/x", "x")
	h.policy.AllowRead = []string{npmrc, ghHosts}
	h.policy.AllowWrite = []string{filepath.Dir(out)}
	if got := h.sh(`cat ~/.npmrc ~/.config/gh/hosts.yml; echo new > ~/out/y; ls ~/.config/gh; echo z > ~/.npmrc || true`); !strings.HasPrefix(got, "registrytokenhosts.yml\n") {
		t.Errorf("allowed files: %q", got)
	}
	if got := h.read("out/y"); got != "new\n" {
		t.Errorf("allowed directory: %q", got)
	}
	if got := h.read(".npmrc"); got != "registry" {
		t.Errorf("allowed to read became allowed to write: %q", got)
	}
	h.policy.DenyRead = []string{filepath.Dir(ghHosts), filepath.Dir(out)}
	h.refuse([]attack{{"deny beats allow", `grep token ~/.config/gh/hosts.yml && echo GOT; cat ~/out/x && echo GOT`, true}})
}

func TestSystemIsReadOnly(t *testing.T) {
	h := newHost(t)
	outside := filepath.Dir(h.policy.Home)
	root := os.Getuid() == 0 // to others the system says no by itself
	own, err := os.MkdirTemp("/tmp", "sesame-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, own) })
	hostSocket(t, filepath.Join(own, "socket"))
	h.refuse([]attack{
		{"write outside", `touch '` + outside + `/x' && echo GOT; rm -f '` + outside + `/x'`, true},
		{"system directories", `for d in / /etc /usr /usr/bin /opt /var; do touch $d/sesame-was-here && echo GOT; rm -f $d/sesame-was-here; done`, root},
		{"control groups", `mkdir /sys/fs/cgroup/sesame-was-here && echo GOT; rmdir /sys/fs/cgroup/sesame-was-here`, unix.Access("/sys/fs/cgroup", unix.W_OK) == nil},
		{"kernel settings", `for f in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /sys/kernel/mm/transparent_hugepage/enabled /proc/sysrq-trigger; do (: >> $f) && echo GOT; done`, unix.Access("/proc/sys/kernel/core_pattern", unix.W_OK) == nil},
		{"password hashes", `cat /etc/shadow && echo GOT`, opens("/etc/shadow")},
		{"symlink out of the workspace, written", `ln -s '` + outside + `' out; echo x > out/x && echo GOT; rm -f out/x out`, true},
		{"own tmp", `ls -A /tmp /var/tmp | grep -v : | grep . && echo GOT`, true},
		{"other users' homes", `ls /home | grep . && echo GOT; ls -A /root 2>/dev/null | grep -vx .cache && echo GOT`, opens("/root")},
		{"host's sockets", `find /run /tmp /dev -type s | grep . && echo GOT`, true},
		{"devices", `find /dev -type b | grep . && echo GOT; for d in kmsg mem fuse kvm; do (: < /dev/$d) && echo GOT; done`, opens("/dev/kmsg")},
		{"make a device", `for f in ~/d d; do mknod $f c 1 5 && [ "$(head -c 1 $f | wc -c)" = 1 ] && echo GOT; rm -f $f; done`, capable(unix.CAP_MKNOD)},
	})
}

// Who has a home that others' homes lie in does not see into those.
func TestHomesInTheHome(t *testing.T) {
	if !mounted(t) {
		return
	}
	h := newHost(t)
	h.write("somebody/secret", "x")
	passwd := h.write("passwd", "somebody:x:4242:4242::"+h.policy.Home+"/somebody:/bin/sh\n")
	if err := unix.Mount(passwd, "/etc/passwd", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	h.refuse([]attack{
		{"read", `cat ~/somebody/secret && echo GOT`, true},
		{"move away and read", `mv ~/somebody ~/x; cat ~/x/secret && echo GOT`, true},
	})
}

func TestWorkspaceInTmp(t *testing.T) {
	h := newHost(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h.policy.Workspace = filepath.Join(dir, "a b\nc é")
	if err := os.Mkdir(h.policy.Workspace, 0o755); err != nil {
		t.Fatal(err)
	}
	h.sh(`touch x; [ "$PWD" = "` + h.policy.Workspace + `" ]`)
	if _, err := os.Stat(h.policy.Workspace + "/x"); err != nil {
		t.Error(err)
	}
}

func TestPolicyErrors(t *testing.T) {
	h := newHost(t)
	secret := h.write(".ssh/id", "x")
	link := filepath.Join(h.policy.Home, "link")
	if err := os.Symlink(h.policy.Workspace, link); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Policy){
		"workspace is /":                  func(p *Policy) { p.Workspace = "/" },
		"workspace is home":               func(p *Policy) { p.Workspace = p.Home },
		"workspace holds home":            func(p *Policy) { p.Workspace = filepath.Dir(p.Home) },
		"workspace is relative":           func(p *Policy) { p.Workspace = "x" },
		"workspace is a link":             func(p *Policy) { p.Workspace = link },
		"workspace missing":               func(p *Policy) { p.Workspace += "/none" },
		"workspace denied":                func(p *Policy) { p.DenyRead = []string{filepath.Dir(p.Workspace)} },
		"allow-read of all":               func(p *Policy) { p.AllowRead = []string{"/"} },
		"allow-read of home":              func(p *Policy) { p.AllowRead = []string{p.Home} },
		"allow-write relative":            func(p *Policy) { p.AllowWrite = []string{"x"} },
		"allow-write with dots":           func(p *Policy) { p.AllowWrite = []string{p.Home + "/../x"} },
		"allow-read of what is not there": func(p *Policy) { p.AllowRead = []string{secret + "x"} },
	} {
		t.Run(name, func(t *testing.T) {
			p := h.policy
			change(&p)
			if _, err := Start(t.Context(), &p, &Command{Args: []string{"true"}, Env: h.env}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestStreamsAreNoWayOut(t *testing.T) {
	h := newHost(t)
	file := h.write("outside", "original")
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY | os.O_APPEND} {
		f, err := os.OpenFile(file, flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := &Command{Args: []string{"/bin/bash", "-c", `for i in 0 1; do echo PWNED > /proc/self/fd/$i; done; exit 0`}, Env: h.env}
		if flag == os.O_RDONLY {
			c.Stdin = f
		} else {
			c.Stdout = f
		}
		p, err := Start(t.Context(), &h.policy, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	// What was written to stdout is in the file, after what was there.
	if got := h.read("outside"); !strings.HasPrefix(got, "original") {
		t.Errorf("the file has %q", got)
	}
	dir, err := os.Open(h.policy.Home)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p, err := Start(t.Context(), &h.policy, &Command{Args: []string{"/bin/ls", "/proc/self/fd/0/src"}, Env: h.env, Stdin: dir})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err == nil && st.Code == 0 {
		t.Error("a directory as standard input can be walked")
	}
}

// What the policy names is as it says, also where every sandbox has something else.
func TestNamedInsteadOfTheSystem(t *testing.T) {
	h := newHost(t)
	h.policy.AllowWrite = []string{"/usr"}
	tree, err := drawTree(&h.policy)
	if err != nil {
		t.Fatal(err)
	}
	if op := tree.ops["/usr"]; op.Kind != shim.ReadWrite {
		t.Errorf("it became %+v", op)
	}
	if op := tree.ops["/etc"]; op.Kind != shim.ReadOnly {
		t.Errorf("what it does not name became %+v", op)
	}
}

// What is shown because work in the repository needs it, or read-only because the host executes it, is hidden all the same if it is denied.
func TestDeniedInARepository(t *testing.T) {
	for name, linked := range map[string]bool{"the workspace's": false, "that of a linked worktree": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.repository()
			git := filepath.Join(h.policy.Workspace, ".git")
			if linked {
				work := filepath.Join(h.policy.Home, "src", "linked")
				h.git(h.policy.Workspace, "worktree", "add", "-q", work)
				h.policy.Workspace = work
			}
			var attacks []attack
			for _, path := range []string{"hooks/secret", "key", "keys/deep/key"} {
				h.policy.DenyRead = append(h.policy.DenyRead, filepath.Join(git, strings.SplitN(path, "/deep", 2)[0]))
				h.write("src/project/.git/"+path, "SECRET")
				attacks = append(attacks, attack{path, "grep SECRET '" + filepath.Join(git, path) + "' && echo GOT", true})
			}
			h.refuse(attacks)
			if testTier() != Landlock { // there nothing can be made beside what has no rule
				h.sh("git status --porcelain; echo x > x; git add x; git -c user.name=u -c user.email=u@x commit -qm x")
			}
		})
	}
}

func TestHiddenPathCannotBeRenamedIntoSight(t *testing.T) {
	h := newHost(t)
	secret := h.write("src/project/conf/deep/prod.key", "SECRET")
	h.policy.DenyRead = []string{secret}
	h.refuse([]attack{
		{"rename the parent", `mv conf c2; cat c2/deep/prod.key conf/deep/prod.key | grep SECRET && echo GOT; mv c2 conf`, true},
		{"rename the nearest", `mv conf/deep conf/d2; cat conf/d*/prod.key | grep SECRET && echo GOT; mv conf/d2 conf/deep`, true},
		{"hard link", `ln conf/deep/prod.key x && grep SECRET x && echo GOT; rm -f x`, true},
		// Outside it is gone then.
		{"remove and look again", `rm -rf conf 2>/dev/null; cat conf/deep/prod.key | grep SECRET && echo GOT`, false},
	})
	if got := h.read("src/project/conf/deep/prod.key"); got != "SECRET" {
		t.Errorf("the hidden file became %q", got)
	}
}

func TestSecretsThatComeLater(t *testing.T) {
	h := newHost(t)
	h.policy.Private = append(h.policy.Private, filepath.Join(h.policy.Home, ".config", "sesame"))
	out := &lockedBuffer{}
	p, err := h.start(t.Context(), out, "/bin/bash", "-c", `echo ready; until [ -e go ]; do sleep 0.02; done; for i in $(seq 100); do cat ~/.config/sesame/k ~/.config/gh/k ~/.claude/k ~/.cargo/credentials.toml ~/.terraform.d/credentials.tfrc.json ~/.config/google-chrome/k 2>/dev/null | grep SECRET && exit 1; sleep 0.02; done`)
	if err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	for _, s := range []string{".config/sesame/k", ".config/gh/k", ".claude/k", ".cargo/credentials.toml", ".terraform.d/credentials.tfrc.json", ".config/google-chrome/k"} {
		h.write(s, "SECRET")
	}
	h.write("src/project/go", "") // who had looked before would go on to see nothing, whatever hides it
	if st, err := p.Wait(); err != nil || st.Code != 0 {
		t.Errorf("%+v, %v: %s", st, err, out)
	}
}

// A directory that was hidden because the host had none is the turn's to make, and the host's is seen in it when there is one.
func TestDirectoryForSecretsThatComesLater(t *testing.T) {
	h := newHost(t)
	if got := h.sh(`ls -d ~/.cargo 2>/dev/null; mkdir ~/.cargo && echo own > ~/.cargo/own && ls ~/.cargo`); got != "own\n" {
		t.Errorf("it cannot be made: %q", got)
	}
	if got := h.sh(`cat ~/.cargo/own`); got != "own\n" {
		t.Errorf("the next turn has %q of it", got)
	}
	h.write(".cargo/config.toml", "host\n")
	h.write(".cargo/credentials.toml", "SECRET\n")
	if got := h.sh(`cat ~/.cargo/own ~/.cargo/config.toml; ls ~/.cargo`); got != "own\nhost\nconfig.toml\nown\n" {
		t.Errorf("with the host's it is %q", got)
	}
}

// What a turn leaves in its home must not lead the next turn's mounts elsewhere.
func TestHomeOfAnEarlierTurnIsNotTrusted(t *testing.T) {
	h := newHost(t)
	program := h.write(".cache/sesame/bin/amp", "REAL")
	data := h.write("data/x", "x")
	h.write("src/project/evil/bin/amp", "EVIL")
	h.sh(`rm -rf ~/.cache ~/data; mkdir ~/.cache; ln -s ~/src/project/evil ~/.cache/sesame; ln -s /etc ~/data`)
	h.policy.AllowRead = []string{filepath.Dir(program)}
	h.policy.AllowWrite = []string{filepath.Dir(data)}
	if got := h.sh(`cat ~/.cache/sesame/bin/amp; ls ~/data; echo y > ~/data/y`); got != "REALx\n" {
		t.Errorf("the next turn sees %q", got)
	}
	if got := h.read("data/y"); got != "y\n" {
		t.Errorf("written %q", got)
	}
}

func TestNoSetuidPrograms(t *testing.T) {
	h := newHost(t)
	h.refuse([]attack{
		{"chmod", `cp /bin/true x; chmod 4755 x && echo GOT; rm -f x`, true},
		{"setgid", `cp /bin/true x; chmod g+s x && echo GOT; rm -f x`, true},
		{"open", `python3 -c 'import os; os.umask(0); os.open("y", os.O_CREAT | os.O_WRONLY, 0o4755); print("GOT" if os.stat("y").st_mode & 0o4000 else "no")'; rm -f y`, true},
		{"mknod", `python3 -c 'import os, stat; os.mknod("z", stat.S_IFREG | 0o4755); print("GOT")'; rm -f z`, true},
	})
	h.sh(`touch a; chmod 755 a; mkdir -m 1777 b; python3 -c 'import os; os.open("c", os.O_CREAT, 0o644)'`)
}

// Files can be moved and linked between directories of all that can be written, as programs do without a copy to fall back on.
func TestMovingBetweenDirectories(t *testing.T) {
	for _, profile := range []Profile{Standard, Strict} {
		h := newHost(t)
		h.policy.Profile = profile
		h.sh(`/usr/bin/python3 -c '
import os
for top in (".", os.environ["HOME"], os.environ.get("TMPDIR", "/tmp")):
    for name in ("a/b", "c"):
        os.makedirs(top + "/" + name)
    open(top + "/a/b/x", "w").close()
    os.rename(top + "/a/b/x", top + "/c/y")
    os.link(top + "/c/y", top + "/a/z")
    os.rename(top + "/a/b", top + "/c/b")
'`)
	}
}
