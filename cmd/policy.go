package cmd

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
	"github.com/sesame-cli/sesame/pkg/sandbox/gateway"
)

// newPolicy makes the sandbox's policy of the configuration. A rule that cannot be
// read is a fault.Usage that names where it was written.
func (a *app) newPolicy(cfg *config.Config, dirs config.Dirs, workspace string) (*sandbox.Policy, error) {
	hosts, err := serviceHosts(cfg.Amp.URL)
	if err != nil {
		return nil, err
	}
	for i, text := range cfg.Sandbox.AllowHosts {
		rule, err := gateway.ParseRule(text)
		if err != nil {
			return nil, fault.New(fault.Usage, "%s: %w", cfg.ItemOrigin("sandbox.allow-hosts", i).Of("sandbox.allow-hosts"), err)
		}
		hosts = append(hosts, rule)
	}
	for _, rules := range []struct {
		key   string
		paths []string
	}{
		{"sandbox.allow-read", cfg.Sandbox.AllowRead},
		{"sandbox.allow-write", cfg.Sandbox.AllowWrite},
		{"sandbox.deny-read", cfg.Sandbox.DenyRead},
	} {
		for i, path := range rules.paths {
			if err := checkExists(path, rules.key, cfg.ItemOrigin(rules.key, i)); err != nil {
				return nil, err
			}
		}
	}
	policy := &sandbox.Policy{
		Tier:       sandbox.Tier(cfg.Sandbox.Tier),
		Profile:    sandbox.Profile(cfg.Sandbox.Profile),
		Workspace:  workspace,
		Home:       homeOf(dirs),
		HomeState:  homeState(dirs, workspace, sandbox.Profile(cfg.Sandbox.Profile)),
		GuardState: guardState(dirs),
		Private:    []string{dirs.Config, dirs.State},
		AllowRead:  slices.Clone(cfg.Sandbox.AllowRead),
		AllowWrite: slices.Clone(cfg.Sandbox.AllowWrite),
		DenyRead:   slices.Clone(cfg.Sandbox.DenyRead),
		AllowHosts: hosts,
		GitEnv:     gitEnv(a.env),
		Proxy:      proxyOf(a.env),
		Notice:     func(text string) { a.say("%s", text) },
	}
	if cfg.Verbose {
		policy.Denied = func(d sandbox.Denial) { a.say("%s", describe(d)) }
	}
	return policy, nil
}

// gitEnv are the variables by which git is configured.
func gitEnv(env config.Env) map[string]string {
	of := map[string]string{}
	for name, value := range env {
		if name == "XDG_CONFIG_HOME" || strings.HasPrefix(name, "GIT_CONFIG_") {
			of[name] = value
		}
	}
	return of
}

// checkExists refuses a rule about a path that is not there: whoever misspelt what to hide believes it hidden. A workspace's file
// may name what not every checkout has, but no pattern either.
func checkExists(path, key string, origin config.Origin) error {
	_, err := os.Stat(path)
	pattern := strings.ContainsAny(path, "*?[")
	if err == nil || origin.Layer == config.LayerWorkspace && !pattern {
		return nil
	}
	e := fault.New(fault.Usage, "%s: %w", origin.Of(key), err)
	if pattern {
		return e.Hint("rules take no patterns: name each path, or the directory that they are in")
	}
	return e.Hint("correct the path or take the rule away")
}

// homeOf is the home to show in the sandbox; "", an empty one, where the user has none worth the name.
func homeOf(dirs config.Dirs) string {
	home := resolved(dirs.Home)
	if info, err := os.Stat(home); err != nil || !info.IsDir() || filepath.Dir(home) == home {
		return ""
	}
	return home
}

// homeState is the directory that keeps the sandbox's home for a workspace, from turn to turn. The strict profile has
// one of its own: in the other may be what was copied from the host's home.
func homeState(dirs config.Dirs, workspace string, profile sandbox.Profile) string {
	if profile == sandbox.Strict {
		workspace += "\x00strict" // which no path has
	}
	sum := sha256.Sum256([]byte(workspace))
	return filepath.Join(resolved(dirs.State), "homes", hex.EncodeToString(sum[:8]))
}

// guardState is where the guards of all workspaces keep what they know.
func guardState(dirs config.Dirs) string { return filepath.Join(resolved(dirs.State), "guards") }

// proxyOf is the user's proxy, nil where the environment names none.
func proxyOf(env config.Env) *httpproxy.Config {
	either := func(upper, lower string) string {
		if value := env.Get(upper); value != "" {
			return value
		}
		return env.Get(lower)
	}
	proxy := &httpproxy.Config{
		HTTPProxy:  either("HTTP_PROXY", "http_proxy"),
		HTTPSProxy: either("HTTPS_PROXY", "https_proxy"),
		NoProxy:    either("NO_PROXY", "no_proxy"),
	}
	if proxy.HTTPProxy == "" && proxy.HTTPSProxy == "" {
		return nil
	}
	return proxy
}

// insideEnv is the environment inside the sandbox, and what the key is there, which is not in it yet. The key is never
// passed by name, nor by a pattern that happens to match it.
func (a *app) insideEnv(cfg *config.Config, policy *sandbox.Policy, key config.Key) (env []string, inside config.Key, err error) {
	for i, name := range cfg.Sandbox.PassEnv {
		if name == "AMP_API_KEY" {
			return nil, config.Key{}, fault.New(fault.Usage, "%s: AMP_API_KEY is not passed into the sandbox by name",
				cfg.ItemOrigin("sandbox.pass-env", i).Of("sandbox.pass-env")).
				Hint("use --expose-key if the real key has to be inside")
		}
	}
	host := maps.Clone(a.env)
	delete(host, "AMP_API_KEY")
	if inside, err = a.keyInside(cfg, policy, key); err != nil {
		return nil, config.Key{}, err
	}
	env, err = policy.TrustSwap(sandbox.Environment(host.List(), policy.HomeInside(), cfg.Sandbox.PassEnv))
	return env, inside, err
}

// keyInside is what the sandbox gets for the key: a placeholder, for which the policy then has the service get the real one.
func (a *app) keyInside(cfg *config.Config, policy *sandbox.Policy, key config.Key) (config.Key, error) {
	if key.IsZero() || cfg.Sandbox.ExposeKey || policy.Tier == sandbox.Off {
		return key, nil
	}
	service, err := serviceOf(cfg.Amp.URL)
	if err != nil {
		return config.Key{}, err
	}
	placeholder, err := key.Placeholder()
	if err != nil {
		return config.Key{}, err
	}
	env := a.env.List()
	policy.Swap = &gateway.KeySwap{
		Host: service.host, Port: service.port, TLS: service.tls, Placeholder: placeholder.Reveal(), Key: key.Reveal,
		Roots: func() (*x509.CertPool, error) { return sandbox.HostRoots(env) },
	}
	return placeholder, nil
}

// service is where the Amp service is.
type service struct {
	host string // canonical
	port int
	tls  bool
}

func serviceOf(text string) (service, error) {
	u, err := url.Parse(text)
	if err != nil {
		return service{}, fault.New(fault.Usage, "amp.url: %w", err)
	}
	s := service{host: u.Hostname(), port: map[string]int{"http": 80, "https": 443}[u.Scheme], tls: u.Scheme == "https"}
	if host, ok := gateway.CanonicalHost(s.host); ok {
		s.host = host
	}
	if u.Port() != "" {
		if s.port, err = strconv.Atoi(u.Port()); err != nil {
			return service{}, fault.New(fault.Usage, "amp.url: %w", err)
		}
	}
	return s, nil
}

// serviceHosts are the hosts that are allowed from the start: the service's.
func serviceHosts(url string) ([]sandbox.HostRule, error) {
	hosts := []sandbox.HostRule{{Host: "ampcode.com"}, {Host: "*.ampcode.com"}}
	s, err := serviceOf(url)
	if err != nil {
		return nil, err
	}
	const https, http = 443, 80
	if (s.host == "ampcode.com" || strings.HasSuffix(s.host, ".ampcode.com")) && (s.port == https || s.port == http) {
		return hosts, nil
	}
	return append(hosts, sandbox.HostRule{Host: s.host, Port: s.port}), nil
}
