package cmd

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

type modesOptions struct {
	app  *app
	cmd  *cobra.Command
	json bool
}

func newModesCmd(a *app, runF func(context.Context, *modesOptions) error) *cobra.Command {
	opts := &modesOptions{app: a}
	if runF == nil {
		runF = modesRun
	}
	cmd := &cobra.Command{
		Use:   "modes",
		Short: "List the modes and what they become on the installed Amp",
		Long: "List the modes, what they are for, and what they become on the Amp that would run.\n" +
			"Nothing is fetched: without an Amp in the cache the last column is missing.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.cmd = cmd
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	binaryFlags(cmd)
	tierFlag(cmd)
	return cmd
}

// modesAmp is the build that the modes are shown for.
type modesAmp struct {
	Version string `json:"version"`
	Path    string `json:"path"`
}

func modesRun(ctx context.Context, o *modesOptions) error {
	a := o.app
	dirs, err := a.dirs()
	if err != nil {
		return err
	}
	cfg, err := a.load(o.cmd, "")
	if err != nil {
		return err
	}
	binary, installed, err := a.installedAmp(cfg, dirs)
	if err != nil {
		return err
	}
	var caps *amp.Capabilities
	var build *modesAmp
	if installed {
		if caps, err = a.probe(ctx, cfg, dirs, binary); err != nil {
			return err
		}
		build = &modesAmp{caps.Version, binary.Path}
		if build.Version == "" {
			build.Version = binary.Version
		}
	}
	rows := amp.ModeTable(caps, cfg.Amp.Modes)
	if o.json {
		return printJSON(a.io.Out, struct {
			SchemaVersion int           `json:"schema_version"`
			Amp           *modesAmp     `json:"amp"` // null where none is installed
			Modes         []amp.ModeRow `json:"modes"`
		}{1, build, rows})
	}
	if err := modesTable(rows, caps, build).print(a.io.Out); err != nil || installed {
		return err
	}
	if cfg.Amp.Version != bootstrap.Latest {
		return a.answer("(Amp %[1]s not installed: sesame amp install %[1]s)\n", cfg.Amp.Version)
	}
	return a.answer("(no Amp installed: sesame amp install)\n")
}

func modesTable(rows []amp.ModeRow, caps *amp.Capabilities, build *modesAmp) table {
	t := table{{"MODE", "FOR", "PRIMARY MODEL"}}
	if caps != nil {
		t[0] = append(t[0], "ON AMP "+build.Version)
	}
	for _, r := range rows {
		cells := []string{r.Name, r.Purpose, r.Model}
		if r.Model == "" {
			cells[2] = "-"
		}
		if caps != nil {
			cells = append(cells, becomes(r, caps))
		}
		t = append(t, cells)
	}
	return t
}

// becomes says what a mode is on the build.
func becomes(r amp.ModeRow, caps *amp.Capabilities) string {
	switch {
	case !r.Available:
		return "not available"
	case r.AmpMode == "":
		return "(no modes)"
	case !caps.ModesChecked && !slices.Contains(caps.Modes, r.AmpMode):
		return r.AmpMode + " (if the service knows it)"
	default:
		return r.AmpMode
	}
}

// installedAmp is the Amp that would run, if there is one. A user's own that cannot be
// used is an error, and so is a cache that cannot be trusted.
func (a *app) installedAmp(cfg *config.Config, dirs config.Dirs) (binary bootstrap.Binary, installed bool, err error) {
	binary, err = a.cachedAmp(cfg, dirs)
	if err == nil {
		return binary, true, nil
	}
	if path, pathErr := ownAmp(cfg); pathErr != nil || path != "" || fault.CodeOf(err) != fault.BootstrapFailed {
		return binary, false, err
	}
	in, err := a.installer(cfg, dirs)
	if err != nil {
		return binary, false, err
	}
	_, err = in.List()
	return binary, false, err
}

// probe asks a build what it can do: in a sandbox without network, in an empty workspace.
func (a *app) probe(ctx context.Context, cfg *config.Config, dirs config.Dirs, binary bootstrap.Binary) (*amp.Capabilities, error) {
	scratch, err := os.MkdirTemp("", "sesame-probe-*")
	if err != nil {
		return nil, fmt.Errorf("make a workspace to start amp in: %w", err)
	}
	defer os.RemoveAll(scratch)
	policy, err := a.newPolicy(cfg, dirs, resolved(scratch))
	if err != nil {
		return nil, err
	}
	if root := programRoot(binary.Path, policy); root != "" {
		policy.AllowRead = append(policy.AllowRead, root)
	}
	// It reads its own help: there is nothing for it to write.
	policy.AllowWrite = nil
	t := &turn{app: a, config: cfg, dirs: dirs, policy: policy}
	return t.prober().Probe(ctx, binary.Path)
}
