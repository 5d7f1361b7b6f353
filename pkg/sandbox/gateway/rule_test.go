package gateway

import (
	"net/netip"
	"testing"
)

func TestParseRule(t *testing.T) {
	for in, want := range map[string]Rule{
		"example.com":           {"example.com", 0},
		"Example.COM.":          {"example.com", 0},
		"example.com:8080":      {"example.com", 8080},
		"*.example.com":         {"*.example.com", 0},
		"*.example.com:22":      {"*.example.com", 22},
		"localhost:1":           {"localhost", 1},
		"127.0.0.1:80":          {"127.0.0.1", 80},
		"192.0.2.1":             {"192.0.2.1", 0},
		"[::1]:8080":            {"::1", 8080},
		"2001:db8::1":           {"2001:db8::1", 0},
		"::ffff:192.0.2.1":      {"192.0.2.1", 0},
		"[2001:db8::1]":         {"2001:db8::1", 0},
		"under_score.example":   {"under_score.example", 0},
		"xn--bcher-kva.example": {"xn--bcher-kva.example", 0},
	} {
		got, err := ParseRule(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "*", "*.", "*.com", "a..b", "-a.b", "http://example.com", "example.com/path", "u@example.com", "example.com:0", "example.com:65536",
		"example.com:http", "example.com:", "a b", "a\x00b", "a\r\nb", "*.*.example.com", "a.*.example.com", "fe80::1%eth0", "[::1", "2130706433", "127.1", "0x7f.1",
		"0x7f000001", "1.2.3", "bücher.example", "example.com.evil.com:1:2", "[192.0.2.1]", "[::1]]", "[[::1]]", "example.com:53", "[::1]:53",
	} {
		if got, err := ParseRule(in); err == nil {
			t.Errorf("%q is taken as %+v", in, got)
		}
	}
}

func TestRulesFind(t *testing.T) {
	var rules Rules
	for _, s := range []string{"ampcode.com", "*.ampcode.com", "git.example:22", "127.0.0.1:8080"} {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	for _, c := range []struct {
		host string
		port int
		want bool
	}{
		{"ampcode.com", 443, true},
		{"ampcode.com", 80, true},
		{"ampcode.com", 8080, false},
		{"x.ampcode.com", 443, true},
		{"a.b.ampcode.com", 443, true},
		{"evilampcode.com", 443, false},
		{".ampcode.com", 443, false},
		{"ampcode.com.evil.com", 443, false},
		{"git.example", 22, true},
		{"git.example", 443, false},
		{"127.0.0.1", 8080, true},
		{"127.0.0.2", 8080, false},
		{"127.1", 8080, false},
	} {
		if _, ok := rules.Find(c.host, c.port); ok != c.want {
			t.Errorf("%s:%d: %v", c.host, c.port, ok)
		}
	}
	if Rules(nil).Resolves("ampcode.com") {
		t.Error("no rules allow something")
	}
	if got := rules.Ports(); len(got) != 4 {
		t.Errorf("ports %v", got)
	}
}

func TestPublicOnly(t *testing.T) {
	for _, a := range []string{"93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822", "8.8.8.8"} {
		if err := publicOnly(netip.MustParseAddr(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, a := range []string{
		"127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "198.18.0.1", "240.0.0.1",
		"::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::7f00:1", "ff02::1",
	} {
		if publicOnly(netip.MustParseAddr(a)) == nil {
			t.Errorf("%s is taken for public", a)
		}
	}
}

func TestMayBePrivate(t *testing.T) {
	for s, want := range map[string]bool{"db.internal:5432": true, "db.internal": false, "*.corp.internal:5432": false, "*.corp.internal": false, "10.0.0.1": true, "10.0.0.1:80": true} {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		if r.MayBePrivate() != want {
			t.Errorf("%s: %v", s, !want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("*.example.com:443")
	f.Add("[::1]:80")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		again, err := ParseRule(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, written %q, read again %+v, %v", s, r, r.String(), again, err)
		}
	})
}
