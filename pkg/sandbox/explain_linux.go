package sandbox

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim"
)

// ExplainPath says what a command may do with a path, by the plan that a sandbox would be made of. The path is
// looked at without its links, as the host has them.
func (p *Policy) ExplainPath(path string) (Verdict, error) {
	t, err := drawTree(p)
	if err != nil {
		return Verdict{}, err
	}
	path = resolve(path)
	v := t.verdict(path)
	v.Target = path
	v.Allowed = v.Access != AccessAbsent
	return v, nil
}

// ExplainPaths says it for each path that the policy treats otherwise than what is around it, if this host has it or
// must not get it from the sandbox. They are in the order of what may be done with them, then of their names.
func (p *Policy) ExplainPaths() ([]Verdict, error) {
	t, err := drawTree(p)
	if err != nil {
		return nil, err
	}
	paths := slices.Concat(slices.Collect(maps.Keys(t.ops)), t.deny, t.absent)
	if t.layers != nil {
		for _, rel := range t.layers.Absent {
			paths = append(paths, filepath.Join(t.layers.Host, rel))
		}
	}
	slices.Sort(paths)
	byPath := map[string]Verdict{}
	var list []Verdict
	for _, path := range slices.Compact(paths) {
		if _, err := os.Lstat(path); err != nil && !slices.Contains(t.absent, path) {
			continue
		}
		v := t.verdict(path)
		v.Target, v.Allowed = path, v.Access != AccessAbsent
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

func (t *tree) verdict(path string) Verdict {
	v := t.mounted(path)
	if t.policy.Tier == Landlock {
		return t.confined(path, v)
	}
	return v
}

// confined is what becomes of a verdict where nothing can be mounted.
func (t *tree) confined(path string, v Verdict) Verdict {
	at := path
	if _, here := t.ops[path]; !here {
		at, _ = t.above(path)
	}
	switch op := t.ops[at]; {
	case v.Access == AccessAbsent:
		return v
	case t.unguarded(at):
		return Verdict{Access: AccessWrite, Rule: "programs of the host execute what it says, which the tier landlock cannot keep from being written"}
	case op.Kind == shim.Home && t.layers.Bare:
		return Verdict{Access: AccessAbsent, Rule: "HOME names the strict profile's own home", Flag: "--allow-read " + path}
	case op.Kind == shim.Home:
		return Verdict{Access: AccessRead, Rule: "the home: HOME names a directory of the sandbox's own, with links to it and copies", Flag: "--allow-write " + path}
	case op.Kind == shim.Tmp:
		return Verdict{Access: AccessAbsent, Rule: "TMPDIR names the sandbox's own", Flag: "--allow-read " + path}
	case op.Kind == shim.Proc:
		return Verdict{Access: AccessRead, Rule: "the machine's own, but for what is in other programs"}
	case op.Kind == shim.Dev:
		return Verdict{Access: AccessOwn, Rule: "devices that every program may expect"}
	case op.Kind == shim.File:
		return Verdict{Access: AccessRead, Rule: "the system is read-only"}
	}
	return v
}

// mounted is what a command may do with a path where all can be mounted.
func (t *tree) mounted(path string) Verdict {
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
		if slices.Contains(t.absent, path) {
			return Verdict{Access: AccessAbsent, Rule: "programs of the host would execute it: it is taken away when the sandbox ends", Flag: "--allow-write " + path}
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
			if slices.Contains(t.layers.Absent, r) {
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
