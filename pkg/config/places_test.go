package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseEnv(t *testing.T) {
	got := ParseEnv([]string{"A=1", "A=2", "B=x=y", "EMPTY=", "junk", ""})
	if diff := cmp.Diff(Env{"A": "1", "B": "x=y", "EMPTY": ""}, got); diff != "" {
		t.Error(diff)
	}
}

func TestServiceURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://ampcode.com":            "https://ampcode.com/",
		"HTTPS://AmpCode.com:443//":      "https://ampcode.com/",
		"https://amp.example:8443/base/": "https://amp.example:8443/base/",
		"http://127.0.0.1:9":             "http://127.0.0.1:9/",
		"http://localhost:80/x":          "http://localhost/x/",
		"http://[::1]:8080":              "http://[::1]:8080/",
	} {
		if got, err := ServiceURL(raw); err != nil || got != want {
			t.Errorf("%s: %s, %v", raw, got, err)
		}
	}
	for _, raw := range []string{
		"", "ampcode.com", "ftp://ampcode.com", "https://", "https:///x", "https:ampcode.com", "https://u:p@ampcode.com",
		"https://ampcode.com/?a=b", "https://ampcode.com/#x", "http://ampcode.com", "http://10.0.0.1", "http://127.0.0.1.evil.example",
		"http://localhost.evil.example", "https://a b/", "https://[fe80::1%25eth0]/", "://", "https://amp\n.com",
	} {
		if got, err := ServiceURL(raw); err == nil {
			t.Errorf("%q taken as %s", raw, got)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"mode", "output", "timeout", "sandbox.deny-read"}
	for word, want := range map[string]string{
		"mdoe": "mode", "modes": "mode", "timout": "timeout", "sandbox.deny-raed": "sandbox.deny-read", "xyz": "", "": "", "o": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
