package cmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const manName = "man"

func newManCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    manName,
		Short:  "Print the manual page",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(a.io.Out, manual(cmd.Root()))
			return err
		},
	}
}

// manual is one page in roff for all commands: `sesame man | man -l -`.
func manual(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH SESAME 1 \"\" \"sesame %s\"\n", roff(readBuild().Version))
	fmt.Fprintf(&b, ".SH NAME\nsesame \\- %s\n", roff(strings.ToLower(root.Short[:1])+root.Short[1:]))
	b.WriteString(".SH SYNOPSIS\n.B sesame\n.I COMMAND\n[flags]\n")
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", roff(root.Long))
	b.WriteString(".SH COMMANDS\n")
	manCommands(&b, root)
	b.WriteString(".SH GLOBAL FLAGS\n")
	manFlags(&b, root.PersistentFlags())
	b.WriteString(".SH EXAMPLES\n.nf\n" + roff(root.Example) + "\n.fi\n")
	b.WriteString(".SH EXIT STATUS\n")
	for _, row := range exitTable() {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", row[0], roff(row[1]))
	}
	return b.String()
}

func manCommands(b *strings.Builder, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		fmt.Fprintf(b, ".SS %s\n", roff(strings.TrimPrefix(c.UseLine(), "sesame ")))
		text := c.Long
		if text == "" {
			text = c.Short
		}
		fmt.Fprintf(b, "%s\n", roff(text))
		manFlags(b, c.LocalNonPersistentFlags())
		manCommands(b, c)
	}
}

func manFlags(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(strings.TrimSpace(name+" "+value)), roff(usage))
	})
}

// roff escapes text: backslashes, dashes that are to be typed, and lines that would
// be taken for requests.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func exitTable() [][2]string {
	return [][2]string{
		{"0", "the turn ended well"},
		{"1", "Amp reports an error for the turn"},
		{"2", "usage or configuration"},
		{"3", "Amp process exited unexpectedly: no result came"},
		{"4", "AMP_API_KEY not configured, or the service rejected the key"},
		{"5", "bootstrap failed: Amp could not be fetched or verified"},
		{"6", "the sandbox asked for cannot be had here"},
		{"7", "the Amp service cannot be reached"},
		{"8", "no such session, ambiguous, or in use"},
		{"124", "the turn took longer than --timeout"},
		{"130, 143", "interrupted, terminated"},
	}
}
