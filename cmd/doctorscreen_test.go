package cmd

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "doctor", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// firstLine is this build's own, which no golden file can know.
var firstLine = regexp.MustCompile(`(?m)^sesame \S+ on \S+$`)

func outcomes() []check.Outcome {
	made := func(id, group, title string, ms int, r check.Result) check.Outcome {
		return check.Outcome{
			Check: check.Check{ID: id, Group: group, Title: title}, Result: r, Duration: time.Duration(ms) * time.Millisecond,
		}
	}
	tier := check.Failed(errors.New("the sandbox cannot be had here: no more user namespaces are allowed")).
		Hint("allow them: `sudo sysctl -w user.max_user_namespaces=15000`",
			"and to keep it so: `echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/90-sesame.conf`")
	tier.Details = []string{"fork/exec /proc/self/exe: no space left on device", "kernel 6.8.0-45-generic (5.12 or newer is needed)"}
	return []check.Outcome{
		made("config.files", "configuration", "settings", 0, check.Passed("/home/u/.config/sesame/config.yaml")),
		made("config.dirs", "configuration", "directories", 1, check.Passed("/home/u/.config/sesame, /home/u/.cache/sesame, /home/u/.local/state/sesame")),
		made("key.accepted", "key", "accepted", 212, check.Failed(fault.New(fault.KeyRejected, "the service at ampcode.com rejected the key").
			Hint("get a valid key at https://ampcode.com/settings and store it with sesame login, or set AMP_API_KEY"))),
		made("service.host", "service", "from this machine", 1512, check.Passed("https://ampcode.com/ answers")),
		made("service.inside", "service", "from the sandbox", 0, check.Skipped("not checked, because sandbox.tier failed")),
		made("amp.cached", "amp", "at hand", 3, check.Warned("Amp is not cached yet: the first turn will fetch it").Hint("run `sesame amp install` to fetch it now")),
		made("sandbox.tier", "sandbox", "tier", 11, tier),
	}
}

// afterFailure is what the doctor finds after a turn that failed.
func afterFailure() []check.Outcome {
	skipped := check.Skipped("not checked, because service.tcp failed")
	made := func(id, group, title string, r check.Result) check.Outcome {
		return check.Outcome{Check: check.Check{ID: id, Group: group, Title: title}, Result: r}
	}
	return lead([]check.Outcome{
		made("config.dirs", "configuration", "directories", check.Warned("loose").Mended("chmod 700 /x", nil)),
		made("service.tcp", "service, from this machine", "connection", check.Failed(fault.New(fault.ServiceUnreachable, "the service at ampcode.com:443 takes no connection: connection refused"))),
		made("service.tls", "service, from this machine", "certificate", skipped),
		made("service.host", "service, from this machine", "answer", skipped),
		made("service.websocket", "service, from this machine", "websocket", skipped),
		made("sessions.last", "the last turn", "last turn", check.Warned("failed 3s ago in /home/u/p: no Amp service at ampcode.com").
			Hint("the likely cause: see service below, or `sesame doctor --only service`")),
	})
}

func TestDoctorScreen(t *testing.T) {
	well := outcomes()[:2]
	tests := []struct {
		file   string
		screen doctorScreen
	}{
		{"wide.golden", doctorScreen{outcomes: outcomes(), style: screenStyle{width: 120, utf8: true}}},
		{"columns80.golden", doctorScreen{outcomes: outcomes(), style: screenStyle{width: 80, utf8: true}}},
		{"color.golden", doctorScreen{outcomes: outcomes(), style: screenStyle{width: 80, utf8: true, color: true}}},
		{"ascii.golden", doctorScreen{outcomes: outcomes(), style: screenStyle{width: 80}}},
		{"verbose.golden", doctorScreen{outcomes: outcomes(), verbose: true, style: screenStyle{width: 80, utf8: true}}},
		{"quiet.golden", doctorScreen{outcomes: outcomes(), quiet: true, style: screenStyle{width: 80, utf8: true}}},
		{"mended.golden", doctorScreen{outcomes: afterFailure(), done: []string{"config.dirs: chmod 700 /home/u/.config/sesame"}, style: screenStyle{width: 80, utf8: true}}},
		{"mendable.golden", doctorScreen{outcomes: afterFailure(), style: screenStyle{width: 80}}},
		{"well.golden", doctorScreen{outcomes: well, style: screenStyle{width: 80, utf8: true}}},
	}
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			w := newWorld(t)
			test.screen.took = 1534 * time.Millisecond
			if err := test.screen.print(w.app); err != nil {
				t.Fatal(err)
			}
			got := firstLine.ReplaceAllString(w.out.String(), "sesame VERSION on PLATFORM")
			golden(t, test.file, got)
			if !test.screen.style.utf8 && strings.ContainsFunc(got, func(r rune) bool { return r > '~' }) {
				t.Error("not all of it is ASCII")
			}
			if test.screen.style.color != strings.Contains(got, "\x1b") {
				t.Error("colour where there is to be none, or none where there is")
			}
			for line := range strings.Lines(got) {
				// What is to be copied stays in one piece, whatever the width.
				if !test.screen.style.color && utf8.RuneCountInString(line) > test.screen.style.width+1 && !strings.Contains(line, "`") {
					t.Errorf("too long: %s", line)
				}
			}
		})
	}
}

// A line that a stranger's text ends up in stays one line.
func TestDoctorScreenOfStrangers(t *testing.T) {
	w := newWorld(t)
	screen := doctorScreen{style: screenStyle{width: 80}, outcomes: []check.Outcome{{
		Check:  check.Check{ID: "a.b", Group: "a", Title: "b"},
		Result: check.Failed(errors.New("bad\n\n[ok] all is well\x1b[1A\r\u202e")),
	}}}
	if err := screen.print(w.app); err != nil {
		t.Fatal(err)
	}
	if want := `  [FAIL] b  bad [ok] all is well\x1b[1A\x0d\x202e` + "\n"; !strings.Contains(w.out.String(), want) {
		t.Errorf("got %s", w.out)
	}
}

func TestScreenStyle(t *testing.T) {
	tests := []struct {
		env      config.Env
		terminal bool
		want     screenStyle
	}{
		{config.Env{}, false, screenStyle{80, false, false}},
		{config.Env{"LANG": "en_US.UTF-8"}, true, screenStyle{80, true, true}},
		{config.Env{"LANG": "C.utf8", "NO_COLOR": "1"}, true, screenStyle{80, false, true}},
		{config.Env{"LANG": "C.UTF-8", "LC_ALL": "C", "TERM": "dumb"}, true, screenStyle{80, false, false}},
		{config.Env{"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, false, screenStyle{80, false, true}},
	}
	for _, test := range tests {
		w := newWorld(t)
		w.env, w.io.OutTerminal = test.env, test.terminal
		if got := w.screenStyle(); got != test.want {
			t.Errorf("%v: got %+v, want %+v", test.env, got, test.want)
		}
	}
	w := newWorld(t)
	w.io.width = func() int { return 300 }
	if got := w.screenStyle().width; got != widest {
		t.Errorf("width %d", got)
	}
}
