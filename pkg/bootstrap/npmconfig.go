package bootstrap

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// npmConfig is what npm itself would go by, without npm: its environment
// variables over the .npmrc files of project, user, prefix and npm's own.
type npmConfig struct {
	values  map[string][]string
	network Network
}

// loadNPMConfig reads the configuration. A file that does not exist is no error.
func loadNPMConfig(n Network) (*npmConfig, error) {
	c := &npmConfig{values: map[string][]string{}, network: n}
	env := npmEnvironment(n.Environ)
	// Where the later files are is said by the earlier ones, so the lowest layers come first.
	layers := []func() string{
		func() string { return npmBuiltinFile(n) },
		func() string { return c.globalFile(env) },
		func() string { return c.userFile(env) },
	}
	// The global file may be moved by the user's; read that one ahead for its prefix.
	user, err := c.read(c.userFile(env))
	if err != nil {
		return nil, err
	}
	if v := last(user["prefix"]); v != "" && last(env["prefix"]) == "" {
		env["prefix"] = []string{v}
	}
	if n.NPMProject != "" {
		layers = append(layers, func() string { return filepath.Join(n.NPMProject, ".npmrc") })
	}
	for _, file := range layers {
		values, err := c.read(file())
		if err != nil {
			return nil, err
		}
		for k, v := range values {
			c.values[k] = v
		}
	}
	for k, v := range env {
		c.values[k] = v
	}
	return c, nil
}

// npmEnvironment returns npm_config_* as npm reads it: any case, `_` for `-`,
// keys of one registry (`//host/:_authToken`) as they are.
func npmEnvironment(environ []string) map[string][]string {
	const prefix = "npm_config_"
	values := map[string][]string{}
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		// The names of Windows' own variables may begin with "="; Cut leaves those empty.
		if !ok || value == "" || len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
			continue
		}
		key := name[len(prefix):]
		if !strings.HasPrefix(key, "//") {
			key = strings.ToLower(key[:1] + strings.ReplaceAll(key[1:], "_", "-"))
		}
		values[key] = []string{value}
	}
	return values
}

func (c *npmConfig) read(file string) (map[string][]string, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		// npm goes on without a file that it cannot read; a directory is such a one.
		if info, statErr := os.Stat(file); statErr == nil && !info.Mode().IsRegular() {
			return nil, nil
		}
		return nil, fmt.Errorf("npm configuration: %w", err)
	}
	return parseNPMRC(string(data), func(name string) (string, bool) {
		return lookupEnv(c.network.Environ, name)
	}), nil
}

func (c *npmConfig) userFile(env map[string][]string) string {
	if f := last(env["userconfig"]); f != "" {
		return f
	}
	if c.network.Home == "" {
		return ""
	}
	return filepath.Join(c.network.Home, ".npmrc")
}

// globalFile is <prefix>/etc/npmrc, the prefix being where node lives unless it is configured.
func (c *npmConfig) globalFile(env map[string][]string) string {
	for _, source := range []map[string][]string{env, c.values} {
		if f := last(source["globalconfig"]); f != "" {
			return f
		}
	}
	prefix := last(env["prefix"])
	if prefix == "" {
		prefix = firstEnv(c.network.Environ, "PREFIX")
	}
	if prefix == "" {
		prefix = last(c.values["prefix"])
	}
	if prefix == "" {
		node := findOnPath(c.network, "node")
		if node == "" {
			return ""
		}
		prefix = filepath.Dir(node)
		if c.network.os() != "windows" {
			prefix = filepath.Dir(prefix)
		}
	}
	return filepath.Join(prefix, "etc", "npmrc")
}

// npmBuiltinFile is the npmrc that a distribution puts beside npm's code.
func npmBuiltinFile(n Network) string {
	npm := findOnPath(n, "npm")
	if npm == "" {
		return ""
	}
	if n.os() == "windows" {
		return filepath.Join(filepath.Dir(npm), "node_modules", "npm", "npmrc")
	}
	return filepath.Join(filepath.Dir(filepath.Dir(npm)), "npmrc") // …/npm/bin/npm-cli.js
}

// findOnPath returns the real path of a program of environ's PATH, "" without
// one. Relative entries are passed over: the working directory may be hostile.
func findOnPath(n Network, name string) string {
	names := []string{name}
	if n.os() == "windows" {
		names = []string{name + ".exe", name + ".cmd"}
	}
	path := firstEnv(n.Environ, "PATH", "Path")
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		for _, name := range names {
			file := filepath.Join(dir, name)
			info, err := os.Stat(file)
			if err != nil || info.IsDir() || (n.os() != "windows" && info.Mode()&0o111 == 0) {
				continue
			}
			if resolved, err := filepath.EvalSymlinks(file); err == nil {
				return resolved
			}
		}
	}
	return ""
}

// get returns a single value; npm's "null" and "undefined" count as not set.
func (c *npmConfig) get(key string) string {
	v := last(c.values[key])
	if v == "null" || v == "undefined" {
		return ""
	}
	return v
}

var errNoRegistry = errors.New("no npm registry configured")

// registry returns the base URL, with a slash at the end, that npm fetches the
// scope's packages from. Where no file and no variable names one, npm itself is
// asked for its default, if it is installed.
func (c *npmConfig) registry(ctx context.Context, scope string) (string, error) {
	base := c.get(scope + ":registry")
	if base == "" {
		base = c.get("registry")
	}
	if base == "" {
		base = c.askNPM(ctx)
		if base == "" && ctx.Err() != nil {
			return "", fmt.Errorf("asking npm for its registry: %w", context.Cause(ctx))
		}
	}
	if base == "" {
		return "", errNoRegistry
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return "", errors.New("the npm registry that is configured is no http(s) address")
	}
	return strings.TrimRight(base, "/") + "/", nil
}

func (c *npmConfig) askNPM(ctx context.Context) string {
	npm := findOnPath(c.network, "npm")
	if npm == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	// --global, and not in the working directory: a project's .npmrc must not
	// decide where the executable comes from.
	cmd := exec.CommandContext(ctx, npm, "config", "get", "registry", "--global")
	cmd.Dir = c.network.Home
	if cmd.Dir == "" {
		cmd.Dir = filepath.Dir(npm)
	}
	// Nothing is to be left in the user's home by a question.
	cmd.Env = append(slices.Clone(c.network.Environ), "npm_config_logs_max=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	base := strings.TrimSpace(lines[len(lines)-1])
	if base == "undefined" || base == "null" {
		return ""
	}
	return base
}

// authorization returns the header for a request to address: that of the
// longest `//host/path/` in the configuration that the address lies under, else
// that of the registry where the host is the same.
func (c *npmConfig) authorization(address, registry string) string {
	a, errA := url.Parse(address)
	r, errR := url.Parse(registry)
	// The configuration's keys have no scheme; a token of an https registry stays off the open wire.
	if errA != nil || errR != nil || (r.Scheme == "https" && a.Scheme != "https") {
		return ""
	}
	if v := c.authorizationUnder(address); v != "" {
		return v
	}
	if a.Host == r.Host {
		return c.authorizationUnder(registry)
	}
	return ""
}

func (c *npmConfig) authorizationUnder(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	for key := "//" + u.Host + u.EscapedPath(); len(key) > len("//"); key = parentKey(key) {
		if token := c.get(key + ":_authToken"); token != "" {
			return "Bearer " + token
		}
		if basic := c.get(key + ":_auth"); basic != "" {
			return "Basic " + basic
		}
		user, password := c.get(key+":username"), c.get(key+":_password")
		if user == "" || password == "" {
			continue
		}
		plain, err := base64.StdEncoding.DecodeString(password)
		if err != nil {
			continue
		}
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+string(plain)))
	}
	return ""
}

// parentKey takes off the last slash, or what follows it.
func parentKey(key string) string {
	if shorter, ok := strings.CutSuffix(key, "/"); ok {
		return shorter
	}
	return key[:strings.LastIndexByte(key, '/')+1]
}

// file resolves a path of the configuration; a relative one would depend on the working directory.
func (c *npmConfig) file(path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && c.network.Home != "" {
		return filepath.Join(c.network.Home, rest), nil
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("npm configuration: %q must be an absolute path", path)
	}
	return path, nil
}

func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
