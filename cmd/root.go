package cmd

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "sesame",
		Short: "Run the Amp coding agent unattended, in a sandbox",
		Long: "Sesame runs Sourcegraph's Amp coding agent unattended: it fetches and caches Amp, hands it\n" +
			"a key, puts it in an OS sandbox, and keeps the session so that it can go on.",
		Example: "  sesame login\n" +
			"  sesame run \"fix the failing test\"\n" +
			"  git diff | sesame run \"review this\" -\n" +
			"  sesame continue \"now write the changelog\"",
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.io.In)
	root.SetOut(a.io.Out)
	root.SetErr(a.io.ErrOut)
	a.globalFlags(root.PersistentFlags())
	root.SetFlagErrorFunc(a.flagError)
	root.SetHelpCommand(newHelpCmd())
	root.AddCommand(commands(a)...)
	return root
}

// commands are all there are, or the one that the command line names: with its flags, making the others takes longer than
// reading the command line.
func commands(a *app) []*cobra.Command {
	all := []struct {
		name string
		make func() *cobra.Command
	}{
		{"run", func() *cobra.Command { return newRunCmd(a, nil) }},
		{"continue", func() *cobra.Command { return newContinueCmd(a, nil) }},
		{"login", func() *cobra.Command { return newLoginCmd(a, nil) }},
		{"logout", func() *cobra.Command { return newLogoutCmd(a, nil) }},
		{"doctor", func() *cobra.Command { return newDoctorCmd(a, nil) }},
		{"sessions", func() *cobra.Command { return newSessionsCmd(a, nil) }},
		{"logs", func() *cobra.Command { return newLogsCmd(a, nil) }},
		{"amp", func() *cobra.Command { return newAmpCmd(a, nil) }},
		{"sandbox", func() *cobra.Command { return newSandboxCmd(a, nil) }},
		{"modes", func() *cobra.Command { return newModesCmd(a, nil) }},
		{"completion", func() *cobra.Command { return newCompletionCmd(a) }},
		{"version", func() *cobra.Command { return newVersionCmd(a, nil) }},
		{manName, func() *cobra.Command { return newManCmd(a) }},
	}
	named := firstWord(a.args)
	var made []*cobra.Command
	for _, c := range all {
		if c.name == named && named != manName { // the manual is about all of them
			return []*cobra.Command{c.make()}
		}
	}
	for _, c := range all {
		made = append(made, c.make())
	}
	return made
}

func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil || topic == cmd.Root() && len(rest) > 0 {
				return unknownCommand(cmd.Root(), args[0])
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		},
	}
}

// group makes a command that only has others below it.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return fault.New(fault.Usage, "%s needs a command", cmd.CommandPath()).
			Hint("see `%s --help`", cmd.CommandPath())
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	return cmd
}

func unknownCommand(parent *cobra.Command, name string) error {
	err := fault.New(fault.Usage, "unknown command %q", name)
	var known []string
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() {
			known = append(known, c.Name())
		}
	}
	if near := config.Nearest(name, known); near != "" {
		return err.Hint("did you mean `%s %s`?", parent.CommandPath(), near)
	}
	return err.Hint("see `%s --help`", parent.CommandPath())
}

// flagError gives cobra's words about flags a code and advice.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	// `sesame rnu --mode x`: the root is asked about --mode, but the slip is elsewhere.
	if name := firstWord(a.args); !cmd.HasParent() && name != "" {
		return unknownCommand(cmd, name)
	}
	fail := fault.New(fault.Usage, "%w", err)
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if near := nearestFlag(cmd, unknown.GetSpecifiedName()); near != "" {
			fail = fail.Hint("did you mean --%s?", near)
		}
		if cmd.Annotations[reports] != "" {
			fail = fail.Hint("a prompt that begins with a dash goes behind `--`")
		}
	}
	if cmd.Annotations[reports] != "" && a.report == nil {
		a.report = newReport()
	}
	return fail.Hint("see `%s --help`", cmd.CommandPath())
}

// firstWord is the first argument that is neither a global flag nor the value of one; "" where
// another flag comes first, since what follows may be its value.
func firstWord(args []string) string {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "-C" || arg == "--cd" || arg == "--config":
			i++
		case strings.HasPrefix(arg, "-C"), strings.HasPrefix(arg, "--cd="), strings.HasPrefix(arg, "--config="):
		case strings.HasPrefix(arg, "--quiet"), strings.HasPrefix(arg, "--verbose"), strings.Trim(arg, "-qv") == "":
		case strings.HasPrefix(arg, "-"):
			return ""
		default:
			return arg
		}
	}
	return ""
}

func nearestFlag(cmd *cobra.Command, name string) string {
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	return config.Nearest(name, known)
}

// noArgs refuses arguments of a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error { return atMost(0)(cmd, args) }

func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return fault.New(fault.Usage, "%s: one argument too many: %q", cmd.CommandPath(), args[n]).
				Hint("see `%s --help`", cmd.CommandPath())
		}
		return nil
	}
}

func exactlyOne(what string) cobra.PositionalArgs {
	return cobra.MatchAll(atLeastOne(what), atMost(1))
}

func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < 1 {
			return fault.New(fault.Usage, "%s: needs %s", cmd.CommandPath(), what).
				Hint("see `%s --help`", cmd.CommandPath())
		}
		return nil
	}
}
