package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// pruneAge is how long a session stays unused before prune takes it.
const pruneAge = "30d"

func sessionsRemove(_ context.Context, o *sessionsOptions, store *session.Store, _ config.Dirs) error {
	// All are found before the first is removed: a slip in one id removes nothing.
	ids := make([]string, len(o.sessions))
	for i, name := range o.sessions {
		id, err := store.Find(name)
		if err != nil {
			return err
		}
		ids[i] = id
	}
	for _, id := range ids {
		if err := store.Remove(id); err != nil {
			return err
		}
		o.app.say("removed session %s", id)
	}
	return nil
}

func sessionsPrune(ctx context.Context, o *sessionsOptions, store *session.Store, dirs config.Dirs) error {
	a := o.app
	p := session.Prune{Keep: o.keep, DryRun: o.dryRun}
	if o.keep < 0 {
		return fault.New(fault.Usage, "--keep: %d is negative", o.keep)
	}
	// --keep alone is about how many, not about how old.
	if flags := o.cmd.Flags(); flags.Changed("older-than") || !flags.Changed("keep") {
		var err error
		if p.OlderThan, err = parseAge(o.olderThan); err != nil {
			return fault.New(fault.Usage, "--older-than: %w", err)
		}
	}
	sizes := map[string]int64{}
	entries, _, err := store.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		sizes[e.ID] = diskUse(store.Dir(e.ID))
	}
	removed, err := store.Prune(p)
	var freed int64
	for _, id := range removed {
		freed += sizes[id]
		err = errors.Join(err, a.answer("%s\n", id))
	}
	if err != nil {
		return err
	}
	entries, broken, err := store.List()
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e session.Entry) bool { return slices.Contains(removed, e.ID) }) // of a dry run
	homes, bytes := 0, int64(0)
	if len(broken) > 0 {
		// Which workspaces they are of cannot be known.
		a.warn("what the sandbox kept of home directories stays while there are sessions that cannot be read")
	} else if homes, bytes, err = pruneHomes(ctx, dirs, entries, o.dryRun); err != nil {
		return err
	}
	did, freeing := "removed", "freed"
	if o.dryRun {
		did, freeing = "would remove", "free"
	}
	text := did + " " + counted(len(removed), "session")
	if homes > 0 {
		text += " and what the sandbox kept of the home for " + counted(homes, "workspace")
	}
	a.say("%s, %s %s", text, freeing, bytesText(freed+bytes))
	return nil
}

// parseAge reads a duration that may be in days: "7d".
func parseAge(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.Atoi(number)
		if err != nil || days < 0 || days > 100_000 {
			return 0, fmt.Errorf("%q is not a number of days", text)
		}
		return time.Duration(days) * day, nil
	}
	return config.ParseDuration(text)
}

// diskUse is what the files below a directory hold, in bytes, as far as it can be seen.
func diskUse(dir string) int64 {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0
	}
	defer root.Close()
	var sum int64
	_ = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
