package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/viper"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Flag is a flag that was given on the command line and has a key.
type Flag struct {
	Name   string   // "--allow-host"
	Key    string   // "sandbox.allow-hosts"
	Values []string // one for each time it was given
}

// Options are what Load needs to know of the world.
type Options struct {
	Env        Env
	Dirs       Dirs
	ConfigFile string // instead of the user's file; must exist when not empty
	Workspace  string // whose .sesame.yaml counts; "" for none
	Dir        string // absolute; what relative paths in variables and flags are seen from
	Flags      []Flag
}

// Load reads every layer. An error is a fault.Usage that names the file, line and
// key (or the variable, or the flag). The Config that comes with an error is the best
// that could be had and only good for deciding how to show the error.
func Load(o Options) (*Config, error) {
	l := &loader{viper: viper.New(), settings: schema(), origins: map[string][]Origin{}, options: o}
	for _, s := range l.settings {
		l.viper.SetDefault(s.name, s.zero())
	}
	var first error
	for _, layer := range []func() error{l.system, l.user, l.workspace, l.environment, l.flags} {
		if err := layer(); err != nil && first == nil {
			first = err
		}
	}
	return l.config(), first
}

// config is what the layers come to. Values have the types of their settings by now: viper's own way of filling a
// structure, by reflection, would take longer than reading the layers.
func (l *loader) config() *Config {
	v := l.viper
	return &Config{
		Mode:         v.GetString("mode"),
		Output:       Output(v.GetString("output")),
		OutputFile:   v.GetString("output-file"),
		Timeout:      v.GetDuration("timeout"),
		Labels:       v.GetStringSlice("labels"),
		ShowThinking: v.GetBool("show-thinking"),
		Quiet:        v.GetBool("quiet"),
		Verbose:      v.GetBool("verbose"),
		Amp: Amp{
			URL:            v.GetString("amp.url"),
			Version:        v.GetString("amp.version"),
			SHA256:         v.GetString("amp.sha256"),
			Path:           v.GetString("amp.path"),
			Sources:        v.GetStringSlice("amp.sources"),
			Modes:          v.GetStringMapString("amp.modes"),
			Args:           v.GetStringSlice("amp.args"),
			MCPConfig:      v.GetString("amp.mcp-config"),
			KeepVersions:   v.GetInt("amp.keep-versions"),
			UpdateInterval: v.GetDuration("amp.update-interval"),
		},
		Sandbox: Sandbox{
			Tier:       v.GetString("sandbox.tier"),
			Profile:    v.GetString("sandbox.profile"),
			AllowHosts: v.GetStringSlice("sandbox.allow-hosts"),
			AllowRead:  v.GetStringSlice("sandbox.allow-read"),
			AllowWrite: v.GetStringSlice("sandbox.allow-write"),
			DenyRead:   v.GetStringSlice("sandbox.deny-read"),
			PassEnv:    v.GetStringSlice("sandbox.pass-env"),
			ExposeKey:  v.GetBool("sandbox.expose-key"),
		},
		Warnings: l.warnings,
		Files:    l.files,
		origins:  l.origins,
	}
}

type loader struct {
	options  Options
	viper    *viper.Viper
	settings []setting
	origins  map[string][]Origin
	files    []string
	warnings []string
}

// zero is the default with its Go type, so that no layer needs a type assertion to fail.
func (s setting) zero() any {
	switch {
	case s.standard != nil:
		return s.standard
	case s.kind == tableKind:
		return map[string]string{}
	default:
		return []string{}
	}
}

func (l *loader) system() error {
	// The most important directory comes first in the list, so last into the layers.
	for _, dir := range slices.Backward(l.options.Dirs.System) {
		if err := l.file(filepath.Join(dir, fileName), LayerSystem, false); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) user() error {
	if path := l.options.ConfigFile; path != "" {
		return l.file(path, LayerUser, true)
	}
	if l.options.Dirs.Config == "" {
		return nil
	}
	return l.file(l.options.Dirs.UserFile(), LayerUser, false)
}

func (l *loader) file(path string, layer Layer, explicit bool) error {
	data, ok, err := readFile(path, explicit)
	if err != nil || !ok {
		return err
	}
	l.files = append(l.files, path)
	// What stands before an error counts: among it may be how errors are to be printed.
	entries, err := parseFile(data, path, layer, l.settings, place{home: l.options.Dirs.Home})
	if mergeErr := l.merge(entries); err == nil {
		err = mergeErr
	}
	return err
}

func (l *loader) workspace() error {
	dir := l.options.Workspace
	if dir == "" {
		return nil
	}
	data, ok, err := readWorkspace(dir)
	if err != nil || !ok {
		return err
	}
	path := filepath.Join(dir, workspaceFile)
	l.files = append(l.files, path)
	entries, err := parseFile(data, path, LayerWorkspace, l.settings, place{home: l.options.Dirs.Home, base: dir})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := e.fromWorkspace(l.viper.Get(e.setting.name)); err != nil {
			return err
		}
	}
	return l.merge(entries)
}

func (l *loader) environment() error {
	var entries []entry
	at := place{home: l.options.Dirs.Home, base: l.options.Dir}
	env := l.options.Env
	for _, s := range l.settings {
		name := envName(s.name)
		value, set := env[name]
		if s.name == "amp.url" && value == "" {
			name = "AMP_URL" // Amp's own variable, for those who have it set already
			value, set = env[name]
		}
		// An empty variable is one that is not set, but an empty list can be meant.
		if !set || value == "" && s.kind != listKind {
			continue
		}
		v, err := s.parse([]string{value}, at, true)
		if err != nil {
			return fault.New(fault.Usage, "%s: %w", name, err)
		}
		entries = append(entries, entry{s, v, Origin{Layer: LayerEnvironment, Name: name}})
	}
	if err := l.strangers(); err != nil {
		return err
	}
	return l.merge(entries)
}

// strangers looks at the SESAME_ variables that are no setting. Others may use the
// prefix (Kubernetes makes SESAME_PORT of a service's name), so only what must be a
// slip is told; where it would leave the sandbox wider than meant it is refused.
func (l *loader) strangers() error {
	var ours []string
	for name := range l.options.Env {
		if strings.HasPrefix(name, envPrefix) {
			ours = append(ours, name)
		}
	}
	if len(ours) == 0 {
		return nil
	}
	slices.Sort(ours)
	known := map[string]bool{}
	for _, s := range l.settings {
		known[envName(s.name)] = true
	}
	candidates := slices.Sorted(maps.Keys(known))
	for _, name := range ours {
		if known[name] {
			continue
		}
		near := Nearest(name, candidates)
		if strings.HasPrefix(name, envPrefix+"SANDBOX_") {
			err := fault.New(fault.Usage, "%s: no such setting", name)
			if near != "" {
				err = err.Hint("did you mean %s?", near)
			}
			return err
		}
		if near != "" {
			l.warnings = append(l.warnings, fmt.Sprintf("%s is no setting (did you mean %s?)", name, near))
		}
	}
	return nil
}

func (l *loader) flags() error {
	at := place{home: l.options.Dirs.Home, base: l.options.Dir}
	var first error // the rest counts all the same: among it may be how errors are to be printed
	for _, f := range l.options.Flags {
		s, ok := find(l.settings, f.Key)
		if !ok || len(f.Values) == 0 {
			return fmt.Errorf("flag %s: no setting %q", f.Name, f.Key)
		}
		v, err := s.parse(f.Values, at, false)
		if err != nil {
			if first == nil {
				first = fault.New(fault.Usage, "%s: %w", f.Name, err)
			}
			continue
		}
		// A flag that can be repeated adds: `--allow-host x` must not forget the
		// hosts of the file.
		s.grows = s.kind == listKind
		l.viper.Set(s.name, l.combine(s, v, Origin{Layer: LayerFlag, Name: f.Name}))
	}
	return first
}

// merge puts a file's or the environment's settings over what is there.
func (l *loader) merge(entries []entry) error {
	tree := map[string]any{}
	for _, e := range entries {
		value := l.combine(e.setting, e.value, e.origin)
		section, key, nested := strings.Cut(e.setting.name, ".")
		if !nested {
			tree[section] = value
			continue
		}
		inner, ok := tree[section].(map[string]any)
		if !ok {
			inner = map[string]any{}
			tree[section] = inner
		}
		inner[key] = value
	}
	if err := l.viper.MergeConfigMap(tree); err != nil {
		return fmt.Errorf("merge the configuration: %w", err)
	}
	return nil
}

// combine makes the setting's new value of the old and the layer's, and notes where
// it is from.
func (l *loader) combine(s setting, value any, from Origin) any {
	switch v := value.(type) {
	case []string:
		origins := slices.Repeat([]Origin{from}, len(v))
		if before, ok := l.viper.Get(s.name).([]string); ok && s.grows {
			v = slices.Concat(before, v)
			origins = slices.Concat(l.origins[s.name], origins)
		}
		l.origins[s.name] = origins
		return v
	case map[string]string:
		table := map[string]string{}
		if before, ok := l.viper.Get(s.name).(map[string]string); ok {
			maps.Copy(table, before)
		}
		maps.Copy(table, v)
		l.origins[s.name] = []Origin{from}
		return table
	default:
		l.origins[s.name] = []Origin{from}
		return value
	}
}
