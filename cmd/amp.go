package cmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config"
)

type ampOptions struct {
	app     *app
	cmd     *cobra.Command
	version string // install, verify: which one; "" for the configured one, or for all
	json    bool
}

// ampAction is what a command below `sesame amp` does.
type ampAction func(context.Context, *ampOptions, *config.Config, config.Dirs) error

func newAmpCmd(a *app, runF func(context.Context, *ampOptions) error) *cobra.Command {
	opts := &ampOptions{app: a}
	sub := func(use, short string, args cobra.PositionalArgs, action ampAction) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: args,
			RunE: func(cmd *cobra.Command, args []string) error {
				opts.cmd = cmd
				if len(args) > 0 {
					opts.version = args[0]
				}
				if runF != nil {
					return runF(cmd.Context(), opts)
				}
				return opts.run(cmd.Context(), action)
			},
		}
	}
	install := sub("install [VERSION|latest]", "Fetch Amp into the cache and print its path", atMost(1), ampInstall)
	install.Long = "Fetch Amp into the cache and print its path. Without a version it is the configured one\n" +
		"(amp.version), which is the latest unless you said otherwise. One that is there already is\n" +
		"checked from end to end and fetched again only if it is damaged."
	path := sub("path", "Print the path of the Amp that would run", noArgs, ampPath)
	version := sub("version", "Print the version of the Amp that would run", noArgs, ampVersion)
	list := sub("list", "List the cached versions", noArgs, ampList)
	prune := sub("prune", "Remove the cached versions that are not needed", noArgs, ampPrune)
	prune.Long = "Remove all cached versions but the newest ones (amp.keep-versions of them), the\n" +
		"configured one, and those that a session is using."
	binaryFlags(path)
	binaryFlags(version)
	tierFlag(version)
	flagSet{prune.Flags()}.text("keep-versions", "", "amp.keep-versions", "keep the newest `N` versions")
	for _, c := range []*cobra.Command{list, version} {
		c.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	}
	install.Flags().BoolVar(&opts.json, "json", false, "print what happens, and the build, as JSON lines")
	cmd := group(&cobra.Command{Use: "amp", Short: "Fetch and look after Amp's binaries"})
	cmd.AddCommand(
		install,
		path,
		list,
		sub("verify [VERSION]", "Check cached binaries against their digests", atMost(1), ampVerify),
		prune,
		version,
	)
	return cmd
}

func (o *ampOptions) run(ctx context.Context, action ampAction) error {
	dirs, err := o.app.dirs()
	if err != nil {
		return err
	}
	// No workspace: what is in the cache is no project's business.
	cfg, err := o.app.load(o.cmd, "")
	if err != nil {
		return err
	}
	return action(ctx, o, cfg, dirs)
}

func ampInstall(ctx context.Context, o *ampOptions, cfg *config.Config, dirs config.Dirs) error {
	version := o.version
	if version == "" {
		version = cfg.Amp.Version
	}
	if version != cfg.Amp.Version {
		cfg = unpinned(cfg)
	}
	in, show, err := o.app.showingInstaller(cfg, dirs)
	if err != nil {
		return err
	}
	defer show.end()
	if o.json {
		show.events = o.app.io.Out
	}
	binary, err := in.Install(ctx, version)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(o.app.io.Out, struct {
			Type          string `json:"type"`
			Subtype       string `json:"subtype"`
			SchemaVersion int    `json:"schema_version"`
			ampBuild
		}{"sesame", "installed", 1, newAmpBuild(binary, version == cfg.Amp.Version)})
	}
	return o.app.answer("%s\n", binary.Path)
}

func ampPath(_ context.Context, o *ampOptions, cfg *config.Config, dirs config.Dirs) error {
	binary, err := o.app.cachedAmp(cfg, dirs)
	if err != nil {
		return err
	}
	return o.app.answer("%s\n", binary.Path)
}

// ampBuild is a build as --json shows it. What is not known is left out.
type ampBuild struct {
	Version     string             `json:"version"`
	Path        string             `json:"path"`
	Platform    bootstrap.Platform `json:"platform,omitempty"`
	SHA256      string             `json:"sha256,omitempty"`
	Size        int64              `json:"size"` // bytes
	Source      string             `json:"source"`
	URL         string             `json:"url,omitempty"`
	InstalledAt time.Time          `json:"installed_at,omitzero"`
	Selected    bool               `json:"selected"` // it is the one that would run
}

func newAmpBuild(b bootstrap.Binary, selected bool) ampBuild {
	return ampBuild{b.Version, b.Path, b.Platform, b.Digest.Hex, b.Size, b.Source, b.URL, b.InstalledAt, selected}
}

func ampVersion(ctx context.Context, o *ampOptions, cfg *config.Config, dirs config.Dirs) error {
	binary, err := o.app.cachedAmp(cfg, dirs)
	if err != nil {
		return err
	}
	if binary.Version == "" {
		caps, err := o.app.probe(ctx, cfg, dirs, binary)
		if err != nil {
			return err
		}
		if binary.Version = caps.Version; binary.Version == "" {
			binary.Version = "unknown"
		}
	}
	if o.json {
		return printJSON(o.app.io.Out, struct {
			SchemaVersion int `json:"schema_version"`
			ampBuild
		}{1, newAmpBuild(binary, true)})
	}
	return o.app.answer("%s\n", binary.Version)
}

func ampList(_ context.Context, o *ampOptions, cfg *config.Config, dirs config.Dirs) error {
	in, err := o.app.installer(unpinned(cfg), dirs)
	if err != nil {
		return err
	}
	list, err := in.List()
	if err != nil {
		return err
	}
	// None may be the one: that is no reason not to list the others.
	selected, _ := o.app.cachedAmp(cfg, dirs)
	builds := make([]ampBuild, 0, len(list))
	for _, b := range list {
		builds = append(builds, newAmpBuild(b, b.Path == selected.Path))
	}
	if o.json {
		return printJSON(o.app.io.Out, struct {
			SchemaVersion int        `json:"schema_version"`
			Builds        []ampBuild `json:"builds"`
		}{1, builds})
	}
	if len(builds) == 0 {
		o.app.say("no Amp in the cache (`sesame amp install` fetches it)")
		return nil
	}
	t := table{{"", "VERSION", "PLATFORM", "SIZE", "SOURCE", "INSTALLED"}}
	for _, b := range builds {
		mark := " "
		if b.Selected {
			mark = "*"
		}
		t = append(t, []string{mark, b.Version, string(b.Platform), bytesText(b.Size), b.Source, o.app.when(b.InstalledAt)})
	}
	return t.print(o.app.io.Out)
}

func ampVerify(ctx context.Context, o *ampOptions, cfg *config.Config, dirs config.Dirs) error {
	in, err := o.app.installer(unpinned(cfg), dirs)
	if err != nil {
		return err
	}
	pinned, err := o.app.installer(cfg, dirs)
	if err != nil {
		return err
	}
	verify := func(version string) (bootstrap.Binary, error) {
		if version == cfg.Amp.Version {
			return pinned.Verify(ctx, version)
		}
		return in.Verify(ctx, version)
	}
	if o.version != "" {
		binary, err := verify(o.version)
		if err != nil {
			return err
		}
		return o.app.answer("%s ok\n", binary.Version)
	}
	versions, err := in.Versions()
	if err != nil {
		return err
	}
	var first error
	for _, version := range versions {
		_, err := verify(version)
		if ctx.Err() != nil {
			return err
		}
		state := "ok"
		if err != nil {
			state = "damaged"
			if first == nil {
				first = err
			}
		}
		if err := o.app.answer("%s %s\n", version, state); err != nil {
			return err
		}
	}
	if len(versions) == 0 {
		o.app.say("no Amp in the cache (`sesame amp install` fetches it)")
	}
	return first
}

func ampPrune(ctx context.Context, o *ampOptions, cfg *config.Config, dirs config.Dirs) error {
	in, err := o.app.installer(unpinned(cfg), dirs)
	if err != nil {
		return err
	}
	list, err := in.List()
	if err != nil {
		return err
	}
	protect, err := neededVersions(cfg, session.NewStore(dirs.State, o.app.now))
	if err != nil {
		return err
	}
	removed, err := in.Prune(ctx, cfg.Amp.KeepVersions, protect...)
	var freed int64
	sizes := map[string]int64{}
	for _, b := range list {
		sizes[b.Version] = b.Size
	}
	for _, version := range removed {
		freed += sizes[version]
		err = errors.Join(err, o.app.answer("%s\n", version))
	}
	o.app.say("removed %s, freed %s", counted(len(removed), "version"), bytesText(freed))
	return err
}

// neededVersions are those that have to stay whatever their age: the configured one,
// and those of sessions that are at work.
func neededVersions(cfg *config.Config, store *session.Store) ([]string, error) {
	var versions []string
	if cfg.Amp.Version != bootstrap.Latest {
		versions = append(versions, cfg.Amp.Version)
	}
	entries, _, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.InUse && e.AmpVersion != "" {
			versions = append(versions, e.AmpVersion)
		}
	}
	return versions, nil
}

// answer prints a line of the answer.
func (a *app) answer(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.io.Out, format, args...); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}
