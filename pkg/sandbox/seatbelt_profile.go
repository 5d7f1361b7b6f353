package sandbox

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/secret"
)

// seatbeltPlaces are what a sandbox of the tier seatbelt has besides its policy. Paths are without links.
type seatbeltPlaces struct {
	home     string   // its own
	tmp      string   // its own
	files    string   // Policy.Files
	program  string   // sesame itself, which runs inside as the keeper
	proxy    int      // port of 127.0.0.1
	homes    []string // directories that hold users' homes
	terminal bool     // the command has the caller's
}

// seatbeltProfile writes the policy in the language of macOS's sandbox (SBPL). Of rules that match, the last one
// counts, so the order is: everything denied, the system, what is hidden, what the user allows, what the user denies.
// It looks at the host's files and changes nothing, on any system, so that what it says can be tested on any.
func seatbeltProfile(p *Policy, at seatbeltPlaces) (string, error) {
	b := &profile{policy: p, places: at}
	for _, path := range b.paths() {
		if strings.ContainsRune(path, 0) {
			return "", fault.New(fault.Usage, "%q: no path has a NUL in it", path)
		}
	}
	denied := b.outright()
	for _, d := range denied {
		if within(p.Workspace, d) {
			return "", fault.New(fault.Usage, "the workspace %s is in %s, which the sandbox hides", p.Workspace, d)
		}
	}
	b.raw(seatbeltBase)
	b.section("files")
	b.system()
	b.shown()
	b.secrets()
	b.guard()
	b.own()
	b.section("what the policy hides, whatever it allows")
	for _, d := range denied {
		b.hide(d)
	}
	b.ownInHidden()
	for _, d := range withLinks(p.DenyRead) {
		b.hide(d)
	}
	b.pinRoots()
	b.ways(denied)
	b.network()
	b.terminal()
	return b.text.String(), nil
}

// seatbeltBase is what every program needs. Which services, names and operations these are follows what other users of
// this sandbox found out by experience (Chromium, Codex, sandbox-runtime); Apple documents none of it. No service
// is among them that would do something for the sandbox outside of it: not the keychain, preferences, Launch
// Services, the pasteboard, nor the one that checks certificates and fetches what they name.
const seatbeltBase = `(version 1)
(deny default)
(allow process-exec*)
(allow process-fork)
(allow process-info* (target same-sandbox))
(allow signal (target same-sandbox))
(allow mach-host*)
(allow mach-lookup
  (global-name "com.apple.system.opendirectoryd.libinfo")
  (global-name "com.apple.system.opendirectoryd.membership"))
(allow ipc-posix-sem)
(allow ipc-posix-shm*)
(allow sysctl-read
  (sysctl-name "kern.argmax")
  (sysctl-name "kern.hostname")
  (sysctl-name "kern.maxfiles")
  (sysctl-name "kern.maxfilesperproc")
  (sysctl-name "kern.maxproc")
  (sysctl-name "kern.ngroups")
  (sysctl-name "kern.secure_kernel")
  (sysctl-name "kern.tcsm_available")
  (sysctl-name "kern.tcsm_enable")
  (sysctl-name "kern.usrstack64")
  (sysctl-name "kern.version")
  (sysctl-name "security.mac.lockdown_mode_state")
  (sysctl-name "sysctl.proc_cputype")
  (sysctl-name "vm.loadavg")
  (sysctl-name-prefix "hw.")
  (sysctl-name-prefix "kern.os")
  (sysctl-name-prefix "kern.proc.pgrp.")
  (sysctl-name-prefix "kern.proc.pid.")
  (sysctl-name-prefix "machdep.cpu."))
(allow sysctl-write (sysctl-name "kern.grade_cputype") (sysctl-name "kern.tcsm_enable"))
(allow file-map-executable)
(allow system-socket (socket-domain AF_UNIX))
`

// macTops are the directories that the strict profile shows: programs and what they need.
var macTops = []string{
	"/bin", "/sbin", "/usr", "/System", "/Library", "/opt", "/nix", "/Applications/Xcode.app", "/private/etc",
	"/private/var/db/dyld", "/private/var/db/timezone", "/private/var/db/xcode_select_link", "/private/var/select",
}

// macHidden are directories that are everybody's, other users' or ways around: volumes can hold backups of
// everything that is hidden elsewhere, and /.vol and /System/Volumes/Data show the same files by other names.
var macHidden = []string{
	"/Volumes", "/Network", "/net", "/home", "/cores", "/dev", "/.vol", "/System/Volumes/Data", "/.Spotlight-V100", "/.fseventsd", "/.MobileBackups",
	"/private/tmp", "/private/var/tmp", "/private/var/folders", "/private/var/root", "/private/var/run", "/private/var/vm",
	"/private/var/db/dslocal", "/private/var/db/SystemKey", "/private/var/db/sudo", "/private/var/log", "/private/var/audit",
	"/private/etc/master.passwd", "/Library/Keychains", "/Library/Application Support/com.apple.TCC", "/Library/Logs",
}

// macDevices are those that every program may expect.
var macDevices = []string{"null", "zero", "random", "urandom", "tty", "stdin", "stdout", "stderr", "dtracehelper"}

// paths are all that the policy and the places name.
func (b *profile) paths() []string {
	p, at := b.policy, b.places
	return slices.Concat(p.Private, p.AllowRead, p.AllowWrite, p.DenyRead, at.homes,
		[]string{p.Workspace, p.Home, p.HomeState, p.GuardState, at.home, at.tmp, at.files, at.program})
}

// withLinks are the paths, and where their links lead.
func withLinks(paths []string) []string {
	var out []string
	for _, path := range paths {
		out = append(out, path)
		if real := resolve(path); real != path {
			out = append(out, real)
		}
	}
	return out
}

// outright is what the sandbox hides whatever is allowed.
func (b *profile) outright() []string { return withLinks(b.policy.outright()) }

// hiddenOps are the operations on files that a hidden path refuses. Those that are below others are named as well, because
// rules for them stand elsewhere.
const hiddenOps = "file-read* file-write* file-read-metadata file-map-executable process-exec*"

func (b *profile) hide(path string) {
	b.rule("deny", hiddenOps, subpath(path))
	b.rule("deny", "network-outbound", "(remote unix-socket "+subpath(path)+")")
	b.pin(path)
}

// pin keeps the directories between a writable one and a path from being renamed, and the path with them.
func (b *profile) pin(path string) {
	var dirs []string
	for _, root := range b.writable() {
		if path == root || !within(path, root) {
			continue
		}
		for dir := filepath.Dir(path); dir != root; dir = filepath.Dir(dir) {
			dirs = append(dirs, literal(dir))
		}
	}
	b.rule("deny", "file-write-create file-write-unlink", dirs...)
}

// pinRoots keeps the writable directories themselves where they are: in another place nothing in them would be guarded.
func (b *profile) pinRoots() {
	var roots []string
	for _, path := range b.writable() {
		if info, err := os.Lstat(path); err != nil || info.IsDir() {
			roots = append(roots, literal(path))
		}
	}
	b.rule("deny", "file-write-create file-write-unlink", roots...)
}

// writable are the directories in which writing is allowed.
func (b *profile) writable() []string {
	return slices.Concat([]string{b.policy.Workspace, b.places.home, b.places.tmp}, withLinks(b.policy.AllowWrite))
}

// system shows the system read-only.
func (b *profile) system() {
	p := b.policy
	if p.Profile == Strict {
		b.rule("allow", "file-read*", append(subpaths(macTops), literal("/"), literal("/private"), literal("/private/var"))...)
	} else {
		b.raw("(allow file-read*)\n")
	}
	hidden := slices.Concat(macHidden, b.places.homes)
	b.rule("deny", hiddenOps, subpaths(hidden)...)
	if p.Profile != Strict && p.Home != "" {
		b.rule("allow", shownOps, subpath(p.Home))
	}
	var devices []string
	for _, name := range macDevices {
		devices = append(devices, literal("/dev/"+name))
	}
	devices = append(devices, literal("/dev"), subpath("/dev/fd"))
	b.rule("allow", "file-read* file-read-metadata", devices...)
	b.rule("allow", "file-write-data", devices...)
	b.rule("allow", "file-ioctl", devices...)
}

// shownOps are the operations that a shown path allows.
const shownOps = "file-read* file-read-metadata file-map-executable process-exec*"

// secrets hides what the default lists name.
func (b *profile) secrets() {
	b.section("secrets")
	var filters []string
	for _, s := range secret.System {
		// These are behind links here.
		if strings.HasPrefix(s, "/etc/") || strings.HasPrefix(s, "/var/") {
			filters = append(filters, pattern("/private", s[1:]))
		}
	}
	if home := b.policy.Home; home != "" {
		for _, s := range secret.Home {
			filters = append(filters, pattern(home, s))
			// A link that is hidden leads to something that is not.
			found, err := filepath.Glob(filepath.Join(globQuoted(home), s))
			if err != nil {
				continue // the lists have no malformed patterns
			}
			for _, path := range found {
				if real := resolve(path); real != path {
					filters = append(filters, subpath(real))
				}
			}
		}
	}
	b.rule("deny", hiddenOps, filters...)
	// Unless the user allowed just that.
	named := func(paths []string) (filters []string) {
		for _, path := range paths {
			if b.isSecret(path) {
				filters = append(filters, subpath(path))
			}
		}
		return filters
	}
	write := append([]string{b.policy.Workspace}, withLinks(b.policy.AllowWrite)...)
	b.rule("allow", shownOps, named(append(write, withLinks(b.policy.AllowRead)...))...)
	b.rule("allow", "file-write*", named(write)...)
}

// isSecret tells whether a path is in what the default lists name.
func (b *profile) isSecret(path string) bool {
	in := func(dir, pattern string) bool {
		for p := path; p != dir && p != "/"; p = filepath.Dir(p) {
			if rel, err := filepath.Rel(dir, p); err == nil && filepath.IsLocal(rel) {
				if ok, err := filepath.Match(strings.ToLower(pattern), strings.ToLower(rel)); ok && err == nil {
					return true
				}
			}
		}
		return false
	}
	return slices.ContainsFunc(secret.System, func(s string) bool { return in("/private", s[1:]) }) ||
		b.policy.Home != "" && slices.ContainsFunc(secret.Home, func(s string) bool { return in(b.policy.Home, s) })
}

// globQuoted is a pattern for the path itself.
func globQuoted(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// shown is what the policy names, as the host has it.
func (b *profile) shown() {
	p := b.policy
	b.section("what the policy shows")
	var read []string
	if p.Profile == Strict && p.Home != "" {
		for _, name := range toolchains {
			read = append(read, filepath.Join(p.Home, name))
		}
	}
	read = append(read, withLinks(p.AllowRead)...)
	write := append([]string{p.Workspace}, withLinks(p.AllowWrite)...)
	b.rule("allow", shownOps, subpaths(append(read, write...))...)
	b.rule("allow", "file-write*", subpaths(write)...)
	// A socket that was named is one to talk to.
	var sockets []string
	for _, path := range withLinks(slices.Concat(p.AllowRead, p.AllowWrite)) {
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
			sockets = append(sockets, "(remote unix-socket "+literal(path)+")")
		}
	}
	b.rule("allow", "network-outbound", sockets...)
}

// guard keeps what the host would execute from being written in the workspace, also where it does not exist yet.
func (b *profile) guard() {
	p := b.policy
	b.section("what programs of the host execute")
	w := p.Workspace
	for _, name := range guardedNames {
		b.guardPath(w, name)
	}
	if looksBare(w) {
		b.guardGit(w)
	} else {
		b.guardPath(w, "HEAD")
	}
	gitDir := b.guardRepository(w)
	for _, path := range p.configuredPaths(w, w, gitDir, resolve) {
		b.guardPath(filepath.Dir(path), filepath.Base(path))
	}
	for _, sub := range submodules(filepath.Join(w, ".gitmodules")) {
		b.guardRepository(filepath.Join(w, sub))
	}
}

// guardRepository guards the repository whose worktree is at the top of dir, and says where it is.
func (b *profile) guardRepository(dir string) (gitDir string) {
	dotGit := filepath.Join(dir, ".git")
	switch info, err := os.Lstat(dotGit); {
	case err == nil && info.IsDir():
		b.guardGit(dotGit)
	case err == nil && info.Mode().IsRegular():
		b.guardPath(dir, ".git")
		if common, own, ok := linkedWorktree(dotGit); ok {
			b.rule("allow", shownOps+" file-write*", subpath(common))
			b.guardGit(common)
			b.guardWorktree(own)
			return common
		}
	default:
		// A repository made elsewhere could be moved here, hooks and all.
		b.guardPath(dir, ".git")
	}
	return dotGit
}

func (b *profile) guardGit(dir string) {
	for _, name := range guardedInGit {
		b.guardPath(dir, name)
	}
	for _, own := range worktreesOf(dir) {
		b.guardWorktree(own)
	}
	b.rule("deny", "file-write-create file-write-unlink", literal(dir))
}

func (b *profile) guardWorktree(own string) {
	for _, name := range guardedInWorktree {
		b.guardPath(own, name)
	}
}

// guardPath makes a path read-only unless the policy says that it, or what it is in, may be written.
func (b *profile) guardPath(dir, name string) {
	path := filepath.Join(dir, name)
	for _, allowed := range b.policy.AllowWrite {
		if real := resolve(allowed); within(path, real) && !within(b.policy.Workspace, real) {
			return
		}
	}
	filters := []string{subpath(path), pattern(dir, name)}
	if real := resolve(path); real != path {
		filters = append(filters, subpath(real))
	}
	b.rule("deny", "file-write*", filters...)
	b.pin(path)
}

// own shows the sandbox's own places.
func (b *profile) own() {
	at := b.places
	b.section("the sandbox's own")
	b.rule("allow", shownOps+" file-write*", subpath(at.home), subpath(at.tmp))
	b.rule("allow", shownOps, subpath(at.files), literal(at.program))
	if b.policy.Profile == Strict {
		written := []string{at.home, at.tmp}
		for _, path := range withLinks(b.policy.AllowWrite) {
			if !within(path, b.policy.Workspace) && !within(b.policy.Workspace, path) {
				written = append(written, path)
			}
		}
		b.rule("deny", "process-exec* file-map-executable", subpaths(written)...)
	}
}

// ownInHidden shows what the sandbox has of its own below what is hidden: its home is in sesame's own directory.
func (b *profile) ownInHidden() {
	for _, d := range b.outright() {
		if within(b.places.home, d) {
			b.own()
			return
		}
	}
}

// ways lets programs find their way to what is shown: each directory above can be looked at, but not listed.
func (b *profile) ways(denied []string) {
	p, at := b.policy, b.places
	b.section("directories on the way")
	var dirs []string
	for _, path := range slices.Concat([]string{p.Workspace, at.home, at.tmp, at.files, at.program}, withLinks(p.AllowRead), withLinks(p.AllowWrite)) {
		if slices.ContainsFunc(p.DenyRead, func(d string) bool { return within(path, d) || within(path, resolve(d)) }) ||
			slices.Contains(denied, path) {
			continue
		}
		for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
			if f := literal(dir); !slices.Contains(dirs, f) {
				dirs = append(dirs, f)
			}
			if dir == "/" {
				break
			}
		}
	}
	slices.Sort(dirs)
	for _, link := range []string{"/tmp", "/var", "/etc"} {
		dirs = append(dirs, literal(link))
	}
	b.rule("allow", "file-read-metadata", dirs...)
}

// network leaves the proxy as the only way out. Hosts can be named by "localhost" only, so nothing else is as precise.
func (b *profile) network() {
	b.section("network")
	b.rule("allow", "network-outbound", fmt.Sprintf(`(remote ip "localhost:%d")`, b.places.proxy))
	// A port of this machine that was allowed can be served inside as well: programs reach it without the proxy.
	var local, remote []string
	for _, r := range b.policy.AllowHosts {
		addr, err := netip.ParseAddr(r.Host)
		if r.Port == 0 || r.Host != "localhost" && (err != nil || !addr.IsLoopback()) || b.policy.Swap != nil && b.policy.Swap.Port == r.Port {
			continue
		}
		port := strconv.Itoa(r.Port)
		local = append(local, `(local ip "localhost:`+port+`")`)
		remote = append(remote, `(remote ip "localhost:`+port+`")`)
	}
	b.rule("allow", "network-bind network-inbound", local...)
	b.rule("allow", "network-outbound", remote...)
	// Sockets that programs inside make for each other.
	for _, dir := range []string{b.places.tmp, b.places.home} {
		b.rule("allow", "network-bind", "(local unix-socket "+subpath(dir)+")")
		b.rule("allow", "network-outbound", "(remote unix-socket "+subpath(dir)+")")
	}
}

// terminal allows terminals that programs inside make; that of the caller can be steered, but belongs to another session,
// so nothing can be typed into it.
func (b *profile) terminal() {
	b.section("terminals")
	b.raw("(allow pseudo-tty)\n")
	b.rule("allow", "file-read* file-write* file-ioctl", literal("/dev/ptmx"))
	b.raw("(allow file-read* file-write* file-ioctl\n  (require-all (regex \"^/dev/ttys[0-9]+\") (extension \"com.apple.sandbox.pty\")))\n")
	if b.places.terminal {
		b.rule("allow", "file-ioctl", `(regex "^/dev/ttys[0-9]+")`)
	}
}

// reads tells whether the profile lets the command read a path of the host's, with all below it: what is copied for the
// sandbox must not be more.
func (b *profile) reads(path string) bool {
	p := b.policy
	in := func(list []string) bool {
		return slices.ContainsFunc(list, func(dir string) bool { return within(path, dir) })
	}
	if in(b.outright()) {
		return false
	}
	for _, named := range slices.Concat([]string{p.Workspace}, withLinks(p.AllowRead), withLinks(p.AllowWrite)) {
		if within(path, named) && (!b.isSecret(path) || b.isSecret(named)) {
			return true
		}
	}
	inHome := p.Home != "" && within(path, p.Home)
	switch {
	case b.isSecret(path):
		return false
	case inHome && p.Profile == Strict:
		return slices.ContainsFunc(toolchains, func(name string) bool { return within(path, filepath.Join(p.Home, name)) })
	case inHome:
		return true
	case in(macHidden), in(b.places.homes):
		return false
	}
	return p.Profile != Strict || in(macTops)
}

// shows tells whether it lets the command read something below a path of the home.
func (b *profile) shows(path string) bool {
	return b.policy.Profile == Strict && slices.ContainsFunc(toolchains, func(name string) bool { return within(filepath.Join(b.policy.Home, name), path) })
}
