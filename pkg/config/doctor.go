package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// filePrivate is the mode of files that only the user may read.
const filePrivate = 0o600

const (
	settingsGroup = "configuration"
	keyGroup      = "key"
)

// The ids of this package's checks that others need.
const (
	CheckFilesID = "config.files"
	CheckKeyID   = "key.found"
)

// CheckFiles tells whether the configuration can be read, as Load returned it, and
// which files count.
func CheckFiles(cfg *Config, err error) check.Check {
	return check.Check{
		ID: CheckFilesID, Group: settingsGroup, Title: "settings",
		Run: check.Found(filesResult(cfg, err)),
	}
}

func filesResult(cfg *Config, err error) check.Result {
	var r check.Result
	switch {
	case err != nil:
		return check.Failed(err)
	case len(cfg.Warnings) > 0:
		r = check.Warned("%s", strings.Join(cfg.Warnings, "; ")).
			Hint("unset it, or correct its name")
	case len(cfg.Files) > 0:
		r = check.Passed("%s", strings.Join(cfg.Files, ", "))
	default:
		r = check.Passed("no configuration file, so the defaults")
	}
	// Where settings come from, and not what they are: a list of arguments may hold anything.
	for _, key := range slices.Sorted(maps.Keys(cfg.origins)) {
		if origin := cfg.Origin(key); origin.Layer != LayerDefault {
			r.Details = append(r.Details, fmt.Sprintf("%s is set by %s", key, origin))
		}
	}
	return r
}

// CheckDirs tells whether sesame's directories, as DirsOf returned them, can be used
// and are the user's alone. It makes none of them.
func CheckDirs(dirs Dirs, err error) check.Check {
	c := check.Check{ID: "config.dirs", Group: settingsGroup, Title: "directories"}
	if err != nil {
		c.Run = check.Found(check.Failed(err))
		return c
	}
	c.Run = check.Found(dirsResult(dirs))
	return c
}

func dirsResult(dirs Dirs) check.Result {
	worst := check.Passed("%s", strings.Join([]string{dirs.Config, dirs.Cache, dirs.State}, ", "))
	for _, d := range []struct {
		path, variable, without string
		vital                   bool
	}{
		{dirs.Config, "XDG_CONFIG_HOME", "`sesame login` cannot store a key", false},
		{dirs.Cache, "XDG_CACHE_HOME", "Amp cannot be fetched", false},
		{dirs.State, "XDG_STATE_HOME", "no session can be kept", true},
	} {
		trouble := judgeDir(d.path)
		if trouble.what == "" || d.variable == "XDG_CACHE_HOME" && filledByRoot(d.path) {
			continue
		}
		r := check.Warned("%s: %s, so that %s", trouble.where, trouble.what, d.without)
		switch {
		case trouble.remedy != "":
			r = check.Failed(fmt.Errorf("%s: %s", trouble.where, trouble.what)).Hint(trouble.remedy)
			if where := trouble.where; trouble.loose {
				r = r.Mended("chmod 700 "+where, func(context.Context) error { return os.Chmod(where, 0o700) }) //nolint:gosec // a directory
			}
		case d.vital:
			r = check.Failed(errors.New(r.Summary))
		}
		if trouble.remedy == "" {
			r = r.Hint(fmt.Sprintf("let %s be a directory that you may write to, or set %s to one that has a place for it", d.path, d.variable))
		}
		worst = worse(worst, r)
	}
	return worst
}

// worse is one result of two: that of the worse status, with what the other found.
func worse(a, b check.Result) check.Result {
	switch {
	case a.Status == check.OK:
		return b
	case a.Status == check.Warn && b.Status == check.Fail:
		a, b = b, a
	}
	a.Details = append(a.Details, b.Summary)
	a.Remedy = append(a.Remedy, b.Remedy...)
	if first, second := a.Fix, b.Fix; second != nil {
		a.Fix = second
		if first != nil {
			a = a.Mended(first.Does+", "+second.Does, func(ctx context.Context) error {
				return errors.Join(first.Do(ctx), second.Do(ctx))
			})
		}
	}
	return a
}

// dirTrouble is what is wrong with a directory; nothing when what is empty.
type dirTrouble struct {
	where, what, remedy string
	loose               bool // its permissions are all that is wrong
}

func judgeDir(dir string) dirTrouble {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It will be made when it is needed, if what is above lets us.
		above := filepath.Dir(dir)
		if _, linkErr := os.Lstat(dir); linkErr == nil {
			return dirTrouble{where: dir, what: "a symbolic link to nowhere"}
		}
		if above == dir {
			return dirTrouble{where: dir, what: "does not exist"}
		}
		if trouble := judgeParent(above); trouble != "" {
			return dirTrouble{where: dir, what: "cannot be made (" + trouble + ")"}
		}
		return dirTrouble{}
	case err != nil:
		return dirTrouble{where: dir, what: fmt.Sprintf("cannot be used (%v)", errors.Unwrap(err))}
	case !info.IsDir():
		return dirTrouble{where: dir, what: "not a directory"}
	}
	if why, remedy := looseDir(info, dir); why != "" {
		loose := strings.HasPrefix(remedy, "chmod ")
		if loose {
			remedy = "`" + remedy + "`"
		}
		return dirTrouble{dir, why, remedy, loose}
	}
	if err := mayWrite(dir); err != nil {
		return dirTrouble{where: dir, what: fmt.Sprintf("not writable (%v)", err)}
	}
	return dirTrouble{}
}

// judgeParent says why no directory could be made below dir, "" when it could.
func judgeParent(dir string) string {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		return judgeParent(filepath.Dir(dir))
	case err != nil:
		return fmt.Sprintf("%s: %v", dir, errors.Unwrap(err))
	case !info.IsDir():
		return dir + " is not a directory"
	}
	if err := mayWrite(dir); err != nil {
		return fmt.Sprintf("%s: %v", dir, err)
	}
	return ""
}

// CheckKey tells whether there is a key, and where, as FindKey returned it.
// loose is the file of the keys where its permissions are what is wrong, else "".
func CheckKey(from Source, err error, loose string) check.Check {
	c := check.Check{ID: CheckKeyID, Group: keyGroup, Title: "found", Needs: []string{CheckFilesID}}
	switch {
	case err != nil && loose != "":
		c.Run = check.Found(check.Failed(err).Mended("chmod 600 "+loose, func(context.Context) error { return os.Chmod(loose, filePrivate) }))
	case err != nil:
		c.Run = check.Found(check.Failed(err))
	case from == FromEnvironment:
		c.Run = check.Found(check.Passed("in %s", from))
	default:
		c.Run = check.Found(check.Passed("stored in %s", from))
	}
	return c
}
