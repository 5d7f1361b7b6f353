package sandbox

import (
	"embed"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

//go:embed testdata/seatbelt
var goldens embed.FS

var update = flag.Bool("update", false, "write the golden files anew")

// mac is a home as on a Mac, in a temporary directory, and a policy and places for it.
type mac struct {
	t      *testing.T
	root   string
	policy *Policy
	places seatbeltPlaces
}

func newMac(t *testing.T) *mac {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &mac{t: t, root: root}
	home := filepath.Join(root, "Users/me")
	state := filepath.Join(home, "Library/Application Support/sesame")
	m.policy = &Policy{
		Workspace: filepath.Join(home, "project"), Home: home, HomeState: filepath.Join(state, "homes/1"), Private: []string{state},
		AllowHosts: []HostRule{{Host: "ampcode.com"}},
	}
	m.places = seatbeltPlaces{
		home: filepath.Join(state, "homes/1/home"), tmp: filepath.Join(root, "private/tmp/sesame-1/tmp"), files: filepath.Join(root, "private/tmp/sesame-1/files"),
		program: filepath.Join(root, "bin/sesame"), proxy: 4711, homes: []string{filepath.Join(root, "Users")},
	}
	m.file("Users/me/project/main.go")
	return m
}

func (m *mac) file(path string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mac) repository() {
	for _, f := range []string{"HEAD", "config", "hooks/x", "objects/x"} {
		m.file("Users/me/project/.git/" + f)
	}
}

func (m *mac) profile() string {
	m.t.Helper()
	text, err := seatbeltProfile(m.policy, m.places)
	if err != nil {
		m.t.Fatal(err)
	}
	return text
}

// Each operation on each path as the profile decides it, by class of attack. A path begins at the Mac's root; + is allowed.
func TestSeatbeltVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		policy func(m *mac)
		want   string
	}{
		"secrets": {want: `
			- file-read-data Users/me/.ssh/id_ed25519
			- file-read-metadata Users/me/.ssh
			- file-read-data Users/me/.SSH/id_ed25519
			+ file-read-data Users/me/.sshfoo
			- file-read-data Users/me/.aws/credentials
			- file-read-data Users/me/.claude.json
			- file-read-data Users/me/Library/Keychains/login.keychain-db
			- file-read-data Users/me/Library/Application Support/Google/Chrome/Default/Cookies
			- file-read-data Users/me/Library/Application Support/sesame/credentials.json
			- file-read-data Users/me/Library/Application Support/sesame/sessions/1/session.json
			- file-read-data Users/me/Library/Application Support/sesame/homes/2/home/x
			- file-read-data Users/you/notes
			- file-read-data Users
			- file-read-data /private/etc/master.passwd
			- file-read-data /private/etc/ssh/ssh_host_rsa_key
			- file-read-data /Library/Keychains/System.keychain
			- file-read-data /private/var/folders/ab/cd/T/other
			- file-read-data /Volumes/Backup/Users/me/.ssh/id_ed25519
			- file-read-data /System/Volumes/Data/Users/me/.ssh/id_ed25519
			- file-read-data /.vol/1/2
			- file-read-data /dev/disk0
			- process-exec Users/me/.ssh/program
			- file-map-executable Users/me/.aws/library
			+ file-read-data Users/me/notes
			+ file-read-data /usr/bin/git
			+ process-exec /usr/bin/git
			+ file-read-data /private/etc/hosts
			+ file-write-data /dev/null`},
		"writes": {want: `
			+ file-write-create Users/me/project/new
			+ file-write-unlink Users/me/project/main.go
			- file-write-create Users/me/.zshrc
			- file-write-data Users/me/notes
			- file-write-create Users/me/Library/LaunchAgents/evil.plist
			- file-write-create /usr/local/bin/evil
			- file-write-create /private/tmp/x
			- file-write-unlink Users/me/project
			- file-write-create Users/me/project
			- file-write-unlink private/tmp/sesame-1/tmp
			+ file-write-create Users/me/Library/Application Support/sesame/homes/1/home/.cache/x
			- file-write-create Users/me/Library/Application Support/sesame/homes/1/to-sweep
			+ file-write-create private/tmp/sesame-1/tmp/x
			- file-write-create private/tmp/sesame-1/files/ca.pem
			- file-write-data bin/sesame
			+ process-exec bin/sesame`},
		"guard": {policy: (*mac).repository, want: `
			- file-write-create Users/me/project/.git/hooks/pre-commit
			- file-write-data Users/me/project/.git/config
			- file-write-create Users/me/project/.git/config.worktree
			- file-write-unlink Users/me/project/.git
			- file-write-create Users/me/project/.git
			+ file-write-create Users/me/project/.git/index.lock
			+ file-write-create Users/me/project/.git/objects/ab/cd
			+ file-write-data Users/me/project/.git/HEAD
			+ file-read-data Users/me/project/.git/config
			- file-write-create Users/me/project/.vscode/tasks.json
			- file-write-create Users/me/project/.VSCode/tasks.json
			- file-write-create Users/me/project/.vscode
			+ file-write-create Users/me/project/.vscodex
			- file-write-create Users/me/project/.mcp.json
			- file-write-create Users/me/project/.amp/settings.json
			- file-write-create Users/me/project/.sesame.yaml
			+ file-write-create Users/me/project/node_modules/x/.vscode/tasks.json`},
		"guard of what is no repository": {want: `
			- file-write-create Users/me/project/.git
			- file-write-create Users/me/project/.GIT/hooks/pre-commit
			+ file-write-create Users/me/project/sub/.git/config`},
		"guard allowed": {policy: func(m *mac) {
			m.repository()
			m.policy.AllowWrite = []string{filepath.Join(m.policy.Workspace, ".vscode")}
		}, want: `
			+ file-write-create Users/me/project/.vscode/tasks.json
			- file-write-create Users/me/project/.idea/x`},
		"allowed": {policy: func(m *mac) {
			m.policy.AllowRead = []string{m.policy.Home + "/.npmrc", m.policy.Home + "/.config", m.root + "/Users/you/shared"}
			m.policy.AllowWrite = []string{m.policy.Home + "/out"}
		}, want: `
			+ file-read-data Users/me/.npmrc
			- file-write-data Users/me/.npmrc
			+ file-read-data Users/me/.config/nvim/init.lua
			- file-read-data Users/me/.config/gh/hosts.yml
			+ file-read-data Users/you/shared/x
			+ file-read-metadata Users/you
			- file-read-data Users/you
			- file-read-data Users/you/other
			+ file-write-create Users/me/out/x`},
		"deny wins": {policy: func(m *mac) {
			m.policy.AllowRead = []string{m.policy.Home + "/both"}
			m.policy.AllowWrite = []string{m.policy.Home + "/out"}
			m.policy.DenyRead = []string{m.policy.Home + "/both", m.policy.Home + "/out/deep/er", m.policy.Workspace + "/a/secret", "/opt/secret"}
		}, want: `
			- file-read-data Users/me/both
			- file-read-metadata Users/me/both
			- file-write-create Users/me/out/deep/er/x
			- file-write-unlink Users/me/out/deep
			+ file-write-unlink Users/me/out/other
			- file-read-data Users/me/project/a/secret
			- file-write-data Users/me/project/a/secret
			- file-write-unlink Users/me/project/a
			+ file-write-create Users/me/project/a/other
			- process-exec /opt/secret
			- file-read-data /opt/secret/x`},
		"strict": {policy: func(m *mac) {
			m.policy.Profile = Strict
			m.policy.AllowWrite = []string{m.policy.Home + "/out"}
		}, want: `
			- file-read-data Users/me/notes
			+ file-read-data Users/me/.nvm/versions/node
			+ process-exec Users/me/.cargo/bin/cargo
			- file-read-data Users/me/.cargo/credentials.toml
			+ file-read-data Users/me/project/main.go
			+ process-exec Users/me/project/run
			- process-exec private/tmp/sesame-1/tmp/x
			- process-exec Users/me/Library/Application Support/sesame/homes/1/home/x
			- process-exec Users/me/out/x
			- file-map-executable private/tmp/sesame-1/tmp/x
			- file-read-data /private/var/db/other
			- file-read-data /somewhere
			+ process-exec /bin/sh`},
		"a workspace that is a secret": {policy: func(m *mac) { m.policy.Workspace = m.policy.Home + "/.claude" }, want: `
			+ file-write-create Users/me/.claude/x
			- file-read-data Users/me/.codex/x`},
		"network": {policy: func(m *mac) {
			m.policy.AllowHosts = append(m.policy.AllowHosts, HostRule{Host: "localhost", Port: 3000}, HostRule{Host: "10.1.2.3", Port: 5000}, HostRule{Host: "127.0.0.1", Port: 9000})
			m.policy.Swap = &gateway.KeySwap{Host: "127.0.0.1", Port: 9000}
		}, want: `
			+ network-outbound localhost:4711
			- network-outbound localhost:4712
			- network-outbound *:443
			- network-outbound *:53
			+ network-outbound localhost:3000
			+ network-bind localhost:3000
			- network-outbound localhost:5000
			- network-outbound localhost:9000
			- network-bind localhost:8080
			- network-outbound unix:/private/var/run/mDNSResponder
			- network-outbound unix:/private/var/run/docker.sock
			- network-outbound unix:Users/me/.ssh/agent
			+ network-outbound unix:private/tmp/sesame-1/tmp/s
			+ network-bind unix:private/tmp/sesame-1/tmp/s
			- network-bind unix:Users/me/project/s`},
		"services and privileges": {want: `
			- mach-lookup com.apple.SecurityServer
			- mach-lookup com.apple.securityd.xpc
			- mach-lookup com.apple.trustd.agent
			- mach-lookup com.apple.pasteboard.1
			- mach-lookup com.apple.coreservices.launchservicesd
			- mach-register evil
			- appleevent-send x
			- lsopen x
			- job-creation x
			- user-preference-read x
			- forbidden-exec-sugid /usr/bin/sudo
			- system-privilege x
			- iokit-open x
			- file-link Users/me/project/x
			- file-clone Users/me/project/x
			- file-mount x
			- sysctl-read kern.procargs2
			- sysctl-write kern.hostname
			- nvram-set x
			- file-ioctl /dev/ttys001
			+ signal same-sandbox
			- signal others
			- process-info-pidinfo others`},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMac(t)
			if c.policy != nil {
				c.policy(m)
			}
			rules := parseProfile(t, m.profile())
			for line := range strings.Lines(strings.TrimSpace(c.want)) {
				sign, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
				operation, subject, _ := strings.Cut(rest, " ")
				if strings.HasPrefix(operation, "file-") || strings.HasPrefix(operation, "process-exec") {
					if !strings.HasPrefix(subject, "/") {
						subject = filepath.Join(m.root, subject)
					}
				} else if path, ok := strings.CutPrefix(subject, "unix:"); ok && !strings.HasPrefix(path, "/") {
					subject = "unix:" + filepath.Join(m.root, path)
				}
				b := profile{policy: m.policy, places: m.places}
				if ours := within(subject, m.places.home) || within(subject, m.places.tmp) || within(subject, "/dev"); operation == "file-read-data" && !ours && b.reads(subject) != (sign == "+") {
					t.Errorf("reads(%s): %v", subject, b.reads(subject))
				}
				// Whether a rule for one operation counts before those for several, nobody has written down.
				for _, specificFirst := range []bool{false, true} {
					if got := rules.allow(operation, subject, specificFirst); got != (sign == "+") {
						t.Errorf("%s %s: %v (specific first: %v)", operation, subject, got, specificFirst)
					}
				}
			}
		})
	}
}

func TestSeatbeltProfileText(t *testing.T) {
	for name, change := range map[string]func(m *mac){
		"standard": (*mac).repository,
		"strict":   func(m *mac) { m.policy.Profile = Strict },
		"rules": func(m *mac) {
			m.repository()
			m.policy.AllowRead = []string{m.policy.Home + "/.npmrc"}
			m.policy.AllowWrite = []string{m.policy.Home + "/out"}
			m.policy.DenyRead = []string{m.policy.Workspace + "/a/secret"}
			m.policy.AllowHosts = append(m.policy.AllowHosts, HostRule{Host: "localhost", Port: 3000})
			m.places.terminal = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMac(t)
			change(m)
			got := m.profile()
			for dir := filepath.Dir(m.root); dir != "/"; dir = filepath.Dir(dir) {
				got = strings.Replace(got, "\n  "+literal(dir), "", 1) // the way to the temporary directory here
			}
			got = strings.ReplaceAll(got, m.root, "/ROOT")
			golden := "testdata/seatbelt/" + name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := goldens.ReadFile(golden) // as built: some tests run this program elsewhere
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("the profile changed (if that is right: go test -update):\n%s", diff)
			}
		})
	}
}

// A path must not end its string, nor a pattern mean more or less than the path.
func TestSeatbeltEscapesPaths(t *testing.T) {
	for _, name := range []string{`a"b`, `a\`, `a\"b`, "a\nb", `x")) (allow default) (deny file-read* (subpath "`, "a;b", "ä ö 日本", "a.b*c[d](e)^$", "#|x|#", strings.Repeat("l", 200)} {
		m := newMac(t)
		home := filepath.Join(m.root, "Users", name)
		m.policy.Home, m.policy.Workspace = home, filepath.Join(home, "w")
		m.policy.DenyRead = []string{filepath.Join(home, "deny")}
		if err := os.MkdirAll(m.policy.Workspace, 0o700); err != nil {
			t.Fatal(err)
		}
		rules := parseProfile(t, m.profile())
		for subject, want := range map[string]bool{"/.ssh/id": false, "/w/.vscode/x": false, "/w/.VSCODE/x": false, "/deny/x": false, "/w/main.go": true, "/w/x/.vscode": true} {
			operation := "file-write-create"
			if strings.HasPrefix(subject, "/.ssh") || strings.HasPrefix(subject, "/deny") {
				operation = "file-read-data"
			}
			if got := rules.allow(operation, home+subject, false); got != want {
				t.Errorf("%q: %s %s: %v", name, operation, subject, got)
			}
		}
		if rules.allow("file-write-create", "/etc/x", false) || rules.allow("network-outbound", "*:80", false) {
			t.Errorf("%q changes the meaning of the profile", name)
		}
	}
	m := newMac(t)
	m.policy.DenyRead = []string{"/a\x00b"}
	if _, err := seatbeltProfile(m.policy, m.places); err == nil {
		t.Error("a path with a NUL")
	}
	m = newMac(t)
	m.policy.DenyRead = []string{m.policy.Home}
	if _, err := seatbeltProfile(m.policy, m.places); err == nil {
		t.Error("a workspace in what is hidden")
	}
}

// sbplRule is a rule of a profile: what it decides, for which operations, where.
type sbplRule struct {
	allow      bool
	operations []string
	filters    []any
}

type sbplRules []sbplRule

// parseProfile reads as much of SBPL as sesame writes.
func parseProfile(t *testing.T, text string) sbplRules {
	t.Helper()
	tokens := regexp.MustCompile(`(?s);[^\n]*|"(?:\\.|[^"\\])*"|[()]|[^\s()";]+`).FindAllString(text, -1)
	var stack [][]any
	var top []any
	for _, tok := range tokens {
		switch {
		case strings.HasPrefix(tok, ";"):
		case tok == "(":
			stack, top = append(stack, top), nil
		case tok == ")":
			if len(stack) == 0 {
				t.Fatalf("a ) too many:\n%s", text)
			}
			top, stack = append(stack[len(stack)-1], top), stack[:len(stack)-1]
		default:
			top = append(top, tok)
		}
	}
	if len(stack) != 0 {
		t.Fatalf("a ( too many:\n%s", text)
	}
	var rules sbplRules
	for _, form := range top {
		list, ok := form.([]any)
		if !ok {
			t.Fatalf("%v stands by itself", form)
		}
		if list[0] == "version" {
			continue
		}
		if list[0] != "allow" && list[0] != "deny" {
			t.Fatalf("a rule that begins with %v", list[0])
		}
		r := sbplRule{allow: list[0] == "allow"}
		for _, x := range list[1:] {
			if op, ok := x.(string); ok {
				r.operations = append(r.operations, op)
			} else {
				r.filters = append(r.filters, x)
			}
		}
		rules = append(rules, r)
	}
	return rules
}

func (rs sbplRules) allow(operation, subject string, specificFirst bool) bool {
	decision, best := false, -1
	for _, r := range rs {
		for _, op := range r.operations {
			prefix, wild := strings.CutSuffix(op, "*")
			if op != "default" && op != operation && (!wild || !strings.HasPrefix(operation, prefix)) {
				continue
			}
			rank := 0
			if specificFirst {
				rank = len(op)
				if op == "default" {
					rank = 0
				}
			}
			matches := len(r.filters) == 0
			for _, f := range r.filters {
				matches = matches || matchFilter(f.([]any), subject)
			}
			if matches && rank >= best {
				decision, best = r.allow, rank
			}
		}
	}
	return decision
}

func matchFilter(f []any, subject string) bool {
	arg := func(i int) string {
		s := f[i].(string)
		if unquoted, ok := strings.CutPrefix(s, `"`); ok {
			s = regexp.MustCompile(`(?s)\\(.)`).ReplaceAllString(strings.TrimSuffix(unquoted, `"`), "$1")
		}
		return s
	}
	switch f[0] {
	case "literal":
		return subject == arg(1)
	case "subpath":
		return within(subject, arg(1))
	case "regex":
		return regexp.MustCompile(arg(1)).MatchString(subject)
	case "require-all":
		for _, sub := range f[1:] {
			if !matchFilter(sub.([]any), subject) {
				return false
			}
		}
		return true
	case "local", "remote":
		if f[1] == "ip" {
			return subject == arg(2)
		}
		path, ok := strings.CutPrefix(subject, "unix:")
		return ok && matchFilter(f[2].([]any), path)
	case "target":
		return subject == f[1]
	case "global-name", "sysctl-name":
		return subject == arg(1)
	case "sysctl-name-prefix":
		return strings.HasPrefix(subject, arg(1))
	}
	return false // extension, socket-domain: of nothing that is asked here
}
