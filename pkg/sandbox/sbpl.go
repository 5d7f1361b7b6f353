package sandbox

import (
	"fmt"
	"regexp"
	"strings"
)

// profile is the text of a profile while it is made.
type profile struct {
	policy *Policy
	places seatbeltPlaces
	text   strings.Builder
}

func (b *profile) raw(s string) { b.text.WriteString(s) }

func (b *profile) section(name string) { fmt.Fprintf(&b.text, "\n; %s\n", name) }

// rule writes one rule. A list without filters would mean hiddenOps, so it is none.
func (b *profile) rule(verb, operations string, filters ...string) {
	if len(filters) == 0 {
		return
	}
	fmt.Fprintf(&b.text, "(%s %s", verb, operations)
	for _, f := range filters {
		b.raw("\n  " + f)
	}
	b.raw(")\n")
}

// quoted is a string of SBPL, in which only these two characters mean something else than themselves.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func literal(path string) string { return "(literal " + quoted(path) + ")" }
func subpath(path string) string { return "(subpath " + quoted(path) + ")" }

func subpaths(list []string) []string {
	out := make([]string, 0, len(list))
	for _, path := range list {
		out = append(out, subpath(path))
	}
	return out
}

// pattern matches a path, of which the last elements may have wildcards and are compared whatever their case (the disk
// usually does so, too), and all below it. dir is as it is.
func pattern(dir, elements string) string {
	var b strings.Builder
	for _, r := range dir {
		if r > 0x7e || r < 0x20 {
			b.WriteString("[^/]+") // nobody says whether these are bytes or characters there: a little more is denied
			continue
		}
		b.WriteString(regexp.QuoteMeta(string(r)))
	}
	b.WriteByte('/')
	for _, r := range elements {
		low, up := strings.ToLower(string(r)), strings.ToUpper(string(r))
		switch {
		case r == '*':
			b.WriteString("[^/]*")
		case low != up:
			b.WriteString("[" + low + up + "]")
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	return "(regex " + quoted("^"+b.String()+"(/|$)") + ")"
}
