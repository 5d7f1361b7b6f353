package sandbox

import (
	"bytes"
	"iter"
	"slices"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/regex"
)

// A repository that was made in the sandbox stays one outside: its configuration keeps what says where it comes from and
// how its files are stored, and loses what makes git execute something or look elsewhere.

// harmlessSettings are such by section; those that have to be looked at more closely are in harmlessSetting.
var harmlessSettings = map[string][]string{
	"core": {
		"repositoryformatversion", "filemode", "bare", "logallrefupdates", "ignorecase", "precomposeunicode", "symlinks", "autocrlf", "safecrlf", "eol",
		"sharedrepository", "sparsecheckout", "sparsecheckoutcone", "untrackedcache", "preloadindex", "commitgraph", "multipackindex", "longpaths", "quotepath", "abbrev",
	},
	"extensions": {"objectformat", "refstorage", "partialclone", "preciousobjects", "worktreeconfig", "relativeworktrees", "compatobjectformat"},
	"branch":     {"remote", "merge", "rebase", "pushremote", "description", "vscode-merge-base", "gh-merge-base", "github-pr-owner-number"},
	"remote":     {"url", "pushurl", "fetch", "push", "mirror", "prune", "prunetags", "tagopt", "promisor", "partialclonefilter", "skipdefaultupdate", "gh-resolved"},
	"submodule":  {"url", "active", "branch", "recurse", "shallow"},
	"user":       {"name", "email"},
	"init":       {"defaultbranch"},
	"pull":       {"rebase", "ff"},
	"push":       {"default", "autosetupremote"},
	"fetch":      {"prune", "prunetags"},
	"merge":      {"ff", "conflictstyle"},
	"gc":         {"auto"},
	"index":      {"version", "skiphash", "sparse"},
	"feature":    {"manyfiles", "experimental"},
	"lfs":        {"repositoryformatversion"},
}

// What is understood of a file of configuration, line by line. What git would read otherwise, with quotes, escapes or a line
// that goes on, is none of it.
var (
	configSection = regex.Lazy(`^[ \t]*\[([A-Za-z0-9-]+)(?:[ \t]+"([^"\\[:cntrl:]]*)")?\][ \t]*$`)
	configSetting = regex.Lazy(`^[ \t]*([A-Za-z][A-Za-z0-9-]*)[ \t]*(?:=[ \t]*([^"\\#;[:cntrl:]]*))?$`)
	configNothing = regex.Lazy(`^[ \t]*(?:[#;][^\x00\r]*)?$`)
)

// harmlessConfig is what of a configuration git can follow without harm: all of it as it stands, or what is left when the
// settings in taken are left out. leadsHere tells whether a core.worktree leads to where the repository is used anyway.
func harmlessConfig(data []byte, leadsHere func(worktree string) bool) (harmless []byte, taken []string) {
	var out bytes.Buffer
	at := 0 // the line of the section that was written last
	plain := true
	for s, header := range settings(data) {
		if header.unknown {
			plain = false
			taken = append(taken, "what is not understood")
			continue
		}
		if !harmlessSetting(s.section, s.key, s.value) && !(s.section == "core" && s.key == "worktree" && leadsHere(s.value)) {
			plain = false
			taken = append(taken, strings.TrimPrefix(s.section+"."+s.key, "."))
			continue
		}
		if header.line != at {
			out.WriteString(header.text + "\n")
			at = header.line
		}
		out.WriteString("\t" + s.key)
		if s.given {
			out.WriteString(" = " + s.value)
		}
		out.WriteString("\n")
	}
	if plain {
		return data, nil
	}
	slices.Sort(taken)
	return out.Bytes(), slices.Compact(taken)
}

func harmlessSetting(section, key, value string) bool {
	if !slices.Contains(harmlessSettings[section], key) {
		return false
	}
	switch key {
	case "url", "pushurl", "remote", "pushremote":
		// HELPER::ADDRESS starts a program, and what begins with a dash may be taken for an option.
		return !strings.Contains(value, "::") && !strings.HasPrefix(value, "-")
	}
	return true
}

// onlyFollows tells whether a configuration differs from what it was by no more than branches that follow the same one at the only
// remote now, as `git push -u` writes it. Both have to be understood as a whole.
func onlyFollows(old, now []byte) bool {
	was, before, ok := settingsBeside(old)
	is, after, again := settingsBeside(now)
	if !ok || !again || !slices.Equal(was, is) {
		return false
	}
	remotes := map[string]bool{}
	for _, s := range was {
		if s.section == "remote" {
			remotes[s.name] = true
		}
	}
	for name, settings := range before {
		if !slices.Equal(settings, after[name]) {
			return false
		}
		delete(after, name)
	}
	for name, settings := range after {
		for _, s := range settings {
			switch {
			case !s.given:
				return false
			case s.key == "remote" && remotes[s.value] && len(remotes) == 1:
			case s.key == "merge" && s.value == "refs/heads/"+name:
			default:
				return false
			}
		}
	}
	return true
}

// setting is one of a configuration, as git reads it.
type setting struct {
	section, name, key, value string
	given                     bool // it has a value; without one it is true
}

// settingsBeside are the settings of a configuration, in their order, those of branches by themselves. It is not ok if there is a line in it
// that is not understood.
func settingsBeside(data []byte) (list []setting, branches map[string][]setting, ok bool) {
	branches = map[string][]setting{}
	for s, header := range settings(data) {
		switch {
		case header.unknown, s.section == "":
			return nil, nil, false
		case s.section == "branch" && s.name != "":
			branches[s.name] = append(branches[s.name], s)
		default:
			list = append(list, s)
		}
	}
	return list, branches, !bytes.Contains(data, []byte("\r"))
}

// header is that of a section, or what stands for it where a line is not understood.
type header struct {
	text    string
	line    int
	unknown bool
}

// settings are those of a configuration, with the headers of their sections. The section is "" behind one that is not understood.
func settings(data []byte) iter.Seq2[setting, header] {
	return func(yield func(setting, header) bool) {
		var s setting
		var at header
		n := 0
		for line := range strings.Lines(string(data)) {
			n++
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			if configNothing().MatchString(line) {
				continue
			}
			if m := configSection().FindStringSubmatch(line); m != nil {
				s, at = setting{section: strings.ToLower(m[1]), name: m[2]}, header{text: strings.TrimSpace(line), line: n}
				continue
			}
			m := configSetting().FindStringSubmatch(line)
			if m == nil {
				if strings.Contains(line, "[") {
					s.section = ""
				}
				if !yield(setting{}, header{unknown: true}) {
					return
				}
				continue
			}
			s.key, s.value, s.given = strings.ToLower(m[1]), strings.TrimRight(m[2], " \t"), strings.Contains(line, "=")
			if !yield(s, at) {
				return
			}
		}
	}
}
