package cmd

import (
	"context"
	"maps"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// installer is what fetches Amp and looks after the cache, as configured. It shows on
// stderr what it does.
func (a *app) installer(cfg *config.Config, dirs config.Dirs) (*bootstrap.Installer, error) {
	in, _, err := a.showingInstaller(cfg, dirs)
	return in, err
}

// showingInstaller is installer with what shows its progress; call the latter's end
// when the installer has returned, however it did.
func (a *app) showingInstaller(cfg *config.Config, dirs config.Dirs) (*bootstrap.Installer, *fetchProgress, error) {
	// Sources may ask npm for its configuration: another program, which needs no key.
	env := maps.Clone(a.env)
	delete(env, "AMP_API_KEY")
	sources, err := bootstrap.ParseSources(cfg.Amp.Sources, bootstrap.Network{
		Environ:   env.List(),
		Home:      dirs.Home,
		UserAgent: "sesame/" + readBuild().Version,
	})
	if err != nil {
		return nil, nil, err
	}
	show := &fetchProgress{app: a, verbose: cfg.Verbose}
	in, err := bootstrap.New(bootstrap.Options{
		Dir:            dirs.Amp(),
		Sources:        sources,
		UpdateInterval: cfg.Amp.UpdateInterval,
		Now:            a.now,
		Events:         show.events(),
	})
	return in, show, err
}

// ensureAmp is the Amp to run: the user's own, or one from the cache, fetched first
// where it is missing. The version of the user's own is not known here.
func (a *app) ensureAmp(ctx context.Context, cfg *config.Config, dirs config.Dirs) (bootstrap.Binary, error) {
	path, err := ownAmp(cfg)
	if err != nil {
		return bootstrap.Binary{}, err
	}
	if path != "" {
		return bootstrap.FromPath(path)
	}
	in, show, err := a.showingInstaller(cfg, dirs)
	if err != nil {
		return bootstrap.Binary{}, err
	}
	defer show.end()
	return in.Ensure(ctx, cfg.Amp.Version)
}

// cachedAmp is the Amp that would run, as far as it is there: nothing is fetched.
func (a *app) cachedAmp(cfg *config.Config, dirs config.Dirs) (bootstrap.Binary, error) {
	path, err := ownAmp(cfg)
	if err != nil {
		return bootstrap.Binary{}, err
	}
	if path != "" {
		return bootstrap.FromPath(path)
	}
	in, err := a.installer(cfg, dirs)
	if err != nil {
		return bootstrap.Binary{}, err
	}
	return in.Path(cfg.Amp.Version)
}

// ownAmp is the executable that the user names, "" for one from the cache. A version
// that was asked for more lately, as --amp-version over a file's amp.path, is what counts.
func ownAmp(cfg *config.Config) (string, error) {
	path, version := cfg.Origin("amp.path").Layer, cfg.Origin("amp.version").Layer
	switch {
	case cfg.Amp.Path == "":
		return "", nil
	case path == config.LayerFlag && version == config.LayerFlag:
		return "", fault.New(fault.Usage, "--amp-path and --amp-version: give one of them")
	case version > path:
		return "", nil
	}
	return cfg.Amp.Path, nil
}
