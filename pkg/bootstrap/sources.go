package bootstrap

import (
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Network is what sources need of the world outside.
type Network struct {
	Environ   []string          // NAME=value; proxies and npm's configuration
	Home      string            // the user's, for .npmrc and ~/
	UserAgent string            // "sesame/1.2.3"
	Transport http.RoundTripper // nil: one with proxies from Environ
	Timeouts  Timeouts
	// NPMProject is a directory whose .npmrc counts as npm's project
	// configuration; "" is none. It is never to be the workspace: its files may
	// be hostile, and an .npmrc names the server that the executable comes from.
	NPMProject string
	// OS is the operating system, in Go's words; "" is the one of this program.
	OS string
}

func (n Network) os() string {
	if n.OS != "" {
		return n.OS
	}
	return runtime.GOOS
}

// ParseSources makes sources of configuration values: "static", "storage",
// "npm", the http(s) base of a mirror, or a directory (absolute, or beginning
// with ./, ../ or ~/). None means the first three. A value that is nothing of
// the kind fails with [fault.Usage].
func ParseSources(values []string, n Network) ([]Source, error) {
	if len(values) == 0 {
		values = []string{"static", "storage", "npm"}
	}
	if n.Transport == nil {
		t, err := newLazyTransport(n)
		if err != nil {
			return nil, err
		}
		n.Transport = t // one pool of connections for all
	}
	get := newGetter(n.Transport, n.UserAgent, n.Timeouts.orDefault())
	sources := make([]Source, 0, len(values))
	for _, value := range values {
		s, err := parseSource(strings.TrimSpace(value), n, get)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func parseSource(value string, n Network, get *getter) (Source, error) {
	switch value {
	case "static":
		return &tree{name: value, base: staticBase, get: get}, nil
	case "storage":
		return &tree{name: value, base: storageBase, get: get}, nil
	case "npm":
		return &npm{network: n, scope: "@ampcode", prefix: "cli-"}, nil
	}
	lower := strings.ToLower(value)
	if strings.HasPrefix(lower, "https://") || strings.HasPrefix(lower, "http://") {
		u, err := url.Parse(value)
		if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fault.New(fault.Usage, "amp.sources: %q is no base of a mirror", publicURL(value)).
				Hint("write https://host/path, without a query")
		}
		base := strings.TrimRight(u.String(), "/")
		return &tree{name: publicURL(base), base: base, get: get}, nil
	}
	if rest, ok := strings.CutPrefix(value, "~/"); ok && n.Home != "" {
		return &directory{dir: filepath.Join(n.Home, rest)}, nil
	}
	if filepath.IsAbs(value) || strings.HasPrefix(value, "./") || strings.HasPrefix(value, "../") {
		dir, err := filepath.Abs(value)
		if err != nil {
			return nil, fault.New(fault.Usage, "amp.sources: %w", err)
		}
		return &directory{dir: dir}, nil
	}
	return nil, fault.New(fault.Usage, "amp.sources: unknown source %q", value).
		Hint("a source is static, storage, npm, an http(s) base, or a directory such as /mnt/amp")
}
