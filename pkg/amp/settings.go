package amp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// maxSettings is the size in bytes beyond which a settings file is no settings file.
const maxSettings = 1 << 20

const experimentalModes = "amp.experimental.modes"

// UserSettings finds the user's own settings file in Amp's config directory
// ($XDG_CONFIG_HOME/amp): settings.json, else settings.jsonc, else "".
func UserSettings(dir string) string {
	for _, name := range []string{"settings.json", "settings.jsonc"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path
		}
	}
	return ""
}

// SessionSettings makes the settings file of one session from the user's file,
// which it only reads: comments, trailing commas and everything else in it stay,
// and what an unattended turn needs is put in. A path of "" or of no file starts
// empty. A file that Amp could not read either is the error usage, naming file,
// line and column.
func SessionSettings(userFile string, mode ModeChoice) ([]byte, error) {
	data, err := readSettings(userFile)
	if err != nil {
		return nil, err
	}
	doc, err := hujson.Parse(data)
	if err != nil {
		return nil, settingsFault(userFile, err)
	}
	object, ok := doc.Value.(*hujson.Object)
	if !ok {
		return nil, settingsFault(userFile, errors.New("it is not a JSON object"))
	}
	set(object, "amp.updates.mode", hujson.String("disabled"))
	set(object, "amp.dangerouslyAllowAll", hujson.Bool(true))
	if mode.deep() {
		if err := enableMode(object, ModeDeep); err != nil {
			return nil, settingsFault(userFile, err)
		}
	}
	return doc.Pack(), nil
}

func readSettings(path string) ([]byte, error) {
	empty := []byte("{}\n")
	if path == "" {
		return empty, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, settingsFault(path, err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, settingsFault(path, errors.New("it is not a file"))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err != nil {
		return nil, settingsFault(path, err)
	}
	if len(data) > maxSettings {
		return nil, settingsFault(path, fmt.Errorf("it is larger than %d bytes", maxSettings))
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		return empty, nil
	}
	return data, nil
}

func settingsFault(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "hujson: ")
	e := fault.New(fault.Usage, "cannot use Amp's settings file %s: %s", path, text)
	e.Err = err
	return e.Hint("correct the file or move it away; sesame reads it and never writes it")
}

// set gives a top-level key its value. Where the key stands more than once all
// are set, since readers differ in which one counts.
func set(object *hujson.Object, key string, value hujson.ValueTrimmed) {
	found := false
	for i := range object.Members {
		if name(&object.Members[i]) == key {
			object.Members[i].Value.Value, found = value, true
		}
	}
	if !found {
		add(object, key, value)
	}
}

func enableMode(object *hujson.Object, mode string) error {
	want := hujson.String(mode)
	found := false
	for i := range object.Members {
		if name(&object.Members[i]) != experimentalModes {
			continue
		}
		found = true
		switch list := object.Members[i].Value.Value.(type) {
		case *hujson.Array:
			enableIn(list, mode)
		case hujson.Literal:
			if list.Kind() != 'n' { // null is as good as nothing
				return fmt.Errorf("%q is not a list", experimentalModes)
			}
			object.Members[i].Value.Value = &hujson.Array{Elements: []hujson.Value{{Value: want}}}
		default:
			return fmt.Errorf("%q is not a list", experimentalModes)
		}
	}
	if !found {
		add(object, experimentalModes, &hujson.Array{Elements: []hujson.Value{{Value: want}}})
	}
	return nil
}

func enableIn(list *hujson.Array, mode string) {
	for _, element := range list.Elements {
		if text, ok := element.Value.(hujson.Literal); ok && text.Kind() == '"' && text.String() == mode {
			return
		}
	}
	element := hujson.Value{Value: hujson.String(mode)}
	if len(list.Elements) > 0 {
		element.BeforeExtra = hujson.Extra(" ")
	}
	list.Elements = append(list.Elements, element)
}

// add puts a member at the end, on a line of its own. Comments behind the last
// member stay where they are.
func add(object *hujson.Object, key string, value hujson.ValueTrimmed) {
	const indent = "\n  "
	before := bytes.TrimRight(object.AfterExtra, " \t\r\n")
	object.AfterExtra = hujson.Extra("\n")
	object.Members = append(object.Members, hujson.ObjectMember{
		Name:  hujson.Value{BeforeExtra: hujson.Extra(string(before) + indent), Value: hujson.String(key)},
		Value: hujson.Value{BeforeExtra: hujson.Extra(" "), Value: value},
	})
}

func name(m *hujson.ObjectMember) string {
	if text, ok := m.Name.Value.(hujson.Literal); ok && text.Kind() == '"' {
		return text.String()
	}
	return ""
}
