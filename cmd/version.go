package cmd

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

type versionOptions struct {
	io    *IOStreams
	build build
	json  bool
}

// build is what this binary was made of.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"` // "" when it was built outside of a repository
	Date     string `json:"date"`   // of the commit, RFC 3339
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readBuild asks the toolchain's own stamp, so that `go install` and releases need
// no linker flags to agree.
func readBuild() build {
	b := build{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = strings.TrimPrefix(v, "v")
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func newVersionCmd(a *app, runF func(*versionOptions) error) *cobra.Command {
	opts := &versionOptions{io: a.io}
	if runF == nil {
		runF = versionRun
	}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			opts.build = readBuild()
			return runF(opts)
		},
	}
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	return cmd
}

func versionRun(o *versionOptions) error {
	if o.json {
		return printJSON(o.io.Out, o.build)
	}
	commit := o.build.Commit
	if commit == "" {
		commit = "unknown"
	}
	_, err := fmt.Fprintf(o.io.Out, "sesame %s (commit %s, %s, %s)\n",
		o.build.Version, commit[:min(12, len(commit))], o.build.Go, o.build.Platform)
	return err
}
