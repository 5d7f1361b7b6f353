package cmd

import (
	"context"
	"maps"
	"strings"

	"github.com/sesame-cli/sesame/pkg/amp/session"
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
	show := &fetchProgress{app: a, verbose: cfg.Verbose}
	if a.report != nil && a.output == config.StreamJSON {
		show.events = a.io.Out
	}
	in, err := a.newInstaller(cfg, dirs, show)
	return in, show, err
}

func (a *app) newInstaller(cfg *config.Config, dirs config.Dirs, show *fetchProgress) (*bootstrap.Installer, error) {
	if cfg.Amp.SHA256 != "" && cfg.Amp.Version == bootstrap.Latest {
		return nil, fault.New(fault.Usage, "%s: a digest is of one version, and amp.version is latest", cfg.Origin("amp.sha256").Of("amp.sha256")).
			Hint("set amp.version to the version that it is of")
	}
	// Sources may ask npm for its configuration: another program, which needs no key.
	env := maps.Clone(a.env)
	delete(env, "AMP_API_KEY")
	sources, err := bootstrap.ParseSources(cfg.Amp.Sources, bootstrap.Network{
		Environ:   env.List(),
		Home:      dirs.Home,
		UserAgent: "sesame/" + readBuild().Version,
	})
	if err != nil {
		return nil, err
	}
	return bootstrap.New(bootstrap.Options{
		Dir:            dirs.Amp(),
		SHA256:         cfg.Amp.SHA256,
		Sources:        sources,
		UpdateInterval: cfg.Amp.UpdateInterval,
		Now:            a.now,
		Events:         show.hooks(),
	})
}

// ensureAmp is the Amp to run: the user's own, or one from the cache, fetched first
// where it is missing. The version of the user's own is not known here.
func (a *app) ensureAmp(ctx context.Context, cfg *config.Config, dirs config.Dirs) (bootstrap.Binary, error) {
	path, err := ownAmp(cfg)
	if err != nil {
		return bootstrap.Binary{}, err
	}
	if path != "" {
		return pinnedPath(cfg, path)
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
		return pinnedPath(cfg, path)
	}
	in, err := a.installer(cfg, dirs)
	if err != nil {
		return bootstrap.Binary{}, err
	}
	return in.Path(cfg.Amp.Version)
}

// useAmp keeps other processes from removing the Amp that runs, until release is called.
func (a *app) useAmp(cfg *config.Config, dirs config.Dirs, running bootstrap.Binary) (release func()) {
	in, err := a.newInstaller(cfg, dirs, &fetchProgress{app: a, background: true})
	if err != nil {
		return func() {} // it was possible a moment ago
	}
	return in.Use(running)
}

// unpinned is the configuration for versions that the pin is not of.
func unpinned(cfg *config.Config) *config.Config {
	other := *cfg
	other.Amp.SHA256 = ""
	return &other
}

// pinnedPath is the user's own executable, which a pin is for as well.
func pinnedPath(cfg *config.Config, path string) (bootstrap.Binary, error) {
	b, err := bootstrap.FromPath(path)
	if err == nil && cfg.Amp.SHA256 != "" {
		err = bootstrap.CheckPin(b, cfg.Amp.SHA256)
	}
	return b, err
}

// refreshAmp looks for a newer Amp than the one that runs, meanwhile. The function it returns
// ends that, since nothing waits for it: what has come by then is there the next time.
func (a *app) refreshAmp(ctx context.Context, cfg *config.Config, dirs config.Dirs, running bootstrap.Binary) (stop func()) {
	if running.Version == "" || cfg.Amp.Version != bootstrap.Latest {
		return func() {}
	}
	quiet := &fetchProgress{app: a, background: true}
	in, err := a.newInstaller(cfg, dirs, quiet)
	if err != nil {
		return func() {} // it was possible a moment ago
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	var found bootstrap.Binary
	go func() {
		defer close(ended)
		if found, err = in.Refresh(ctx, running); found.Version == "" || err != nil {
			return
		}
		protect, needErr := neededVersions(cfg, session.NewStore(dirs.State, a.now))
		if needErr == nil {
			// What cannot be removed now can be the next time.
			_, _ = in.Prune(ctx, cfg.Amp.KeepVersions, append(protect, running.Version)...)
		}
	}()
	return func() {
		cancelled := false
		select {
		case <-ended:
		default:
			cancelled = true
			cancel()
			<-ended
		}
		cancel()
		quiet.tell()
		switch {
		case err != nil && !cancelled:
			a.warn("could not look for a newer amp, going on with %s: %s", running.Version, strings.TrimPrefix(err.Error(), "bootstrap failed: "))
		case found.Version != "":
			a.say("amp %s is there for the next turn", found.Version)
		}
	}
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
