package amp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tailscale/hujson"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func settings(t *testing.T, user string, mode ModeChoice) (string, map[string]any) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(path, []byte(user), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := SessionSettings(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != user {
		t.Errorf("the user's file was changed: %s %v", after, err)
	}
	plain, err := hujson.Standardize(append([]byte(nil), data...))
	if err != nil {
		t.Fatalf("made invalid settings: %v\n%s", err, data)
	}
	var got map[string]any
	if err := json.Unmarshal(plain, &got); err != nil {
		t.Fatal(err)
	}
	return string(data), got
}

func TestSettings(t *testing.T) {
	deep := ModeChoice{Mode: "deep", AmpMode: "deep"}
	basic := map[string]any{"amp.updates.mode": "disabled", "amp.dangerouslyAllowAll": true}
	with := func(more map[string]any) map[string]any {
		for k, v := range basic {
			if _, ok := more[k]; !ok {
				more[k] = v
			}
		}
		return more
	}
	for _, tt := range []struct {
		name, user string
		mode       ModeChoice
		want       map[string]any
	}{
		{"empty file", "", ModeChoice{}, basic},
		{"white space", " \n", ModeChoice{}, basic},
		{"empty object", "{}", ModeChoice{}, basic},
		{"byte order mark", "\ufeff{}", ModeChoice{}, basic},
		{"only a comment", "{ // nothing yet\n}", ModeChoice{}, basic},
		{"overwritten", `{"amp.updates.mode":"auto","amp.dangerouslyAllowAll":false}`, ModeChoice{}, basic},
		{"written twice", `{"amp.updates.mode":"auto","amp.updates.mode":"warn"}`, ModeChoice{}, basic},
		{"others stay", `{"amp.network.timeout": 5}`, ModeChoice{}, with(map[string]any{"amp.network.timeout": 5.0})},
		{"deep", `{}`, deep, with(map[string]any{experimentalModes: []any{"deep"}})},
		{"deep by another name", `{}`, ModeChoice{Mode: "deep", AmpMode: "high"}, with(map[string]any{experimentalModes: []any{"deep"}})},
		{"deep beside another", `{"amp.experimental.modes": ["x"]}`, deep, with(map[string]any{experimentalModes: []any{"x", "deep"}})},
		{"deep already", `{"amp.experimental.modes": ["deep", ],}`, deep, with(map[string]any{experimentalModes: []any{"deep"}})},
		{"deep and null", `{"amp.experimental.modes": null}`, deep, with(map[string]any{experimentalModes: []any{"deep"}})},
		{"not deep leaves the list", `{"amp.experimental.modes": ["x"]}`, ModeChoice{Mode: "smart"}, with(map[string]any{experimentalModes: []any{"x"}})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, got := settings(t, tt.user, tt.mode)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s\n%s", diff, text)
			}
		})
	}
}

func TestSettingsKeepComments(t *testing.T) {
	user := `// mine
{
  // why so long
  "amp.network.timeout": 60, /* seconds */
  "amp.tools.disable": ["a", "b",], // trailing commas
  "amp.updates.mode": /* was: warn */ "auto" // the last
}
// the end
`
	text, _ := settings(t, user, ModeChoice{Mode: "deep"})
	want := `// mine
{
  // why so long
  "amp.network.timeout": 60, /* seconds */
  "amp.tools.disable": ["a", "b",], // trailing commas
  "amp.updates.mode": /* was: warn */ "disabled", // the last
  "amp.dangerouslyAllowAll": true,
  "amp.experimental.modes": ["deep"]
}
// the end
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

func TestSettingsRefused(t *testing.T) {
	dir := t.TempDir()
	for name, user := range map[string]string{
		"broken":        "{\n  \"a\": 1,\n  b: 2\n}",
		"not an object": `["a"]`,
		"not a list":    `{"amp.experimental.modes": "deep"}`,
		"an object":     `{"amp.experimental.modes": {}}`,
		"binary":        "\x00\x01",
		"huge":          "{" + strings.Repeat(" ", maxSettings) + "}",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(path, []byte(user), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := SessionSettings(path, ModeChoice{Mode: "deep"})
			if fault.CodeOf(err) != fault.Usage || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want usage naming the file", err)
			}
		})
	}
	if _, err := SessionSettings(dir, ModeChoice{}); fault.CodeOf(err) != fault.Usage {
		t.Errorf("a directory: %v", err)
	}
	_, err := SessionSettings(filepath.Join(dir, "broken"), ModeChoice{})
	if err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("the error does not name the line: %v", err)
	}
}

func TestSettingsWithoutFile(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "none")} {
		data, err := SessionSettings(path, ModeChoice{})
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(data, &got); err != nil || len(got) != 2 {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestUserSettings(t *testing.T) {
	dir := t.TempDir()
	if got := UserSettings(dir); got != "" {
		t.Errorf("found %q in an empty directory", got)
	}
	for _, name := range []string{"settings.jsonc", "settings.json"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := UserSettings(dir); got != path {
			t.Errorf("found %q, want %q", got, path)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add(`{"amp.experimental.modes": ["x"], // c` + "\n" + `"a":{},}`)
	f.Add(`{ /* a */ }`)
	f.Add(`{"a":1 // x` + "\n\n" + `}`)
	f.Fuzz(func(t *testing.T, user string) {
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, []byte(user), 0o600); err != nil {
			t.Fatal(err)
		}
		data, err := SessionSettings(path, ModeChoice{Mode: "deep"})
		if err != nil {
			return
		}
		again := filepath.Join(t.TempDir(), "t")
		if err := os.WriteFile(again, data, 0o600); err != nil {
			t.Fatal(err)
		}
		second, err := SessionSettings(again, ModeChoice{Mode: "deep"})
		if err != nil || !reflect.DeepEqual(data, second) {
			t.Errorf("not stable: %q -> %q -> %q: %v", user, data, second, err)
		}
	})
}
