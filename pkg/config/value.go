package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ParseDuration reads "30s", "1h30m" and "0". A bare number other than 0 is
// refused, since people mean seconds as often as minutes by it.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration (write 30s, 10m or 1h30m)", s)
	case d < 0:
		return 0, fmt.Errorf("%q is negative", s)
	}
	return d, nil
}

// place is what relative and ~ paths of a layer are seen from.
type place struct {
	home string
	base string // "" refuses relative paths
}

// absolute resolves a path as it was written down.
func (p place) absolute(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("must not be empty")
	case strings.ContainsRune(path, 0):
		return "", errors.New("has a NUL byte in it")
	case path == "~" || strings.HasPrefix(path, "~/"):
		if p.home == "" {
			return "", fmt.Errorf("%q: there is no home directory", path)
		}
		return filepath.Join(p.home, path[1:]), nil
	case filepath.IsAbs(path):
		return filepath.Clean(path), nil
	case p.base == "":
		return "", fmt.Errorf("%q must be absolute or begin with ~/", path)
	}
	return filepath.Join(p.base, path), nil
}

// text brings one string into its final form for the setting.
func (s setting) text(value string, at place) (string, error) {
	isJSON := s.name == "amp.mcp-config" && strings.HasPrefix(strings.TrimSpace(value), "{")
	if s.path && !isJSON {
		// A text that is a path has no value by default, a list's element cannot be empty.
		if value == "" && s.kind == textKind {
			return "", nil
		}
		return at.absolute(value)
	}
	if s.name == "amp.sources" && (strings.HasPrefix(value, "~/") || strings.HasPrefix(value, "./") || strings.HasPrefix(value, "../")) {
		abs, err := at.absolute(value)
		if err != nil {
			return "", err
		}
		value = abs
	}
	if s.check != nil {
		return s.check(value)
	}
	return value, nil
}

// parse reads the strings of a flag (one for each time it was given) or of a
// variable; only variables have commas between elements.
func (s setting) parse(values []string, at place, commas bool) (any, error) {
	last := values[len(values)-1]
	if commas && (s.kind == listKind || s.kind == tableKind) {
		values = splitList(last)
	}
	switch s.kind {
	case boolKind:
		b, err := strconv.ParseBool(last)
		if err != nil {
			return nil, fmt.Errorf("%q is not true or false", last)
		}
		return b, nil
	case countKind:
		n, err := strconv.Atoi(last)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", last)
		}
		return n, s.checkCount(n)
	case durationKind:
		return ParseDuration(last)
	case listKind:
		return s.list(values, at)
	case tableKind:
		table := map[string]string{}
		for _, pair := range values {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return nil, fmt.Errorf("%q is not of the form NAME=VALUE", pair)
			}
			if err := s.entry(table, strings.TrimSpace(name), strings.TrimSpace(value)); err != nil {
				return nil, err
			}
		}
		return table, nil
	default:
		return s.text(last, at)
	}
}

func (s setting) list(values []string, at place) ([]string, error) {
	list := make([]string, 0, len(values))
	for _, value := range values {
		item, err := s.text(value, at)
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, nil
}

func (s setting) entry(table map[string]string, name, value string) error {
	if _, err := s.check(name); err != nil {
		return err
	}
	checked, err := s.check(value)
	if err != nil {
		return err
	}
	table[name] = checked
	return nil
}

func (s setting) checkCount(n int) error {
	if n < s.least {
		return fmt.Errorf("%d is too small: at least %d", n, s.least)
	}
	return nil
}

func splitList(s string) []string {
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
