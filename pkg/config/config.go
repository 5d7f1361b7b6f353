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

// Config is every setting, read once. The zero value is not useful; see Load.
type Config struct {
	Mode         string        `mapstructure:"mode"`
	Output       Output        `mapstructure:"output"`
	OutputFile   string        `mapstructure:"output-file"` // absolute; "" for none
	Timeout      time.Duration `mapstructure:"timeout"`     // of a turn; 0 for none
	Labels       []string      `mapstructure:"labels"`
	ShowThinking bool          `mapstructure:"show-thinking"`
	Quiet        bool          `mapstructure:"quiet"`
	Verbose      bool          `mapstructure:"verbose"`
	Amp          Amp           `mapstructure:"amp"`
	Sandbox      Sandbox       `mapstructure:"sandbox"`

	// Warnings are lines for the user about settings that have no effect.
	Warnings []string `mapstructure:"-"`
	// Files are the configuration files that were read, in the order of their layers.
	Files []string `mapstructure:"-"`

	origins map[string][]Origin
}

// Amp is what concerns the program that is run.
type Amp struct {
	URL            string            `mapstructure:"url"`     // of the service, normalised by ServiceURL
	Version        string            `mapstructure:"version"` // or "latest"
	SHA256         string            `mapstructure:"sha256"`  // of the executable of that version, in hex; "" for no pin
	Path           string            `mapstructure:"path"`    // absolute; an executable to use instead of a fetched one
	Sources        []string          `mapstructure:"sources"` // static, storage, npm, an http(s) base or an absolute directory
	Modes          map[string]string `mapstructure:"modes"`   // what a mode is called on the build that runs
	Args           []string          `mapstructure:"args"`    // handed to Amp
	MCPConfig      string            `mapstructure:"mcp-config"`
	KeepVersions   int               `mapstructure:"keep-versions"`
	UpdateInterval time.Duration     `mapstructure:"update-interval"`
}

// Sandbox is what concerns the policy. Paths are absolute and not yet resolved.
type Sandbox struct {
	Tier       string   `mapstructure:"tier"`    // auto, namespaces, landlock, seatbelt, off
	Profile    string   `mapstructure:"profile"` // standard, strict
	AllowHosts []string `mapstructure:"allow-hosts"`
	AllowRead  []string `mapstructure:"allow-read"`
	AllowWrite []string `mapstructure:"allow-write"`
	DenyRead   []string `mapstructure:"deny-read"`
	PassEnv    []string `mapstructure:"pass-env"`
	ExposeKey  bool     `mapstructure:"expose-key"`
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
