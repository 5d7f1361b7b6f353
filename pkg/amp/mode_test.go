package amp

import (
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// checking and unchecking are builds of the two generations.
func checking(modes ...string) *Capabilities {
	return &Capabilities{
		Version: "0.0.1-gaaaaaa", Flags: []string{optExecute, optMode, optStream},
		Modes: modes, ModesChecked: true, ModesAccepted: append([]string{"hidden"}, modes...),
	}
}

func unchecking(modes ...string) *Capabilities {
	return &Capabilities{Version: "0.0.2-gbbbbbb", Flags: []string{optExecute, optMode, optStream}, Modes: modes}
}

func TestTranslate(t *testing.T) {
	feb, jul := checking("deep", "free", "rush", "smart"), unchecking("low", "medium", "high", "ultra")
	noModes := &Capabilities{Flags: []string{optExecute}}
	overrides := map[string]string{"smart": "ultra", "mine": "plugin mode", "bad": "--x", "same": "same"}
	for _, tt := range []struct {
		name, mode string
		build      *Capabilities
		overrides  map[string]string
		want       string
		code       fault.Code
		notice     string // part of it; "" means none
	}{
		{"default", "", feb, nil, "smart", "", ""},
		{"listed", "deep", feb, nil, "deep", "", ""},
		{"hidden but accepted", "hidden", feb, nil, "hidden", "", ""},
		{"free where the build knows it is the build's to refuse", "free", feb, nil, "free", "", ""},
		{"unknown to a build that checks", "large", feb, nil, "", fault.ModeUnavailable, ""},
		{"new name on an old build", "medium", feb, nil, "", fault.ModeUnavailable, ""},
		{"smart today", "smart", jul, nil, "medium", "", "has no mode smart: using medium"},
		{"default today", "", jul, nil, "medium", "", "using medium"},
		{"rush today", "rush", jul, nil, "low", "", "using low"},
		{"deep today", "deep", jul, nil, "high", "", "using high"},
		{"large today", "large", jul, nil, "ultra", "", "using ultra"},
		{"today's own name", "ultra", jul, nil, "ultra", "", ""},
		{"free today", "free", jul, nil, "", fault.ModeUnavailable, ""},
		{"unknown passes on", "brand-new", jul, nil, "brand-new", "", "leaving it to the service"},
		{"configured", "smart", jul, overrides, "ultra", "", "smart is ultra, by the configuration"},
		{"configured and unknown", "mine", jul, overrides, "plugin mode", "", "leaving it to the service"},
		{"configured and refused", "mine", feb, overrides, "", fault.ModeUnavailable, ""},
		{"configured to an option", "bad", jul, overrides, "", fault.Usage, ""},
		{"an option", "--settings-file", jul, nil, "", fault.Usage, ""},
		{"a control character", "a\x1b[2J", jul, nil, "", fault.Usage, ""},
		{"spaces around", " smart", jul, nil, "", fault.Usage, ""},
		{"endless", strings.Repeat("m", 101), jul, nil, "", fault.Usage, ""},
		{"no modes at all, default", "smart", noModes, nil, "", "", ""},
		{"no modes at all", "deep", noModes, nil, "", fault.ModeUnavailable, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Translate(tt.mode, tt.build, tt.overrides)
			if fault.CodeOf(err) != tt.code {
				t.Fatalf("error %v, want code %q", err, tt.code)
			}
			if got.AmpMode != tt.want {
				t.Errorf("mode %q, want %q", got.AmpMode, tt.want)
			}
			if (tt.notice == "") != (got.Notice == "") || !strings.Contains(got.Notice, tt.notice) {
				t.Errorf("notice %q, want %q in it", got.Notice, tt.notice)
			}
		})
	}
}

func TestUnavailableModeNamesWhatIsThere(t *testing.T) {
	_, err := Translate("large", checking("deep", "rush", "smart"), nil)
	if hints := strings.Join(fault.HintsOf(err), "\n"); !strings.Contains(hints, "deep, rush, smart") {
		t.Errorf("hints do not name the modes: %s", hints)
	}
}

func TestModeTable(t *testing.T) {
	rows := ModeTable(unchecking("low", "medium", "high", "ultra"), map[string]string{"quick": "low"})
	got := map[string]ModeRow{}
	for _, r := range rows {
		got[r.Name] = r
	}
	if r := got["smart"]; r.AmpMode != "medium" || r.Model != "Claude Opus 4.6" || !r.Available {
		t.Errorf("smart: %+v", r)
	}
	if r := got["free"]; r.Available || r.AmpMode != "" || r.Notice == "" {
		t.Errorf("free: %+v", r)
	}
	if r := got["quick"]; r.AmpMode != "low" {
		t.Errorf("quick: %+v", r)
	}
	if r := got["ultra"]; !r.Available {
		t.Errorf("ultra: %+v", r)
	}
	if rows := ModeTable(nil, nil); len(rows) != len(Modes()) || rows[0].AmpMode != "" {
		t.Errorf("without a build: %+v", rows)
	}
}
