package cmd

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Who asked for JSON gets one object, in whatever way the command line is wrong and wherever the wish was said.
func TestUsageErrorsAsJSON(t *testing.T) {
	wish := "output: json\n"
	tests := map[string]struct {
		args   []string
		file   string // the user's configuration
		output string // SESAME_OUTPUT
	}{
		"before the slip":          {args: []string{"run", "-o", "json", "--bogus", "x"}},
		"behind the slip":          {args: []string{"run", "--bogus", "-o", "json", "x"}},
		"together with others":     {args: []string{"run", "-qo", "json", "--bogus", "x"}},
		"in one word":              {args: []string{"run", "-qvojson", "--bogus"}},
		"behind an equals sign":    {args: []string{"continue", "--bogus", "--output=json"}},
		"behind a value":           {args: []string{"run", "--bogus", "-m", "x", "-O", "f", "-o", "json"}},
		"before a dash":            {args: []string{"run", "-o", "json", "-x and so on"}},
		"before a missing value":   {args: []string{"run", "-o", "json", "--mode"}},
		"in the environment":       {args: []string{"run", "--bogus"}, output: "json"},
		"in the file":              {args: []string{"run", "--bogus"}, file: wish},
		"in a file with an error":  {args: []string{"run", "x"}, file: wish + "mdoe: x\n"},
		"in the file of --config":  {args: []string{"run", "--config", "FILE", "--bogus"}, file: wish},
		"in the file, no such -C":  {args: []string{"run", "-C", "/nowhere/at/all", "x"}, file: wish},
		"empty --session":          {args: []string{"continue", "-o", "json", "--session", "", "x"}},
		"empty --prompt-file":      {args: []string{"run", "-o", "json", "--prompt-file", ""}},
		"empty -C":                 {args: []string{"run", "-o", "json", "-C", "", "x"}},
		"empty --config":           {args: []string{"run", "-o", "json", "--config=", "x"}},
		"the value of another one": {args: []string{"run", "-o", "json", "--timeout", "soon", "x"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.in.WriteString("never to be sent")
			if test.output != "" {
				w.env["SESAME_OUTPUT"] = test.output
			}
			file := filepath.Join(w.home, ".config/sesame/config.yaml")
			for i, arg := range test.args {
				if arg == "FILE" {
					file = filepath.Join(w.home, "other.yaml")
					test.args[i] = file
				}
			}
			if test.file != "" {
				w.write(t, file, test.file)
			}
			if code := w.run(t, test.args...); code != 2 {
				t.Errorf("exit %d: %s", code, w.errOut)
			}
			dec := json.NewDecoder(bytes.NewReader(w.out.Bytes()))
			dec.DisallowUnknownFields()
			var r Report
			if err := dec.Decode(&r); err != nil {
				t.Fatalf("%v in %q", err, w.out)
			}
			if dec.More() || r.Status != StatusError || r.Error == nil || r.Error.Code != fault.Usage {
				t.Errorf("got %s", w.out)
			}
		})
	}
	t.Run("another format", func(t *testing.T) {
		w := newWorld(t)
		w.write(t, filepath.Join(w.home, ".config/sesame/config.yaml"), wish)
		if code := w.run(t, "run", "-o", "text", "--bogus"); code != 2 || w.out.Len() > 0 {
			t.Errorf("exit %d, printed %s", code, w.out)
		}
	})
}

// The hint that names a check of doctor is for what doctor can find: not a slip on the command line,
// and with the same workspace and configuration.
func TestHintNamesDoctorsFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--timeout", "soon"},
		{"--mode", "-x"},
		{"--allow-host", "https://a.example"},
		{"--allow-read", "/nowhere/at/all"},
		{"--pass-env", "A B"},
		{"--profile", "loose"},
		{"--mcp-config", "/nowhere/at/all"},
	} {
		w := newWorld(t)
		w.env["AMP_API_KEY"] = goodKey
		if code := w.run(t, append(append([]string{"run"}, args...), "x")...); code != 2 || strings.Contains(w.errOut.String(), "doctor") || !strings.Contains(w.errOut.String(), args[0]) {
			t.Errorf("%q: exit %d: %s", args, code, w.errOut)
		}
	}

	w := newWorld(t)
	w.env["SESAME_TIMEOUT"] = "soon"
	w.run(t, "run", "x")
	if !strings.Contains(w.errOut.String(), "hint: `sesame doctor --only config.files` looks into it") {
		t.Error(w.errOut)
	}

	// As it is printed, doctor finds what was wrong.
	for _, broken := range []string{"mdoe: x\n", "output: xml\n"} {
		w = newWorld(t)
		file := w.write(t, filepath.Join(w.home, "it's mine.yaml"), broken)
		work := filepath.Join(w.home, "project")
		if err := os.Mkdir(work, 0o700); err != nil {
			t.Fatal(err)
		}
		w.run(t, "run", "-C", work, "--config", file, "x")
		want := "`sesame doctor -C " + work + " --config '" + strings.ReplaceAll(file, "'", `'\''`) + "' --only config.files` looks into it"
		if !strings.Contains(w.errOut.String(), want) {
			t.Errorf("no %s in %s", want, w.errOut)
		}
		w.errOut.Reset()
		w.out.Reset()
		if code := w.run(t, "doctor", "-C", work, "--config", file, "--only", "config.files"); code != 1 {
			t.Errorf("doctor: exit %d: %s", code, w.out)
		}
	}
}

func TestUnknownFlagBeforeTheCommand(t *testing.T) {
	for _, args := range [][]string{{"--bogus", "run", "x"}, {"-o", "json", "--bogus"}} {
		w := newWorld(t)
		if code := w.run(t, args...); code != 2 || strings.Contains(w.errOut.String(), "unknown command") || !strings.Contains(w.errOut.String(), "flag") {
			t.Errorf("%q: exit %d: %s", args, code, w.errOut)
		}
	}
	for _, args := range [][]string{{"rnu", "--mode", "x"}, {"-qv", "-C", "d", "rnu", "--mode", "x"}, {"-Cd", "--config=f", "--quiet", "rnu", "-m", "x"}} {
		w := newWorld(t)
		if code := w.run(t, args...); code != 2 || !strings.Contains(w.errOut.String(), "unknown command \"rnu\"") {
			t.Errorf("%q: exit %d: %s", args, code, w.errOut)
		}
	}
}

func TestUnknownCheckNamesGroups(t *testing.T) {
	w := newWorld(t)
	if code := w.run(t, "doctor", "--only", "nothing-like-it"); code != 2 || !strings.Contains(w.errOut.String(), "the groups config, ") || len(w.errOut.String()) > 300 {
		t.Errorf("exit %d: %s", code, w.errOut)
	}
	w.errOut.Reset()
	if w.run(t, "doctor", "--only", "sandbx"); !strings.Contains(w.errOut.String(), "did you mean sandbox?") {
		t.Error(w.errOut)
	}
}

// What Amp would end with is refused before there is a session.
func TestServersThatAreNone(t *testing.T) {
	tests := map[string]struct{ value, want string }{
		"missing":         {"/nowhere/at/all", "no such file"},
		"directory":       {".", "not a regular file"},
		"empty":           {"FILE:", "unexpected end of JSON"},
		"half":            {`FILE:{"a":`, "unexpected end of JSON"},
		"comment":         {`FILE:{"a":{}} // b`, "invalid character '/'"},
		"list":            {"FILE:[]", "it is no object"},
		"null":            {"FILE:null", "it is no object"},
		"too large":       {"FILE:{" + strings.Repeat(" ", maxServers) + "}", "larger than 1 MiB"},
		"on the line":     {"{bad", "invalid character 'b'"},
		"more on the end": {`{"a":{}} {}`, "invalid character '{'"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.env["AMP_API_KEY"] = goodKey
			if text, ok := strings.CutPrefix(test.value, "FILE:"); ok {
				test.value = w.write(t, filepath.Join(w.home, "servers.json"), text)
			}
			if code := w.run(t, "run", "--mcp-config", test.value, "x"); code != 2 || !strings.Contains(w.errOut.String(), "sesame: --mcp-config: ") || !strings.Contains(w.errOut.String(), test.want) {
				t.Errorf("exit %d: %s", code, w.errOut)
			}
			if _, err := os.Stat(filepath.Join(w.home, ".local")); err == nil {
				t.Error("something was kept")
			}
		})
	}
}

// A command line has the command made that it names, and all where it might mean another one.
func TestOnlyTheCommandThatIsNamed(t *testing.T) {
	names := func(args ...string) (names []string) {
		w := newWorld(t)
		w.app.args = args
		for _, c := range newRootCmd(w.app).Commands() {
			names = append(names, c.Name())
		}
		return names
	}
	all := names()
	if len(all) < 10 {
		t.Fatalf("all commands: %q", all)
	}
	for _, name := range all {
		want := []string{name}
		if name == manName {
			want = all
		}
		for _, args := range [][]string{{name}, {"-C", "run", "-q", name, "run"}, {"--config=x", name, "--help"}} {
			if got := names(args...); !slices.Equal(got, want) {
				t.Errorf("%q: %q", args, got)
			}
		}
	}
	for _, args := range [][]string{{"help", "run"}, {"__complete", "run"}, {"rnu"}, {"--mode", "run"}, {"--help"}} {
		if got := names(args...); !slices.Equal(got, all) {
			t.Errorf("%q: only %q", args, got)
		}
	}
}
