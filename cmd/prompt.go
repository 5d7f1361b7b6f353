package cmd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// maxPrompt is the largest prompt in bytes. No model reads as much; it keeps a slip
// such as `< /dev/zero` from filling the memory.
const maxPrompt = 32 << 20

// prompt puts the prompt together: the arguments, or the file, or standard input when
// it is no terminal; a last argument "-" appends standard input, which is otherwise
// never touched. Every error is a fault.Usage, but for the end of the context.
func (a *app) prompt(ctx context.Context, args []string, file string) (string, error) {
	a.awaitWatch() // whoever sends the prompt may send a signal next
	appended := len(args) > 0 && args[len(args)-1] == "-"
	if appended {
		args = args[:len(args)-1]
	}
	var parts []string
	switch {
	case len(args) > 0 && file != "":
		return "", fault.New(fault.Usage, "a prompt as arguments and --prompt-file: give one of them")
	case len(args) > 0:
		parts = append(parts, strings.Join(args, " "))
	case file == "-":
		appended = true
	case file != "":
		text, err := a.promptFile(ctx, file)
		if err != nil {
			return "", err
		}
		parts = append(parts, text)
	case !appended && a.io.InTerminal:
		return "", fault.New(fault.Usage, "no prompt").
			Hint("give it as arguments, with --prompt-file, or on standard input")
	default:
		appended = true
	}
	if appended {
		text, err := readPrompt(ctx, a.io.In, "standard input")
		if err != nil {
			return "", err
		}
		parts = append(parts, text)
	}
	return checkPrompt(parts)
}

// readsInput tells whether prompt would read standard input for these.
func readsInput(args []string, file string) bool {
	return len(args) == 0 && file == "" || file == "-" || len(args) > 0 && args[len(args)-1] == "-"
}

func (a *app) promptFile(ctx context.Context, file string) (string, error) {
	path, err := a.absolute(file)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fault.New(fault.Usage, "--prompt-file: %w", err)
	case info.IsDir():
		return "", fault.New(fault.Usage, "--prompt-file: %s is a directory", file)
	}
	// Opening waits where the file is a FIFO without a writer: so that is inside, too.
	return readPrompt(ctx, &lazyFile{path: path}, "--prompt-file "+file)
}

// lazyFile is opened by the first read and closed by the last.
type lazyFile struct {
	path string
	file *os.File
}

func (l *lazyFile) Read(p []byte) (n int, err error) {
	if l.file == nil {
		if l.file, err = os.Open(l.path); err != nil {
			return 0, err
		}
	}
	n, err = l.file.Read(p)
	if err != nil {
		l.file.Close()
	}
	return n, err
}

// readPrompt reads all of r, or stops waiting for it when the context ends.
func readPrompt(ctx context.Context, r io.Reader, name string) (string, error) {
	data, err := readAll(ctx, r, maxPrompt)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", fmt.Errorf("read the prompt from %s: %w", name, err)
	case err != nil:
		return "", fault.New(fault.Usage, "read the prompt from %s: %w", name, err)
	case len(data) > maxPrompt:
		return "", tooLong(name)
	}
	return string(bytes.TrimPrefix(data, []byte("\ufeff"))), nil
}

func tooLong(name string) error {
	return fault.New(fault.Usage, "the prompt from %s is longer than %d MiB", name, maxPrompt>>20).
		Hint("put it into a file of the workspace and let the prompt name the file")
}

// checkPrompt joins the parts with an empty line and refuses what is no text.
func checkPrompt(parts []string) (string, error) {
	var filled []string
	for _, part := range parts {
		switch {
		case strings.ContainsRune(part, 0):
			return "", fault.New(fault.Usage, "the prompt has a NUL byte in it (at byte %d)", strings.IndexByte(part, 0))
		case !utf8.ValidString(part):
			return "", fault.New(fault.Usage, "the prompt is not valid UTF-8 (at byte %d)", invalidAt(part))
		case strings.TrimSpace(part) != "":
			filled = append(filled, strings.TrimRight(part, "\r\n"))
		}
	}
	prompt := strings.Join(filled, "\n\n")
	switch {
	case prompt == "":
		return "", fault.New(fault.Usage, "the prompt is empty").
			Hint("give it as arguments, with --prompt-file, or on standard input")
	case len(prompt) > maxPrompt:
		return "", tooLong("all its parts")
	}
	return prompt, nil
}

func invalidAt(s string) int {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(s)
}
