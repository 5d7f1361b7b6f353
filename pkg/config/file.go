package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const (
	fileName      = "config.yaml"
	workspaceFile = ".sesame.yaml"
	maxFile       = 1 << 20
)

// entry is one setting as a layer has it.
type entry struct {
	setting setting
	value   any // of the setting's Go type
	origin  Origin
}

// readFile reads a configuration file whole. That none is there is no error: ok is
// false. Only an explicitly named file may be something else than a regular file.
func readFile(path string, explicit bool) (data []byte, ok bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !explicit:
		return nil, false, nil
	case err != nil:
		return nil, false, fault.New(fault.Usage, "cannot read the configuration: %w", err)
	case info.IsDir() || !explicit && !info.Mode().IsRegular():
		return nil, false, fault.New(fault.Usage, "%s: the configuration is not a regular file", path)
	}
	flag := os.O_RDONLY
	if !explicit { // a sandbox in the workspace may put a pipe in its place meanwhile
		flag |= syscall.O_NONBLOCK
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, false, fault.New(fault.Usage, "cannot read the configuration: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !explicit && !info.Mode().IsRegular() {
		return nil, false, fault.New(fault.Usage, "%s: the configuration is not a regular file", path)
	}
	data, err = readLimited(f, path)
	return data, err == nil, err
}

func readLimited(r io.Reader, path string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Usage, "cannot read the configuration: %w", err)
	case len(data) > maxFile:
		return nil, fault.New(fault.Usage, "%s: larger than 1 MiB, that is no configuration", path)
	}
	return data, nil
}

// parseFile checks a file against the schema. The nodes are walked by hand, because
// only they know their line. With an error come the settings that stand before it.
func parseFile(data []byte, name string, layer Layer, settings []setting, at place) ([]entry, error) {
	p := &parser{file: name, layer: layer, settings: settings, at: at}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, p.syntax(err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, p.errorAt(second.Line, "a second document; one is all there can be")
	} else if !errors.Is(err, io.EOF) {
		return nil, p.syntax(err)
	}
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		return nil, nil
	}
	err := p.section(doc.Content[0], "")
	return p.entries, err
}

type parser struct {
	file     string
	layer    Layer
	settings []setting
	at       place
	entries  []entry
}

func (p *parser) errorAt(line int, format string, args ...any) *fault.Error {
	return fault.New(fault.Usage, "%s:%d: "+format, append([]any{p.file, line}, args...)...)
}

// syntax gives an error of the YAML parser the form of all others.
func (p *parser) syntax(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	return p.errorAt(line, "not YAML: %s", text)
}

// section walks a mapping; prefix is "" or the section's name with a dot.
func (p *parser) section(node *yaml.Node, prefix string) error {
	if isNull(node) {
		return nil
	}
	if err := p.plain(node, strings.TrimSuffix(prefix, ".")); err != nil {
		return err
	}
	if node.Kind != yaml.MappingNode {
		if prefix == "" {
			return p.errorAt(node.Line, "a configuration is a list of `key: value`, this is %s", describe(node))
		}
		return p.errorAt(node.Line, "%s: must be a section of keys, not %s", strings.TrimSuffix(prefix, "."), describe(node))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if err := p.plain(key, "a key"); err != nil {
			return err
		}
		name := prefix + key.Value
		if line, twice := seen[name]; twice {
			return p.errorAt(key.Line, "%s: set twice, first in line %d", name, line)
		}
		seen[name] = key.Line
		if err := p.key(key, value, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) key(key, value *yaml.Node, name string) error {
	if s, ok := find(p.settings, name); ok && !strings.Contains(key.Value, ".") {
		v, err := p.value(s, value)
		if err != nil {
			return err
		}
		p.entries = append(p.entries, entry{s, v, Origin{p.layer, p.file, key.Line}})
		return nil
	}
	for _, s := range p.settings {
		if strings.HasPrefix(s.name, name+".") && !strings.Contains(key.Value, ".") {
			return p.section(value, name+".")
		}
	}
	err := p.errorAt(key.Line, "%s: unknown key", name)
	if near := Nearest(name, names(p.settings)); near != "" && near != name {
		err = err.Hint("did you mean %s?", near)
	} else if near == name {
		err = err.Hint("keys are nested: write the part after the dot indented below the part before it")
	}
	return err
}

// plain refuses what makes a configuration mean something else than it shows.
func (p *parser) plain(node *yaml.Node, name string) error {
	if node.Kind == yaml.AliasNode || node.Anchor != "" || node.Tag == "!!merge" {
		return p.errorAt(node.Line, "%s: anchors, aliases and merges are not supported", name)
	}
	return nil
}

func (p *parser) value(s setting, node *yaml.Node) (any, error) {
	v, err := p.decode(s, node)
	if err == nil {
		return v, nil
	}
	var already *fault.Error
	if errors.As(err, &already) {
		return nil, err
	}
	return nil, p.errorAt(node.Line, "%s: %w", s.name, err)
}

func (p *parser) decode(s setting, node *yaml.Node) (any, error) {
	if err := p.plain(node, s.name); err != nil {
		return nil, err
	}
	switch s.kind {
	case listKind:
		return p.list(s, node)
	case tableKind:
		return p.table(s, node)
	case durationKind:
		if node.Tag == "!!int" && node.Value == "0" || node.Tag == "!!str" {
			return ParseDuration(node.Value)
		}
		return nil, wrongType(node, "a duration such as 30s")
	case boolKind:
		var b bool
		if node.Tag != "!!bool" || node.Decode(&b) != nil {
			return nil, wrongType(node, "true or false")
		}
		return b, nil
	case countKind:
		var n int
		if node.Tag != "!!int" || node.Decode(&n) != nil {
			return nil, wrongType(node, "a number")
		}
		return n, s.checkCount(n)
	default:
		if node.Tag != "!!str" {
			return nil, wrongType(node, "a string")
		}
		return s.text(node.Value, p.at)
	}
}

func (p *parser) list(s setting, node *yaml.Node) (any, error) {
	if node.Kind != yaml.SequenceNode {
		return nil, wrongType(node, "a list such as [a, b]")
	}
	list := make([]string, 0, len(node.Content))
	for _, n := range node.Content {
		if err := p.plain(n, s.name); err != nil {
			return nil, err
		}
		if n.Tag != "!!str" {
			return nil, p.errorAt(n.Line, "%s: %w", s.name, wrongType(n, "a string"))
		}
		item, err := s.text(n.Value, p.at)
		if err != nil {
			return nil, p.errorAt(n.Line, "%s: %w", s.name, err)
		}
		list = append(list, item)
	}
	return list, nil
}

func (p *parser) table(s setting, node *yaml.Node) (any, error) {
	if node.Kind != yaml.MappingNode {
		return nil, wrongType(node, "a section such as {deep: high}")
	}
	table := map[string]string{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		for _, n := range []*yaml.Node{key, value} {
			if err := p.plain(n, s.name); err != nil {
				return nil, err
			}
			if n.Tag != "!!str" {
				return nil, p.errorAt(n.Line, "%s: %w", s.name, wrongType(n, "a string"))
			}
		}
		if _, twice := table[key.Value]; twice {
			return nil, p.errorAt(key.Line, "%s.%s: set twice", s.name, key.Value)
		}
		if err := s.entry(table, key.Value, value.Value); err != nil {
			return nil, p.errorAt(key.Line, "%s: %w", s.name, err)
		}
	}
	return table, nil
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func wrongType(node *yaml.Node, want string) error {
	return fmt.Errorf("must be %s, not %s", want, describe(node))
}

// describe names what stands there without repeating it at length.
func describe(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "a section"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(node):
		return "nothing"
	case len(node.Value) > 40:
		return fmt.Sprintf("%.40q…", node.Value)
	case node.Tag == "!!str":
		return fmt.Sprintf("%q", node.Value)
	}
	return node.Value
}
