package sandbox

import (
	"bytes"
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
	section, header := "", "" // "" while a section is not understood
	plain := true
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if configNothing().MatchString(line) {
			continue
		}
		if m := configSection().FindStringSubmatch(line); m != nil {
			section, header = strings.ToLower(m[1]), strings.TrimSpace(line)+"\n"
			continue
		}
		m := configSetting().FindStringSubmatch(line)
		if m == nil {
			plain = false
			if taken = append(taken, "what is not understood"); strings.Contains(line, "[") {
				section = ""
			}
			continue
		}
		key, value := strings.ToLower(m[1]), strings.TrimRight(m[2], " \t")
		if !harmlessSetting(section, key, value) && !(section == "core" && key == "worktree" && leadsHere(value)) {
			plain = false
			taken = append(taken, strings.TrimPrefix(section+"."+key, "."))
			continue
		}
		out.WriteString(header + "\t" + key)
		header = ""
		if strings.Contains(line, "=") {
			out.WriteString(" = " + value)
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
type setting struct{ section, name, key, value string }

// settingsBeside are the settings of a configuration, in their order, those of branches by themselves. It is not ok if there is a line in it
// that is not understood.
func settingsBeside(data []byte) (list []setting, branches map[string][]setting, ok bool) {
	branches = map[string][]setting{}
	var at setting
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if configNothing().MatchString(line) {
			continue
		}
		if m := configSection().FindStringSubmatch(line); m != nil {
			at = setting{section: strings.ToLower(m[1]), name: m[2]}
			continue
		}
		m := configSetting().FindStringSubmatch(line)
		if m == nil || at.section == "" {
			return nil, nil, false
		}
		at.key, at.value = strings.ToLower(m[1]), strings.TrimRight(m[2], " \t")
		if !strings.Contains(line, "=") {
			at.value = "\x00" // which is true, not empty
		}
		if at.section == "branch" && at.name != "" {
			branches[at.name] = append(branches[at.name], at)
		} else {
			list = append(list, at)
		}
	}
	return list, branches, true
}
