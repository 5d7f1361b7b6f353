// Package config knows what sesame is told: settings in layers, the places where
// things are kept, the key and its store, and how to keep the key out of output.
package config

import "time"

// Output is the form of a turn's answer on stdout.
type Output string

// The outputs.
const (
	Text       Output = "text"
	JSON       Output = "json"
	StreamJSON Output = "stream-json"
)

// Config is every setting, read once, with the key that files have it by. The zero value is not useful; see Load.
type Config struct {
	Mode         string        `key:"mode"`
	Output       Output        `key:"output"`
	OutputFile   string        `key:"output-file"` // absolute; "" for none
	Timeout      time.Duration `key:"timeout"`     // of a turn; 0 for none
	Labels       []string      `key:"labels"`
	ShowThinking bool          `key:"show-thinking"`
	Quiet        bool          `key:"quiet"`
	Verbose      bool          `key:"verbose"`
	Amp          Amp           `key:"amp"`
	Sandbox      Sandbox       `key:"sandbox"`

	// Warnings are lines for the user about settings that have no effect.
	Warnings []string
	// Files are the configuration files that were read, in the order of their layers.
	Files []string

	origins map[string][]Origin
}

// Amp is what concerns the program that is run.
type Amp struct {
	URL            string            `key:"url"`     // of the service, normalised by ServiceURL
	Version        string            `key:"version"` // or "latest"
	SHA256         string            `key:"sha256"`  // of the executable of that version, in hex; "" for no pin
	Path           string            `key:"path"`    // absolute; an executable to use instead of a fetched one
	Sources        []string          `key:"sources"` // static, storage, npm, an http(s) base or an absolute directory
	Modes          map[string]string `key:"modes"`   // what a mode is called on the build that runs
	Args           []string          `key:"args"`    // handed to Amp
	MCPConfig      string            `key:"mcp-config"`
	KeepVersions   int               `key:"keep-versions"`
	UpdateInterval time.Duration     `key:"update-interval"`
}

// Sandbox is what concerns the policy. Paths are absolute and not yet resolved.
type Sandbox struct {
	Tier       string   `key:"tier"`    // auto, namespaces, landlock, seatbelt, off
	Profile    string   `key:"profile"` // standard, strict
	AllowHosts []string `key:"allow-hosts"`
	AllowRead  []string `key:"allow-read"`
	AllowWrite []string `key:"allow-write"`
	DenyRead   []string `key:"deny-read"`
	PassEnv    []string `key:"pass-env"`
	ExposeKey  bool     `key:"expose-key"`
}

// Origin is where the value of a key such as "amp.url" comes from; for a list,
// its last element.
func (c *Config) Origin(key string) Origin {
	if o := c.origins[key]; len(o) > 0 {
		return o[len(o)-1]
	}
	return Origin{}
}

// ItemOrigin is where element i of a list comes from, since lists grow by layers.
func (c *Config) ItemOrigin(key string, i int) Origin {
	if o := c.origins[key]; i >= 0 && i < len(o) {
		return o[i]
	}
	return Origin{}
}
