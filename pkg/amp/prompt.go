package amp

import (
	"strings"
	"unicode/utf8"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// MaxPrompt is the longest prompt in bytes that is handed to Amp. Builds to May
// cut a longer one off without a word, later ones refuse it.
const MaxPrompt = 1 << 20

// CheckPrompt refuses, as usage, a prompt that no model could be given.
func CheckPrompt(prompt string) error {
	switch {
	case strings.TrimSpace(prompt) == "":
		return fault.New(fault.Usage, "the prompt is empty").
			Hint("give it as an argument, with --prompt-file, or on standard input")
	case len(prompt) > MaxPrompt:
		return fault.New(fault.Usage, "the prompt has %d bytes, more than the %d that are allowed", len(prompt), MaxPrompt).
			Hint("put the text in a file of the workspace and name the file in the prompt")
	case strings.ContainsRune(prompt, 0):
		return fault.New(fault.Usage, "the prompt contains a NUL byte").
			Hint("binary data cannot be a prompt; put it in a file of the workspace")
	case !utf8.ValidString(prompt):
		return fault.New(fault.Usage, "the prompt is not valid UTF-8").
			Hint("convert it, for example with iconv -t utf-8")
	}
	return nil
}
