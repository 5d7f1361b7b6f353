package cmd

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// sandboxBounds is what a session remembers of its sandbox: later turns keep to it or to a stricter one.
type sandboxBounds struct {
	Tier       string   `json:"tier"`
	Profile    string   `json:"profile"`
	AllowHosts []string `json:"allow_hosts,omitempty"`
	AllowRead  []string `json:"allow_read,omitempty"`
	AllowWrite []string `json:"allow_write,omitempty"`
	DenyRead   []string `json:"deny_read,omitempty"`
	PassEnv    []string `json:"pass_env,omitempty"`
	ExposeKey  bool     `json:"expose_key,omitempty"`
	// Held is the tier that held the last turn: Tier may leave the choice to the machine.
	Held sandbox.Tier `json:"held,omitempty"`
}

func bounds(c *config.Config) sandboxBounds {
	s := c.Sandbox
	return sandboxBounds{s.Tier, s.Profile, s.AllowHosts, s.AllowRead, s.AllowWrite, s.DenyRead, s.PassEnv, s.ExposeKey, ""}
}

// heldBy notes in a record of the sandbox which tier held the turn.
func heldBy(record json.RawMessage, tier sandbox.Tier) json.RawMessage {
	var b sandboxBounds
	if tier == "" || json.Unmarshal(record, &b) != nil {
		return record
	}
	b.Held = tier
	return b.encode()
}

// heldTier is the tier that held the last turn of a session, "" if that is not known.
func heldTier(record json.RawMessage) sandbox.Tier {
	var b sandboxBounds
	if json.Unmarshal(record, &b) != nil {
		return ""
	}
	return b.Held
}

func (b sandboxBounds) encode() json.RawMessage {
	data, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and a bool
	}
	return data
}

// keepTo holds a later turn to the session's mode and sandbox, but for what flags say outright:
// what the session hid stays hidden, and it does not get a weaker sandbox because a file or a variable changed.
func (t *turn) keepTo(r session.Record) error {
	cfg, policy := t.config, t.policy
	if r.Mode != "" && cfg.Origin("mode").Layer != config.LayerFlag {
		cfg.Mode = r.Mode
		t.app.report.Mode = r.Mode
	}
	if len(r.Policy) == 0 {
		return nil
	}
	var was sandboxBounds
	if err := json.Unmarshal(r.Policy, &was); err != nil {
		return fault.New(fault.SessionNotFound, "session %s: its record of the sandbox cannot be read: %w", r.ID, err)
	}
	for _, path := range was.DenyRead {
		if !slices.Contains(cfg.Sandbox.DenyRead, path) {
			cfg.Sandbox.DenyRead = append(cfg.Sandbox.DenyRead, path)
			policy.DenyRead = append(policy.DenyRead, path)
		}
	}
	wider := func(key, before, now string) error {
		if cfg.Origin(key).Layer == config.LayerFlag {
			t.app.say("this turn's sandbox is weaker than the session's: %s %s instead of %s", key, now, before)
			return nil
		}
		return fault.New(fault.Usage, "%s: the session %s was begun with a stronger sandbox (%s %s)", cfg.Origin(key).Of(key), r.ID, key, before).
			Hint("name it as a flag if that is what you want: %s", fmt.Sprintf("--%s=%s", map[string]string{"sandbox.tier": "sandbox", "sandbox.profile": "profile", "sandbox.expose-key": "expose-key"}[key], now))
	}
	if sandbox.Tier(cfg.Sandbox.Tier) == sandbox.Off && sandbox.Tier(was.Tier) != sandbox.Off {
		if err := wider("sandbox.tier", was.Tier, cfg.Sandbox.Tier); err != nil {
			return err
		}
	}
	if cfg.Sandbox.ExposeKey && !was.ExposeKey {
		if err := wider("sandbox.expose-key", "false", "true"); err != nil {
			return err
		}
	}
	if was.Held == sandbox.Namespaces {
		switch origin := cfg.Origin("sandbox.tier").Layer; {
		case sandbox.Tier(cfg.Sandbox.Tier) == sandbox.Landlock:
			if err := wider("sandbox.tier", string(was.Held), cfg.Sandbox.Tier); err != nil {
				return err
			}
		case sandbox.Tier(cfg.Sandbox.Tier) == sandbox.Auto && origin != config.LayerFlag:
			policy.Tier = sandbox.Namespaces // auto could be less on another machine
		}
	}
	if was.Profile == string(sandbox.Strict) && cfg.Sandbox.Profile != was.Profile {
		if cfg.Origin("sandbox.profile").Layer == config.LayerDefault {
			cfg.Sandbox.Profile, policy.Profile = was.Profile, sandbox.Strict
			policy.HomeState = homeState(t.dirs, t.workspace, sandbox.Strict)
			return nil
		}
		return wider("sandbox.profile", was.Profile, cfg.Sandbox.Profile)
	}
	return nil
}
