// Package sandbox runs a command so that it reaches the workspace and the
// allowed hosts and nothing else. A Policy says what is allowed; a tier (Linux
// namespaces, Landlock, macOS seatbelt) turns it into a running process.
package sandbox

import (
	"io"
	"path/filepath"
	"slices"

	"golang.org/x/net/http/httpproxy"

	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// Tier names a mechanism that carries out a Policy.
type Tier string

// The tiers, strongest first. Auto takes the strongest that works here.
const (
	Auto       Tier = "auto"
	Namespaces Tier = "namespaces"
	Landlock   Tier = "landlock"
	Seatbelt   Tier = "seatbelt"
	Off        Tier = "off"
)

// Profile is how much of the system is shown read-only.
type Profile string

// The profiles: Standard shows the system and a copy-on-write home without its
// secrets; Strict shows toolchains only.
const (
	Standard Profile = "standard"
	Strict   Profile = "strict"
)

// HostRule allows one host and port; see gateway.ParseRule for its text.
type HostRule = gateway.Rule

// Policy is what a command in the sandbox may reach. Paths are absolute.
type Policy struct {
	Tier       Tier       // Auto when empty
	Profile    Profile    // Standard when empty
	Workspace  string     // read-write at its own path
	Home       string     // the user's home: copy-on-write inside; "" gives a new, empty one
	HomeState  string     // directory that keeps what changes in Home from turn to turn; "" forgets it
	GuardState string     // directory of what the guards of all workspaces know, also of each other; "" forgets it
	Private    []string   // sesame's own directories: absent inside, whatever else is allowed
	AllowRead  []string   // shown read-only as the host has them, also where the default hides them
	AllowWrite []string   // read-write
	DenyRead   []string   // absent; beats every Allow
	AllowHosts []HostRule // the only way out
	Files      []File     // made inside, below PrivateDir

	// GitEnv are the user's variables that give git more configuration, GIT_CONFIG_* and XDG_CONFIG_HOME, by their names: what
	// of that is in the workspace is guarded. They are not inside.
	GitEnv map[string]string

	// Swap, if set, gives the service the key, which is not inside; see TrustSwap.
	Swap *gateway.KeySwap
	// Proxy is the user's own proxy, through which the host side dials; nil for none.
	Proxy *httpproxy.Config
	// Denied, if set, hears of each refusal as it happens, from several goroutines.
	Denied func(Denial)
	// Notice, if set, hears what a user should know of how the policy is carried out.
	Notice func(string)

	own bool // the command is sesame itself: what it leaves in the workspace need not be looked for
}

// File is a file that exists inside the sandbox only.
type File struct {
	Path string // below PrivateDir
	Data []byte
	Also []string // further paths that show it, in the place of what the host has there; as far as the tier can
}

// PrivateDir is where Files live inside the sandbox.
const PrivateDir = "/run/sesame"

// Command is what to run. Args[0] is looked up in the PATH of Env.
type Command struct {
	Args   []string
	Dir    string   // working directory; Policy.Workspace when empty
	Env    []string // the whole environment, KEY=value
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Terminal leaves the command in the caller's session and process group, so that an
	// interactive program works. Without it the command has no controlling terminal.
	Terminal bool
	// Watch, if not nil, is called when it is time to watch for signals: before anything is made that only this process puts in order
	// again, and when nothing is left but to wait until the command runs. It may be called more than once.
	Watch func()
}

func (c *Command) watch() {
	if c.Watch != nil {
		c.Watch()
	}
}

// Denial is something the sandbox refused to a program, and how often.
type Denial struct {
	Kind    string `json:"kind"`              // "network"
	Target  string `json:"target"`            // "example.com:443"
	Program string `json:"program,omitempty"` // "curl": what the program calls itself; "" where that is not known
	Reason  string `json:"reason,omitempty"`  // why a rule for the target does not help
	Count   int    `json:"count"`
}

// homeWithin is where a command has its home when the policy names none.
const homeWithin = "/tmp/home"

// HomeInside is the path of the home directory as the command sees it.
func (p *Policy) HomeInside() string {
	if p.Home == "" {
		return homeWithin
	}
	return p.Home
}

// HomeChanges are the directories that keep what changes in the home from turn to turn, one for each tier that keeps it in its own way.
func (p *Policy) HomeChanges() []string {
	if p.HomeState == "" {
		return nil
	}
	return []string{filepath.Join(p.HomeState, "upper"), filepath.Join(p.HomeState, confinedHome)}
}

// outright are the paths that the sandbox hides whatever is allowed.
func (p *Policy) outright() []string {
	hidden := slices.Concat(p.Private, p.DenyRead)
	for _, state := range []string{p.HomeState, p.GuardState} {
		if state != "" {
			hidden = append(hidden, state)
		}
	}
	return hidden
}

// confinedHome is where, below Policy.HomeState, the tier landlock keeps its home.
const confinedHome = "home"
