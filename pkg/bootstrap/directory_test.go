package bootstrap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// mirror makes a directory with the files.
func mirror(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDirectory(t *testing.T) {
	data := program(newVersion)
	sum := []byte(sha256Hex(data))
	tests := map[string]struct {
		files map[string][]byte
		want  string // version; "" is a failure
		words string
	}{
		"raw": {
			files: map[string][]byte{"cli-version.txt": []byte(newVersion + "\n"), newVersion + "/amp-linux-x64": data, newVersion + "/linux-x64-amp.sha256": sum},
			want:  newVersion,
		},
		"compressed, without cli-version.txt": {
			files: map[string][]byte{
				newVersion + "/amp-linux-x64.gz": gz(t, data), newVersion + "/linux-x64-amp.sha256": sum,
				oldVersion + "/amp-linux-x64": data, "0.0.1999999999-gabc/amp-darwin-x64": data, "lost+found/x": nil,
			},
			want: newVersion,
		},
		"cli-version.txt goes before what is there": {
			files: map[string][]byte{
				"cli-version.txt": []byte(oldVersion), newVersion + "/amp-linux-x64": data,
				oldVersion + "/amp-linux-x64": data, oldVersion + "/linux-x64-amp.sha256": sum,
			},
			want: oldVersion,
		},
		"wrong digest": {
			files: map[string][]byte{newVersion + "/amp-linux-x64": []byte("x"), newVersion + "/linux-x64-amp.sha256": sum},
			words: "wrong sha256",
		},
		"no digest":          {files: map[string][]byte{newVersion + "/amp-linux-x64": data}, words: "no checksum"},
		"digest is nonsense": {files: map[string][]byte{newVersion + "/amp-linux-x64": data, newVersion + "/linux-x64-amp.sha256": []byte("?")}, words: "no sha256"},
		"binary missing":     {files: map[string][]byte{"cli-version.txt": []byte(newVersion)}, words: "no source has amp"},
		"binary is a directory": {
			files: map[string][]byte{"cli-version.txt": []byte(newVersion), newVersion + "/amp-linux-x64/x": nil}, words: "not a regular file",
		},
		"empty":                       {words: "no version of amp for linux-x64"},
		"cli-version.txt is nonsense": {files: map[string][]byte{"cli-version.txt": []byte("../..")}, words: "no version"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := mirror(t, test.files)
			cache := filepath.Join(t.TempDir(), "amp")
			in := installer(t, bootstrap.Options{Dir: cache, Sources: sources(t, bootstrap.Network{}, dir)})
			b, err := in.Ensure(t.Context(), "latest")
			if test.want != "" {
				if err != nil || b.Version != test.want || b.Source != dir {
					t.Fatalf("%+v, %v", b, err)
				}
				wantFile(t, b.Path, data)
				return
			}
			wantFault(t, err, fault.BootstrapFailed, test.words, dir)
			wantEmpty(t, cache)
			if hints := strings.Join(fault.HintsOf(err), "\n"); strings.Contains(hints, "internet") {
				t.Errorf("a directory needs no internet: %s", hints)
			}
		})
	}
	in := installer(t, bootstrap.Options{Sources: sources(t, bootstrap.Network{}, filepath.Join(t.TempDir(), "gone"))})
	_, err := in.Ensure(t.Context(), "latest")
	wantFault(t, err, fault.BootstrapFailed, "gone")
}

func TestParseSources(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	n := bootstrap.Network{Home: "/home/somebody"}
	tests := map[string]string{ // value: name, or the words of an error after "!"
		"static":                        "static",
		" storage ":                     "storage",
		"npm":                           "npm",
		"https://mirror.example/a/":     "https://mirror.example/a",
		"http://mirror.example":         "http://mirror.example",
		"HTTPS://mirror.example/x":      "https://mirror.example/x",
		"https://u:p@mirror.example/x":  "https://mirror.example/x",
		"/mnt/amp":                      "/mnt/amp",
		"./amp":                         filepath.Join(wd, "amp"),
		"~/amp":                         "/home/somebody/amp",
		"":                              "!unknown source",
		"amp":                           "!unknown source",
		"ftp://mirror.example":          "!unknown source",
		"https://":                      "!no base",
		"https://m.example/?token=x":    "!no base",
		"https://m.example/%zz?token=x": "!no base",
	}
	for value, want := range tests {
		list, err := bootstrap.ParseSources([]string{value}, n)
		if words, bad := strings.CutPrefix(want, "!"); bad {
			wantFault(t, err, fault.Usage, "amp.sources", words)
			if strings.Contains(err.Error(), "token=x") {
				t.Errorf("the message has the query: %v", err)
			}
		} else if err != nil || len(list) != 1 || list[0].Name() != want {
			t.Errorf("%q: %v, %v", value, list, err)
		}
	}
	list, err := bootstrap.ParseSources(nil, n)
	if err != nil || len(list) != 3 || list[0].Name() != "static" || list[1].Name() != "storage" || list[2].Name() != "npm" {
		t.Errorf("%v, %v", list, err)
	}
}
