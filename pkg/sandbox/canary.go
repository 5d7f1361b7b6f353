package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox/secret"
)

// Canaries attack a sandbox from inside, to see that it holds now and here. What they try is
// harmless where it works: they read what was planted, and write files that are removed.
type Canaries struct {
	Policy  *Policy
	Command *Command // has to end in Attack, with its standard input
	Key     string   // the real one, which must not be inside; "" where there is none
}

// orders is what the attackers are told. The key is not among it, only how to recognise it.
type orders struct {
	Secrets   []string `json:"secrets"` // to read
	Writes    []string `json:"writes"`  // to make, or to overwrite
	TCP       []string `json:"tcp"`     // to send Token to
	Sockets   []string `json:"sockets"` // likewise; abstract ones begin with @
	Token     string   `json:"token"`
	PID       int      `json:"pid"` // of a process on the host
	Namespace string   `json:"namespace"`
	KeyLength int      `json:"key_length"`
	KeySalt   string   `json:"key_salt"`
	KeyHash   string   `json:"key_hash"` // of salt and key
}

// signalled ends what the attackers say of a process that they could send a signal.
const signalled = "can be signalled"

// loot is what the attackers got.
type loot struct {
	Secrets    []string `json:"secrets"`
	Key        []string `json:"key"` // the places where it was
	Processes  []string `json:"processes"`
	Privileges []string `json:"privileges"`
}

// CanaryIDs are the ids of the checks, in their order.
func CanaryIDs() []string {
	return []string{"sandbox.secrets", "sandbox.writes", "sandbox.hosts", "sandbox.key", "sandbox.processes", "sandbox.privileges"}
}

// CheckCanaries is a check for each kind of attack. They are made in one sandbox, at one time.
func CheckCanaries(c *Canaries, needs ...string) []check.Check {
	ids := CanaryIDs()
	var results map[string]check.Result
	var once sync.Once
	var checks []check.Check
	for i, title := range []string{"reading secrets", "writing outside", "reaching this host", "seeing the key", "other processes", "privileges"} {
		checks = append(checks, check.Check{
			ID: ids[i], Group: "sandbox", Title: title, Needs: needs,
			Run: func(ctx context.Context) check.Result {
				once.Do(func() { results = c.attack(ctx) })
				return results[ids[i]]
			},
		})
	}
	return checks
}

func everywhere(r check.Result) map[string]check.Result {
	results := map[string]check.Result{}
	for _, id := range CanaryIDs() {
		results[id] = r
	}
	return results
}

// attack runs the attackers and looks at what they got, and at what they did to the host.
func (c *Canaries) attack(ctx context.Context) map[string]check.Result {
	if c.Policy.Tier == Off {
		return everywhere(check.Skipped("there is no sandbox to attack: it is off"))
	}
	field, err := newField(c)
	if err != nil {
		return everywhere(check.Skipped("nothing could be planted for the attack: %v", err))
	}
	defer field.clear()
	data, err := json.Marshal(field.orders)
	if err != nil {
		return everywhere(check.Failed(err))
	}
	ran, err := ask(ctx, c.Policy, c.Command, data)
	if err == nil && ctx.Err() != nil {
		err = fault.New(fault.SandboxUnavailable, "the attack on the sandbox did not end in time")
	}
	if err != nil {
		return everywhere(check.Failed(err))
	}
	var got loot
	if json.Unmarshal(ran.out, &got) != nil {
		return everywhere(check.Failed(fault.New(fault.SandboxUnavailable, "the program that attacks the sandbox ended with status %d: %s", ran.code, ran.errs)))
	}
	return field.judge(got, ran.tier)
}

// field is what was planted on the host.
type field struct {
	orders    orders
	dir       string
	listeners []net.Listener

	mu    sync.Mutex
	calls []string // of attackers, by what they reached
}

// plantedIn is a directory that the sandbox has of its own, wherever TMPDIR is.
const plantedIn = "/tmp"

// plantedText is what stands in planted files, and must still.
const plantedText = "planted by sesame doctor"

func newField(c *Canaries) (f *field, err error) {
	f = &field{}
	defer func() {
		if err != nil {
			f.clear()
		}
	}()
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return f, err
	}
	f.orders.Token = hex.EncodeToString(raw)
	if f.dir, err = os.MkdirTemp(plantedIn, "sesame-canary-"); err != nil {
		return f, err
	}
	planted := filepath.Join(f.dir, "secret")
	if err := os.WriteFile(planted, []byte(plantedText), 0o600); err != nil {
		return f, err
	}
	f.orders.Secrets = append(existingSecrets(c.Policy), planted)
	f.orders.Writes = []string{planted}
	name := ".sesame-canary-" + f.orders.Token
	for _, dir := range []string{filepath.Dir(c.Policy.Workspace), c.Policy.Home, "/usr", "/etc", "/var", "/"} {
		if dir != "" && !c.allowsWriting(dir) {
			f.orders.Writes = append(f.orders.Writes, filepath.Join(dir, name))
		}
	}
	if err := f.listen("tcp", "127.0.0.1:0"); err != nil {
		return f, err
	}
	for _, address := range []string{filepath.Join(f.dir, "socket"), abstractSocket(f.orders.Token)} {
		if address != "" {
			if err := f.listen("unix", address); err != nil {
				return f, err
			}
		}
	}
	f.orders.PID, f.orders.Namespace = os.Getpid(), pidNamespace()
	if c.Key != "" {
		f.orders.KeyLength, f.orders.KeySalt = len(c.Key), f.orders.Token
		f.orders.KeyHash = keyHash(f.orders.KeySalt, []byte(c.Key))
	}
	return f, nil
}

func keyHash(salt string, key []byte) string {
	sum := sha256.Sum256(append([]byte(salt), key...))
	return hex.EncodeToString(sum[:])
}

// allowsWriting tells whether the user's own policy lets a directory be written to.
func (c *Canaries) allowsWriting(dir string) bool {
	for _, allowed := range append([]string{c.Policy.Workspace}, c.Policy.AllowWrite...) {
		if within(dir, allowed) {
			return true
		}
	}
	return false
}

// existingSecrets are the secrets of this host that the policy hides.
func existingSecrets(p *Policy) []string {
	var found []string
	add := func(pattern string) {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return
		}
		for _, path := range matches {
			if !p.shows(path) {
				found = append(found, path)
			}
		}
	}
	if p.Home != "" {
		for _, name := range secret.Home {
			add(filepath.Join(p.Home, name))
		}
	}
	for _, path := range secret.System {
		add(path)
	}
	return append(found, p.Private...)
}

// shows tells whether the user allowed a path, or works in it.
func (p *Policy) shows(path string) bool {
	for _, allowed := range append(append([]string{p.Workspace}, p.AllowRead...), p.AllowWrite...) {
		if within(path, allowed) || within(allowed, path) {
			return true
		}
	}
	return false
}

// listen takes calls on the host's side and notes those that bring the token.
func (f *field) listen(network, address string) error {
	l, err := net.Listen(network, address) //nolint:noctx // ends with clear
	if err != nil {
		return err
	}
	f.listeners = append(f.listeners, l)
	if network == "tcp" {
		f.orders.TCP = append(f.orders.TCP, l.Addr().String())
	} else {
		f.orders.Sockets = append(f.orders.Sockets, address)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			said := make([]byte, len(f.orders.Token))
			n, _ := conn.Read(said)
			if string(said[:n]) == f.orders.Token {
				f.mu.Lock()
				f.calls = append(f.calls, network+" "+address)
				f.mu.Unlock()
				_, _ = conn.Write([]byte{1})
			}
			_ = conn.Close()
		}
	}()
	return nil
}

// clear removes what was planted and what a broken sandbox let through.
func (f *field) clear() {
	for _, l := range f.listeners {
		_ = l.Close()
	}
	for _, path := range f.orders.Writes {
		if strings.HasSuffix(path, f.orders.Token) {
			_ = os.Remove(path)
		}
	}
	if f.dir != "" {
		_ = os.RemoveAll(f.dir)
	}
}

func (f *field) judge(got loot, tier Tier) map[string]check.Result {
	var written []string
	for _, path := range f.orders.Writes {
		data, err := os.ReadFile(path)
		planted := strings.HasPrefix(path, f.dir)
		if planted && string(data) != plantedText || !planted && err == nil {
			written = append(written, path)
		}
	}
	f.mu.Lock()
	calls := f.calls
	f.mu.Unlock()
	// What a tier without namespaces holds, it holds otherwise.
	hosts, processes := "this host's ports and sockets are not there (%d tried)", "none of this host's can be seen or signalled"
	if tier != Namespaces {
		hosts = "this host's ports and sockets cannot be connected to (%d tried)"
		processes = "none of this host's can be signalled, nor its environment read; that they run can be seen"
		if slices.ContainsFunc(Weaknesses(tier, LandlockVersion()), func(w Weakness) bool { return w.ID == weakSignals }) {
			processes = "none of this host's environments can be read; that they run can be seen, and they can be signalled"
			got.Processes = slices.DeleteFunc(got.Processes, func(breach string) bool { return strings.HasSuffix(breach, signalled) })
		}
	}
	results := map[string]check.Result{
		"sandbox.secrets": held(got.Secrets, "a program inside could read %s",
			"none of %d places could be read", len(f.orders.Secrets)),
		"sandbox.writes": held(written, "a program inside could write %s",
			"nothing of %d places outside of the workspace was changed", len(f.orders.Writes)),
		"sandbox.hosts": held(calls, "a program inside reached this host: %s",
			hosts, len(f.orders.TCP)+len(f.orders.Sockets)),
		"sandbox.key":        held(got.Key, "the key can be seen inside: %s", "it is in no environment and no file of the sandbox"),
		"sandbox.processes":  held(got.Processes, "a program inside reaches processes of this host: %s", "%s", processes),
		"sandbox.privileges": held(got.Privileges, "a program inside has more than it needs: %s", "no capabilities, none to be had, system calls are filtered"),
	}
	if f.orders.KeyHash == "" {
		results["sandbox.key"] = check.Skipped("there is no key to look for")
	}
	return results
}

// reportBreach is what there is to do about a sandbox that does not hold.
const reportBreach = "do not run a turn here: please report this as a bug of sesame, with `sesame doctor --json`"

// held is the result of one kind of attack.
func held(breaches []string, broken, whole string, args ...any) check.Result {
	if len(breaches) == 0 {
		return check.Passed(whole, args...)
	}
	const shown = 3
	list := strings.Join(breaches[:min(shown, len(breaches))], ", ")
	if len(breaches) > shown {
		list += fmt.Sprintf(" and %d more", len(breaches)-shown)
	}
	r := check.Failed(fault.New(fault.SandboxUnavailable, broken, list)).
		Hint(reportBreach)
	r.Details = breaches
	return r
}
