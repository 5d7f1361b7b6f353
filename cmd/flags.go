package cmd

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// filled is a text that must not be empty: `--session "$ID"` without an ID is a slip, and
// what it would do instead is something else than was meant.
type filled string

func (f *filled) String() string { return string(*f) }
func (f *filled) Type() string   { return "string" }

func (f *filled) Set(value string) error {
	if value == "" {
		return errors.New("must not be empty")
	}
	*f = filled(value)
	return nil
}

// filledText makes a flag for a text that must not be empty.
func filledText(fs *pflag.FlagSet, at *string, name, short, usage string) {
	fs.VarP((*filled)(at), name, short, usage)
}

// texts are the values of a flag that can be repeated. Those of pflag write each flag's default as CSV, which took more of
// a start than all else about flags.
type texts []string

func (l *texts) String() string              { return strings.Join(*l, ",") }
func (l *texts) Type() string                { return "stringArray" } // completion offers such a flag again
func (l *texts) Set(value string) error      { return l.Append(value) }
func (l *texts) Append(value string) error   { *l = append(*l, value); return nil }
func (l *texts) Replace(list []string) error { *l = list; return nil }
func (l *texts) GetSlice() []string          { return *l }

// repeatable makes a flag for a list of texts.
func repeatable(fs *pflag.FlagSet, at *[]string, name, usage string) {
	fs.Var((*texts)(at), name, usage)
}

// keyOf marks a flag with the configuration key that it sets. The value is parsed and
// checked with the configuration, so a flag, a variable and a file say the same.
const keyOf = "sesame_key"

type flagSet struct{ *pflag.FlagSet }

func (f flagSet) mark(name, key string) {
	f.Lookup(name).Annotations = map[string][]string{keyOf: {key}}
}

func (f flagSet) text(name, short, key, usage string) {
	f.StringP(name, short, "", usage)
	f.mark(name, key)
}

func (f flagSet) bool(name, short, key, usage string) {
	f.BoolP(name, short, false, usage)
	f.mark(name, key)
}

func (f flagSet) list(name, key, usage string) {
	repeatable(f.FlagSet, new([]string), name, usage)
	f.mark(name, key)
}

// flagsOf are the given flags that have a key.
func flagsOf(cmd *cobra.Command) []config.Flag {
	var flags []config.Flag
	cmd.Flags().Visit(func(f *pflag.Flag) {
		key := f.Annotations[keyOf]
		if len(key) == 0 {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		flags = append(flags, config.Flag{Name: "--" + f.Name, Key: key[0], Values: values})
	})
	return flags
}

// globalFlags are the flags of every command.
func (a *app) globalFlags(fs *pflag.FlagSet) {
	f := flagSet{fs}
	f.bool("quiet", "q", "quiet", "say nothing but the answer, warnings and errors")
	f.bool("verbose", "v", "verbose", "say more on stderr")
	filledText(fs, &a.cd, "cd", "C", "work in `DIR` instead of the current directory")
	filledText(fs, &a.configFile, "config", "", "read `FILE` instead of the user's configuration file")
}

// policyFlags are the flags that shape the sandbox.
func policyFlags(cmd *cobra.Command) {
	f := flagSet{cmd.Flags()}
	f.list("allow-host", "sandbox.allow-hosts", "let the sandbox reach `HOST[:PORT]` (repeatable; *.example.com for all below it)")
	f.list("allow-read", "sandbox.allow-read", "let the sandbox read `PATH` (repeatable)")
	f.list("allow-write", "sandbox.allow-write", "let the sandbox write `PATH` (repeatable)")
	f.list("deny-read", "sandbox.deny-read", "hide `PATH` from the sandbox (repeatable)")
	f.list("pass-env", "sandbox.pass-env", "pass the environment variable `NAME` into the sandbox (repeatable)")
	tierFlag(cmd)
	f.text("profile", "", "sandbox.profile", "show as much of the system as `PROFILE`: standard or strict")
	f.bool("expose-key", "", "sandbox.expose-key", "put the real key into the sandbox")
	choices(cmd, "profile", "standard", "strict")
}

// tierFlag alone is for commands that start Amp only to ask it something.
func tierFlag(cmd *cobra.Command) {
	flagSet{cmd.Flags()}.text("sandbox", "", "sandbox.tier", "hold it with `TIER`: auto, namespaces, landlock, seatbelt or off")
	choices(cmd, "sandbox", "auto", "namespaces", "landlock", "seatbelt", "off")
}

// binaryFlags say which build of Amp is meant.
func binaryFlags(cmd *cobra.Command) {
	f := flagSet{cmd.Flags()}
	f.text("amp-version", "", "amp.version", "use Amp's `VERSION`, or latest")
	f.text("amp-path", "", "amp.path", "use the executable `FILE` as Amp")
}

// turnFlags are the flags of run and continue.
func turnFlags(cmd *cobra.Command) {
	f := flagSet{cmd.Flags()}
	f.text("mode", "m", "mode", "Amp's `MODE` (see sesame modes)")
	f.text("output-file", "O", "output-file", "also write the last message to `FILE`")
	f.text("timeout", "", "timeout", "end the turn after `DURATION`, such as 90s or 10m")
	f.list("label", "labels", "give the thread the label `LABEL` (repeatable)")
	f.bool("show-thinking", "", "show-thinking", "show the model's thinking on stderr")
	f.list("amp-arg", "amp.args", "hand `ARGUMENT` to Amp (repeatable)")
	f.text("mcp-config", "", "amp.mcp-config", "hand `FILE-OR-JSON` with MCP servers to Amp")
	choices(cmd, "mode", "smart", "rush", "deep", "large", "free")
	outputFlag(cmd, string(config.Text), string(config.JSON), string(config.StreamJSON))
	binaryFlags(cmd)
	policyFlags(cmd)
}

// outputFlag is -o, with the formats that the command knows.
func outputFlag(cmd *cobra.Command, formats ...string) {
	last := len(formats) - 1
	flagSet{cmd.Flags()}.text("output", "o", "output", "print the answer as `FORMAT`: "+strings.Join(formats[:last], ", ")+" or "+formats[last])
	choices(cmd, "output", formats...)
}

// choices are what the shell completes a flag's value with.
func choices(cmd *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that does not exist or has choices already: the
	// tests of completion would see it.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// absolute is where a path of the command line points to.
func (a *app) absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	if a.cwd == "" {
		return "", fault.New(fault.Usage, "%s: the current directory is gone", path)
	}
	return filepath.Join(a.cwd, path), nil
}
