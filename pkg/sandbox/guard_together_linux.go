package sandbox

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sandboxes of a workspace that run at the same time cannot tell what one of them changes from what the user does. So the first of them notes
// what is there, and these notes stay until the last one has ended. Those that begin meanwhile take nothing for the user's that has changed
// since: they neither copy it nor put it back. Each sweeps what it may have done itself; the last one sweeps by the notes, too,
// in case another was killed.

// guardLockFile is locked (a record lock of the open file) by every sandbox that runs, each having a part of the lock, and as a whole by one
// that is alone and begins, or ends. The one that began alone keeps the notes.
const guardLockFile = "guard-lock"

// waitingIsTold is how long a sandbox waits for another one to begin or end before it says so.
const waitingIsTold = time.Second

// joinTries is how often a sandbox that finds others looks for their notes: two that begin when a last one ends may take each other for others.
const joinTries = 200

// join takes a part in the guard's lock: all of it if no other sandbox of the workspace is running. It waits while another one has all of it,
// which is for as long as that notes what is there, or sweeps last.
func (b *box) join(ctx context.Context) error {
	if b.policy.HomeState == "" || b.part != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(b.policy.HomeState, guardLockFile), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil //nolint:nilerr // nothing can be noted then
	}
	b.part = f
	begun, told := time.Now(), false
	for tries := 0; ; {
		err := recordLock(f, unix.F_WRLCK)
		if !locked(err) {
			b.notes = err == nil // or files cannot be locked like that, and nobody knows of others
			return nil
		}
		if recordLock(f, unix.F_RDLCK) == nil {
			noted, ok := b.readNoted()
			if tries++; ok || tries > joinTries {
				b.joined = noted
				return nil
			}
			_ = recordLock(f, unix.F_UNLCK)
		}
		if !told && time.Since(begun) > waitingIsTold {
			b.notice("waiting for another sandbox of this workspace, which begins or ends")
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond/2 + rand.N(time.Millisecond)):
		}
	}
}

// locked tells whether another one has a lock.
func locked(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }

// share leaves others a part: what is there is noted.
func (b *box) share() {
	if b.notes {
		_ = recordLock(b.part, unix.F_RDLCK) // a lock that one has can be had in part
	}
}

// isLast tells whether no other sandbox is running, and keeps those that begin waiting. Of several that end at the same time one is.
func (b *box) isLast() bool {
	if b.part == nil {
		return true
	}
	if locked(recordLock(b.part, unix.F_WRLCK)) {
		_ = recordLock(b.part, unix.F_UNLCK)
		return !locked(recordLock(b.part, unix.F_WRLCK))
	}
	return true
}

// leaveGuard gives up this sandbox's part. A process that was forked meanwhile may have the file, too: closing it is not enough.
func (b *box) leaveGuard() {
	if b.part != nil {
		_ = recordLock(b.part, unix.F_UNLCK)
		b.part.Close()
	}
	b.part, b.notes = nil, false
}

func recordLock(f *os.File, kind int16) error {
	lock := unix.Flock_t{Type: kind}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// readNoted are the notes that another sandbox has made, if there are any. Without, all that is there may be that one's doing.
func (b *box) readNoted() (noted *sweep, ok bool) {
	data, err := os.ReadFile(filepath.Join(b.policy.HomeState, guardFile))
	if err != nil || len(data) == 0 || bytes.HasPrefix(data, swept) {
		return &sweep{}, false
	}
	s := decodeSweep(data)
	return &s, true
}

// changedSince tells whether something of what is kept has changed since a time.
func (k kept) changedSince(when int64) bool {
	return slices.ContainsFunc(k.Files, func(f keptFile) bool { return f.ID.Changed >= when })
}

// notedBefore is what those that were running before this sandbox have noted of a path.
func (l *look) notedBefore(path string) (kept, bool) {
	if l.joined != nil {
		if i := slices.IndexFunc(l.joined.kept, func(k kept) bool { return k.Path == path }); i >= 0 {
			return l.joined.kept[i], true
		}
	}
	return kept{}, false
}

// noteTrusted notes what this sandbox, which is not the first, knows to be the user's: what has not changed since the first began.
func (b *box) noteTrusted() {
	b.trusted = map[string]bool{}
	for _, k := range b.sweep.kept {
		b.trusted[k.Path] = !k.Foreign
	}
	for _, c := range b.sweep.shut {
		if c.Hides || c.isModules() {
			continue
		}
		if k, err := b.look.copies.keep(c.Path); err == nil {
			b.trusted[c.Path] = !k.changedSince(b.joined.since)
		}
	}
}

// sweepLast does what others may have left, if this sandbox ran beside them and is the last one. What it knew to be the user's it has dealt with.
func (b *box) sweepLast() {
	if b.joined == nil || !b.isLast() {
		return
	}
	b.joined, b.notes = nil, b.part != nil
	b.sweepLeft()
}
