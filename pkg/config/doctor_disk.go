package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// What must be free, in bytes: a build of Amp is some 100 MB unpacked, and a session's logs grow.
const (
	diskFull = 64 << 20
	diskLow  = 1 << 30
)

// CheckDisk tells whether there is room where sesame keeps Amp and sessions.
func CheckDisk(dirs Dirs, needs ...string) check.Check {
	return check.Check{
		ID: "config.disk", Group: settingsGroup, Title: "free space", Needs: needs,
		Run: func(context.Context) check.Result { return diskResult(dirs) },
	}
}

func diskResult(dirs Dirs) check.Result {
	r := check.Skipped("there is no directory to look at")
	for _, d := range []struct{ dir, remedy string }{
		{dirs.Cache, "remove old versions of Amp with `sesame amp prune`, or set XDG_CACHE_HOME to a larger disk"},
		{dirs.State, "remove old sessions with `sesame sessions prune --older-than 7d`, or set XDG_STATE_HOME to a larger disk"},
	} {
		free, err := freeSpace(existing(d.dir))
		now := check.Passed("%s at %s", gigabytes(free), d.dir)
		switch {
		case d.dir == "" || err != nil:
			continue
		case free < diskFull:
			now = check.Failed(fmt.Errorf("the disk of %s is full: %s left", d.dir, gigabytes(free))).Hint(d.remedy)
		case free < diskLow:
			now = check.Warned("little is left on the disk of %s: %s", d.dir, gigabytes(free)).Hint(d.remedy)
		}
		if r.Status == check.Skip {
			r = now
		} else if now.Status != check.OK {
			r = worse(r, now)
		}
	}
	return r
}

func gigabytes(bytes uint64) string {
	const mega, giga = 1e6, 1e9
	if bytes < giga {
		return fmt.Sprintf("%.0f MB", float64(bytes)/mega)
	}
	return fmt.Sprintf("%.0f GB", float64(bytes)/giga)
}

// existing is the directory, or the nearest one above it that there is.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
