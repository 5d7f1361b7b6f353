package cmd

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func newCompletionCmd(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a completion script for bash, zsh, fish or powershell",
		Example: "  source <(sesame completion bash)\n" +
			"  sesame completion fish > ~/.config/fish/completions/sesame.fish",
		ValidArgs: shells,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := exactlyOne("the name of a shell: "+strings.Join(shells, ", "))(cmd, args); err != nil {
				return err
			}
			if !slices.Contains(shells, args[0]) {
				return fault.New(fault.Usage, "no completion for %q", args[0]).Hint("there is one for %s", strings.Join(shells, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.io.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.io.Out)
			case "fish":
				return root.GenFishCompletion(a.io.Out, true)
			default:
				return root.GenPowerShellCompletionWithDesc(a.io.Out)
			}
		},
	}
}
