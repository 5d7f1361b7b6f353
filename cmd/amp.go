package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type ampOptions struct {
	app     *app
	cmd     *cobra.Command
	action  string // install, path, list, verify, prune, version
	version string // install: what to fetch; "" for the configured one
	json    bool
}

func newAmpCmd(a *app, runF func(context.Context, *ampOptions) error) *cobra.Command {
	opts := &ampOptions{app: a}
	if runF == nil {
		runF = ampRun
	}
	sub := func(use, short string, args cobra.PositionalArgs) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: args,
			RunE: func(cmd *cobra.Command, args []string) error {
				opts.cmd, opts.action = cmd, cmd.Name()
				if len(args) > 0 {
					opts.version = args[0]
				}
				return runF(cmd.Context(), opts)
			},
		}
	}
	path := sub("path", "Print the path of the Amp that would run", noArgs)
	version := sub("version", "Print the version of the Amp that would run", noArgs)
	binaryFlags(path)
	binaryFlags(version)
	list := sub("list", "List the cached versions", noArgs)
	list.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	cmd := group(&cobra.Command{Use: "amp", Short: "Fetch and look after Amp's binaries"})
	cmd.AddCommand(
		sub("install [VERSION|latest]", "Fetch Amp into the cache and print its path", atMost(1)),
		path,
		list,
		sub("verify", "Check the cached binaries against their digests", noArgs),
		sub("prune", "Remove cached versions that are not needed", noArgs),
		version,
	)
	return cmd
}

func ampRun(context.Context, *ampOptions) error { return errNotYet }
