package config

import (
	"slices"
	"strings"
	"time"
	"unicode"
)

// kind is the type of a setting's value; what Go type holds it stands beside.
type kind int

const (
	textKind     kind = iota // string
	boolKind                 // bool
	countKind                // int
	durationKind             // time.Duration
	listKind                 // []string
	tableKind                // map[string]string
)

// setting is one key of the configuration.
type setting struct {
	name     string // "sandbox.allow-hosts"
	kind     kind
	standard any
	check    func(value string) (string, error) // of a text or a list's element: normalises or refuses it
	least    int                                // the smallest count

	// path: the value is a file name, to be made absolute.
	path bool
	// grows: a later layer adds to the list and never replaces it.
	grows bool
	// fromWorkspace decides about a value of the workspace's file, given the user's;
	// nil refuses the key altogether, with the reason why.
	fromWorkspace func(users, wanted any) error
	why           string
}

const (
	whyBinary = "a repository must not choose what is run or where it comes from"
	whyWiden  = "a repository may only tighten the sandbox"
	whyWrites = "a repository must not choose what is written outside of it"
	whyTaste  = "only mode, output, timeout, labels and a tighter sandbox can be set there"
)

// schema is every setting there is. Whether a key exists, of which type it is and
// whether a repository may set it is decided here and nowhere else.
func schema() []setting {
	return []setting{
		{name: "mode", standard: "smart", check: checkWord, fromWorkspace: anyValue},
		{name: "output", standard: string(Text), check: oneOf(string(Text), string(JSON), string(StreamJSON)), fromWorkspace: anyValue},
		{name: "output-file", standard: "", path: true, why: whyWrites},
		{name: "timeout", kind: durationKind, standard: time.Duration(0), fromWorkspace: anyValue},
		{name: "labels", kind: listKind, check: checkLabel, fromWorkspace: anyValue},
		{name: "show-thinking", kind: boolKind, standard: false, why: whyTaste},
		{name: "quiet", kind: boolKind, standard: false, why: whyTaste},
		{name: "verbose", kind: boolKind, standard: false, why: whyTaste},

		{name: "amp.url", standard: DefaultURL, check: ServiceURL, why: "a repository must not choose who gets the key"},
		{name: "amp.version", standard: "latest", check: checkVersion, why: whyBinary},
		{name: "amp.sha256", standard: "", check: checkSHA256, why: whyBinary},
		{name: "amp.path", standard: "", path: true, why: whyBinary},
		{name: "amp.sources", kind: listKind, check: checkSource, why: whyBinary},
		{name: "amp.modes", kind: tableKind, check: checkWord, why: whyTaste},
		{name: "amp.args", kind: listKind, check: checkArgument, why: whyBinary},
		{name: "amp.mcp-config", standard: "", path: true, why: whyBinary},
		{name: "amp.keep-versions", kind: countKind, standard: 2, least: 1, why: whyTaste},
		{name: "amp.update-interval", kind: durationKind, standard: 24 * time.Hour, why: whyTaste},

		{name: "sandbox.tier", standard: "auto", check: oneOf("auto", "namespaces", "landlock", "seatbelt", "off"), fromWorkspace: tighterTier},
		{name: "sandbox.profile", standard: "standard", check: oneOf("standard", "strict"), fromWorkspace: tighterProfile},
		{name: "sandbox.allow-hosts", kind: listKind, check: checkArgument, why: whyWiden},
		{name: "sandbox.allow-read", kind: listKind, path: true, why: whyWiden},
		{name: "sandbox.allow-write", kind: listKind, path: true, why: whyWiden},
		{name: "sandbox.deny-read", kind: listKind, path: true, grows: true, fromWorkspace: anyValue},
		{name: "sandbox.pass-env", kind: listKind, check: checkVariable, why: whyWiden},
		{name: "sandbox.expose-key", kind: boolKind, standard: false, why: whyWiden},
	}
}

// envName is the variable of a key: "sandbox.allow-hosts" is SESAME_SANDBOX_ALLOW_HOSTS.
func envName(key string) string {
	return envPrefix + strings.Map(func(r rune) rune {
		if r == '.' || r == '-' {
			return '_'
		}
		return unicode.ToUpper(r)
	}, key)
}

const envPrefix = "SESAME_"

func find(settings []setting, name string) (setting, bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}

func names(settings []setting) []string {
	list := make([]string, len(settings))
	for i, s := range settings {
		list[i] = s.name
	}
	return list
}
