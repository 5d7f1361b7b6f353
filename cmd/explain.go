package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// explains tells whether the policy is to be explained instead of used.
func (o *sandboxOptions) explains() bool { return o.explain || len(o.paths)+len(o.hosts) > 0 }

// policyReport is the policy as data.
type policyReport struct {
	Version    int                `json:"schema_version"`
	Tier       sandbox.Tier       `json:"tier"`      // as asked for
	Here       sandbox.Tier       `json:"tier_here"` // what carries it out, "" if nothing does
	Profile    sandbox.Profile    `json:"profile"`
	Workspace  string             `json:"workspace"`
	Home       string             `json:"home"`
	HomeState  string             `json:"home_state"`
	Key        string             `json:"key"` // "placeholder", "exposed" or "none"
	AllowRead  []string           `json:"allow_read"`
	AllowWrite []string           `json:"allow_write"`
	DenyRead   []string           `json:"deny_read"`
	AllowHosts []string           `json:"allow_hosts"`
	PassEnv    []string           `json:"pass_env"`
	Env        []string           `json:"environment"` // names of the variables that are inside
	Paths      []sandbox.Verdict  `json:"paths"`       // those that this host has and that are treated in a way of their own; Linux only
	Weaker     []sandbox.Weakness `json:"weaker"`      // than the tier namespaces
}

// policy prints the policy.
func (o *sandboxOptions) policy(cfg *config.Config, p *sandbox.Policy, tier sandbox.Tier, env []string) error {
	a := o.app
	if err := p.Check(); err != nil {
		return err
	}
	paths, err := p.ExplainPaths(tier)
	if err != nil {
		return err
	}
	names := []string{}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	if cfg.Output != config.JSON {
		_, err := fmt.Fprint(a.io.Out, explain(p, tier, paths, names, o.keyKind(cfg, p)))
		return err
	}
	hosts := []string{}
	for _, r := range p.AllowHosts {
		hosts = append(hosts, r.String())
	}
	list := func(s []string) []string { return append([]string{}, s...) } // [] instead of null
	return printJSON(a.io.Out, policyReport{
		1, p.Tier, tier, p.Profile, p.Workspace, p.Home, p.HomeState, o.keyKind(cfg, p),
		list(p.AllowRead), list(p.AllowWrite), list(p.DenyRead), hosts, list(cfg.Sandbox.PassEnv), names,
		append([]sandbox.Verdict{}, paths...), append([]sandbox.Weakness{}, sandbox.Weaknesses(tier, sandbox.LandlockVersion())...),
	})
}

func (o *sandboxOptions) keyKind(cfg *config.Config, p *sandbox.Policy) string {
	switch {
	case p.Swap != nil:
		return "placeholder"
	case cfg.Sandbox.ExposeKey || p.Tier == sandbox.Off:
		return "exposed"
	}
	return "none"
}

// verdicts say what the policy means for single paths and hosts.
func (o *sandboxOptions) verdicts(ctx context.Context, cfg *config.Config, p *sandbox.Policy) error {
	a := o.app
	if err := p.Check(); err != nil {
		return err
	}
	tier := p.Tier
	if len(o.paths) > 0 {
		// What becomes of a path depends on what carries the policy out here.
		here, err := sandbox.TierHere(ctx, p, nil)
		if err != nil {
			a.warn("%v", err)
		} else {
			tier = here
		}
	}
	list := []sandbox.Verdict{}
	for _, path := range o.paths {
		path, err := a.absolute(path)
		if err != nil {
			return err
		}
		v, err := p.ExplainPath(path, tier)
		if err != nil {
			return err
		}
		list = append(list, v)
	}
	for _, target := range o.hosts {
		host, portText, err := net.SplitHostPort(target)
		if err != nil {
			host, portText = strings.Trim(target, "[]"), "443"
		}
		port, err := strconv.Atoi(portText)
		if err != nil || port < 1 || port > 65535 || host == "" || strings.ContainsAny(host, "/@") {
			return fault.New(fault.Usage, "--explain-host %q: write HOST or HOST:PORT", target)
		}
		list = append(list, p.ExplainHost(host, port))
	}
	if cfg.Output == config.JSON {
		return printJSON(a.io.Out, list)
	}
	for _, v := range list {
		word := "refused"
		if v.Allowed {
			word = "allowed"
		}
		if v.Access != "" {
			word = string(v.Access)
		}
		text := fmt.Sprintf("%s: %s (%s)", v.Target, word, v.Rule)
		if v.Flag != "" {
			text += "; to change it: " + v.Flag
			if _, err := os.Lstat(v.Target); v.Access != "" && errors.Is(err, fs.ErrNotExist) {
				text += ", once there is something" // or the flag is refused
			}
		}
		if _, err := fmt.Fprintln(a.io.Out, onOneLine(text)); err != nil {
			return err
		}
	}
	return nil
}

// explain is the policy as a person reads it; tier is what carries it out here, "" if nothing does.
func explain(p *sandbox.Policy, tier sandbox.Tier, paths []sandbox.Verdict, env []string, key string) string {
	var b strings.Builder
	line := func(label, value string) { fmt.Fprintf(&b, "%-14s %s\n", label, onOneLine(value)) }
	short := func(path string) string {
		if rel, err := filepath.Rel(p.Workspace, path); err == nil && filepath.IsLocal(rel) && rel != "." {
			return "./" + rel
		}
		if rel, err := filepath.Rel(p.Home, path); p.Home != "" && err == nil && filepath.IsLocal(rel) {
			return filepath.Join("~", rel)
		}
		return path
	}
	if tier == "" || tier == p.Tier {
		line("tier", string(p.Tier))
	} else {
		line("tier", fmt.Sprintf("%s (here: %s)", p.Tier, tier))
	}
	line("profile", string(p.Profile))
	if len(paths) == 0 {
		line("read-write", p.Workspace+" (the workspace)")
		line("home", p.Home+" (changes do not reach it, secrets are absent)")
	}
	// One line for all that have the same access for the same reason.
	type kind struct{ access, rule string }
	var kinds []kind
	same := map[kind][]string{}
	for _, v := range paths {
		k := kind{string(v.Access), strings.TrimSuffix(v.Rule, " "+v.Target)}
		if same[k] == nil {
			kinds = append(kinds, k)
		}
		same[k] = append(same[k], short(v.Target))
	}
	for _, k := range kinds {
		line(k.access, fmt.Sprintf("%s (%s)", strings.Join(same[k], " "), k.rule))
	}
	for _, h := range p.AllowHosts {
		if h.Port == 0 {
			line("network", h.Host+" (ports 443 and 80)")
		} else {
			line("network", fmt.Sprintf("%s (port %d)", h.Host, h.Port))
		}
	}
	line("environment", strings.Join(env, " "))
	line("key", key)
	for _, w := range sandbox.Weaknesses(tier, sandbox.LandlockVersion()) {
		line("weaker", w.Text)
	}
	return b.String()
}
