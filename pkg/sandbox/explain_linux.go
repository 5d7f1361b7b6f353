package sandbox

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sesame-cli/sesame/pkg/sandbox/secret"
	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// ExplainPath says what a command may do with a path of the host, by the plan that a sandbox of the tier would be made
// of. The path is looked at without its links, as the host has them.
func (p *Policy) ExplainPath(path string, tier Tier) (Verdict, error) {
	t, err := drawTree(p)
	if err != nil {
		return Verdict{}, err
	}
	return t.verdictIn(tier, resolve(path)), nil
}

// verdictIn is the verdict of a path in a tier.
func (t *tree) verdictIn(tier Tier, path string) Verdict {
	v := t.verdict(path)
	if tier == Landlock {
		v = t.unmounted(path, v)
	}
	v.Target, v.Allowed = path, v.Access != AccessAbsent
	return v
}

// ExplainPaths says it for each path that the policy treats otherwise than what is around it, if this host has it or
// must not get it from the sandbox. They are in the order of what may be done with them, then of their names.
func (p *Policy) ExplainPaths(tier Tier) ([]Verdict, error) {
	t, err := drawTree(p)
	if err != nil {
		return nil, err
	}
	paths := slices.Concat(slices.Collect(maps.Keys(t.ops)), t.deny, t.sweep.absent)
	if t.layers != nil {
		for _, rel := range t.layers.Absent {
			paths = append(paths, filepath.Join(t.layers.Host, rel))
		}
	}
	slices.Sort(paths)
	byPath := map[string]Verdict{}
	var list []Verdict
	for _, path := range slices.Compact(paths) {
		if _, err := os.Lstat(path); err != nil && !slices.Contains(t.sweep.absent, path) {
			continue
		}
		v := t.verdictIn(tier, path)
		byPath[path] = v
		around, ok := v, false
		for dir := filepath.Dir(path); !ok && dir != "/"; dir = filepath.Dir(dir) {
			around, ok = byPath[dir]
		}
		if !ok || around.Access != v.Access || around.Rule != v.Rule {
			list = append(list, v)
		}
	}
	order := []Access{AccessWrite, AccessCopy, AccessRead, AccessOwn, AccessAbsent}
	slices.SortStableFunc(list, func(a, b Verdict) int { return slices.Index(order, a.Access) - slices.Index(order, b.Access) })
	return list, nil
}

// unmounted is what becomes of a verdict where nothing can be mounted: Landlock allows or refuses what the host has in
// its places, and what the sandbox has of its own is elsewhere.
func (t *tree) unmounted(path string, v Verdict) Verdict {
	switch v.Access {
	case AccessAbsent:
		if v.Rule != ruleTakenAway {
			v.Rule += "; that it exists can be found out"
		}
	case AccessRead:
		at := path
		if _, here := t.ops[path]; !here {
			at, _ = t.above(path)
		}
		// See grants.
		if above, ok := t.above(at); ok && t.ops[above].Kind == shim.ReadWrite && t.ours(at) {
			return Verdict{Access: AccessWrite, Rule: rulePutBack}
		}
	case AccessCopy:
		v.Access, v.Rule, v.Flag = AccessRead, "the home, which is read-only here: HOME names one of the sandbox's own", "--allow-write "+path
	case AccessOwn:
		if within(path, "/proc") {
			return Verdict{Access: AccessRead, Rule: "the kernel's files"}
		}
		if device, ok := strings.CutPrefix(path, "/dev/"); ok && slices.Contains(devices, device) {
			return Verdict{Access: AccessWrite, Rule: "a device that every program may expect"}
		}
		v.Access, v.Rule = AccessAbsent, "the sandbox has its own, elsewhere"
	}
	return v
}

// ruleTakenAway is the rule of what is guarded and does not exist yet.
const ruleTakenAway = "programs of the host would execute it: it is taken away when the sandbox ends"

// rulePutBack is the rule of what is executed by programs of the host and cannot be a mount.
const rulePutBack = "the workspace; but programs of the host execute it: when the sandbox ends it is put back, or taken away if it was not there"

// putBack tells that of what is below the top.
func (t *tree) putBack(path string) bool {
	if t.top == "" || !within(path, t.top) || t.policy.unguarded(path) {
		return false
	}
	parts := strings.Split(strings.TrimPrefix(path, t.top), "/")
	for i, name := range parts {
		if _, ok := guardedBelow[name]; ok && (name != ".git" || i+1 == len(parts) && !isDir(path) || i+1 < len(parts) && slices.Contains(guardedInGit, parts[i+1])) {
			return true
		}
	}
	return false
}

// isSecret tells whether a path of a home is one of those that every sandbox hides.
func isSecret(rel string) bool {
	return slices.ContainsFunc(secret.Home, func(pattern string) bool {
		is, err := filepath.Match(pattern, rel)
		return is && err == nil
	})
}

func (t *tree) verdict(path string) Verdict {
	p := t.policy
	if by, ok := t.denied(path); ok {
		if slices.ContainsFunc(p.DenyRead, func(d string) bool { return resolve(d) == by || d == by }) {
			return Verdict{Access: AccessAbsent, Rule: "deny-read " + by}
		}
		return Verdict{Access: AccessAbsent, Rule: "sesame's own files"}
	}
	at, ok := path, true
	if _, here := t.ops[path]; !here {
		at, ok = t.above(path)
	}
	if !ok {
		return Verdict{Access: AccessAbsent, Rule: "not shown", Flag: "--allow-read " + path}
	}
	named := func(list []string) bool {
		return slices.ContainsFunc(list, func(a string) bool { return within(path, resolve(a)) })
	}
	switch op := t.ops[at]; op.Kind {
	case shim.ReadWrite:
		rule := "the git directory of this worktree"
		if named(p.AllowWrite) {
			rule = "allow-write"
		} else if within(path, p.Workspace) {
			rule = "the workspace"
		}
		if slices.Contains(t.sweep.absent, path) {
			return Verdict{Access: AccessAbsent, Rule: ruleTakenAway, Flag: "--allow-write " + path}
		}
		if t.putBack(path) {
			return Verdict{Access: AccessWrite, Rule: rulePutBack, Flag: "--allow-write " + path}
		}
		return Verdict{Access: AccessWrite, Rule: rule}
	case shim.ReadOnly:
		v := Verdict{Access: AccessRead, Rule: "the system is read-only", Flag: "--allow-write " + path}
		switch {
		case named(p.AllowRead):
			v.Rule = "allow-read"
		case within(path, p.Workspace), filepath.Base(filepath.Dir(at)) == ".git":
			v.Rule = "programs of the host execute what it says"
		case p.Home != "" && within(path, p.Home):
			v.Rule = "a toolchain"
		}
		return v
	case shim.Hide:
		if within(path, p.Home) && p.Home != "" || op.Blank != shim.BlankParent {
			return Verdict{Access: AccessAbsent, Rule: "a secret, or another user's", Flag: "--allow-read " + path}
		}
		return Verdict{Access: AccessAbsent, Rule: "a secret is in it", Flag: "--allow-read " + path}
	case shim.Home:
		rel, _ := filepath.Rel(t.layers.Host, path)
		for r := rel; r != "."; r = filepath.Dir(r) {
			// A directory that there is not may be made in the sandbox, but what would be a secret in it will not come from the host.
			if slices.Contains(t.layers.Absent, r) && !slices.Contains(t.unmade, r) || t.absentAbove(r) && isSecret(r) {
				return Verdict{Access: AccessAbsent, Rule: "a secret", Flag: "--allow-read " + path}
			}
		}
		if t.layers.Bare {
			return Verdict{Access: AccessOwn, Rule: "the strict profile's own home", Flag: "--allow-read " + path}
		}
		return Verdict{Access: AccessCopy, Rule: "the home"}
	case shim.Symlink:
		return Verdict{Access: AccessRead, Rule: "the system is read-only"}
	}
	return Verdict{Access: AccessOwn, Rule: "the sandbox has its own " + at, Flag: "--allow-read " + path}
}
