package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"unicode"
)

// oneOf accepts the words of an enumeration.
func oneOf(words ...string) func(string) (string, error) {
	return func(value string) (string, error) {
		for _, w := range words {
			if value == w {
				return value, nil
			}
		}
		err := fmt.Errorf("%q is not one of %s", value, strings.Join(words, ", "))
		if near := Nearest(value, words); near != "" {
			err = fmt.Errorf("%w (did you mean %s?)", err, near)
		}
		return "", err
	}
}

// checkWord accepts the name of a mode. It becomes an argument of Amp, and a
// workspace may set it: so it must not be readable as an option.
func checkWord(value string) (string, error) {
	if value == "" {
		return "", errors.New("must not be empty")
	}
	for i, r := range value {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._:/-", r)) || i >= 64 {
			return "", fmt.Errorf("%q is not the name of a mode", value)
		}
	}
	return value, nil
}

// checkLabel accepts what Amp may be given as a label; see checkWord for the dash.
func checkLabel(value string) (string, error) {
	if value == "" || len(value) > 100 || strings.HasPrefix(value, "-") || strings.ContainsFunc(value, unicode.IsControl) {
		return "", fmt.Errorf("%q is not a label: 1 to 100 characters, no dash in front", value)
	}
	return value, nil
}

// checkArgument accepts what an argument of a process can be.
func checkArgument(value string) (string, error) {
	if value == "" || strings.ContainsRune(value, 0) {
		return "", errors.New("must not be empty or have a NUL byte in it")
	}
	return value, nil
}

// checkVersion accepts "latest" and what can be a version. It becomes a part of
// paths and addresses: no separators, no dots alone.
func checkVersion(value string) (string, error) {
	for i, r := range value {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", r)) || i >= 64 {
			return "", fmt.Errorf("%q is not a version (one looks like 0.0.1770734955-g93e689, or latest)", value)
		}
	}
	if value == "" {
		return "", errors.New("must not be empty (use latest)")
	}
	return value, nil
}

// checkSHA256 accepts the digest of a file as sha256sum prints it; empty takes a lower layer's away.
func checkSHA256(value string) (string, error) {
	value = strings.ToLower(value)
	if raw, err := hex.DecodeString(value); value != "" && (err != nil || len(raw) != sha256.Size) {
		return "", fmt.Errorf("%q is no sha256 (it has 64 hex digits, as `sha256sum amp` prints them)", value)
	}
	return value, nil
}

// checkSource accepts the words and addresses that binaries come from. A directory
// is absolute by now.
func checkSource(value string) (string, error) {
	switch {
	case value == "static" || value == "storage" || value == "npm" || filepath.IsAbs(value):
		return value, nil
	case strings.Contains(value, "://"):
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return "", errors.New("is not an http or https address")
		}
		return value, nil
	}
	return "", fmt.Errorf("%q is not a source: static, storage, npm, an http(s) address or an absolute directory", value)
}

// checkVariable accepts the name of an environment variable, or the beginning of
// one with a star; a star alone would pass everything.
func checkVariable(value string) (string, error) {
	name := strings.TrimSuffix(value, "*")
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return "", fmt.Errorf("%q is not the name of an environment variable", value)
		}
	}
	if name == "" {
		return "", errors.New("must name a variable")
	}
	return value, nil
}
