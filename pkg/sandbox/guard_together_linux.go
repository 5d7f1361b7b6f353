package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// Sandboxes of a workspace that run at the same time cannot tell what one of them changes from what the user does. So the first of them notes
// what is there, and these notes stay until the last one has ended. Those that begin meanwhile take nothing for the user's that has changed
// since: they neither copy it nor put it back. Each sweeps what it may have done itself; the last one sweeps by the notes, too,
// in case another was killed.

// guardLocks is a file, in Policy.GuardState, with a record lock (of the open file) for each workspace at its number. Every sandbox that runs
// has a part of the workspace's lock, and one that is alone and begins, or ends, has all of it. The one that began alone keeps the notes.
// In the file are the numbers of the workspaces whose sandboxes run, see guardSlots.
const guardLocks = "locks"

// guardLock is a workspace's lock.
type guardLock struct {
	file   *os.File
	number int64
	slot   int // one more than where the number stands; 0 for nowhere
}

// waitingIsTold is how long a sandbox waits for another one to begin or end before it says so.
const waitingIsTold = time.Second

// joinTries is how often a sandbox that finds others looks for their notes: two that begin when a last one ends may take each other for others.
const joinTries = 200

// join takes a part in the guard's lock: all of it if no other sandbox of the workspace is running. It waits while another one has all of it,
// which is for as long as that notes what is there, or sweeps last.
func (b *box) join(ctx context.Context) error {
	if b.policy.GuardState == "" || b.part != nil {
		return nil
	}
	lock, err := openGuardLock(b.policy.GuardState, guardNumber(b.policy.Workspace))
	if err != nil {
		return b.noPlaceForNotes(err)
	}
	b.part = lock
	if err := lock.announce(); err != nil {
		return b.noPlaceForNotes(err)
	}
	begun, told := time.Now(), false
	for tries := 0; ; {
		err := lock.take(unix.F_WRLCK)
		if !locked(err) {
			b.notes = err == nil // or files cannot be locked like that, and nobody knows of others
			if err := os.Mkdir(b.policy.guardDir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return b.noPlaceForNotes(err)
			}
			return nil
		}
		if lock.take(unix.F_RDLCK) == nil {
			noted, ok := readNoted(b.policy.guardDir())
			if tries++; ok || tries > joinTries {
				b.joined = noted
				return nil
			}
			_ = lock.take(unix.F_UNLCK)
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

// noPlaceForNotes says why the guard cannot keep anything, and what helps.
func (b *box) noPlaceForNotes(err error) error {
	return fault.New(fault.SandboxUnavailable, "the guard of the workspace cannot keep its notes in %s: %w", b.policy.GuardState, err).
		Hint("that has to be a directory where you can write; XDG_STATE_HOME puts sesame's state elsewhere")
}

// openGuardLock opens the lock of a workspace's number.
func openGuardLock(state string, number int64) (*guardLock, error) {
	file := filepath.Join(state, guardLocks)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(state, 0o700); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(file, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return &guardLock{file: f, number: number}, nil
}

// LockGuard takes the lock of the guard in a directory of Policy.GuardState, so that this can be removed. It is not ok while a sandbox of its
// workspace is running, and while one that was killed has left something there to put right.
func LockGuard(dir string) (unlock func(), ok bool, err error) {
	state, name := filepath.Split(dir)
	number, err := strconv.ParseInt(name[max(0, len(name)-16):], 16, 64)
	if err != nil {
		return nil, false, err
	}
	lock, err := openGuardLock(state, number)
	if err != nil {
		return nil, false, err
	}
	err = lock.take(unix.F_WRLCK)
	if err == nil {
		noted, left := readNoted(dir)
		if !left || !slices.ContainsFunc(noted.places(), isDir) {
			return func() { lock.file.Close() }, true, nil
		}
	}
	lock.file.Close()
	if locked(err) {
		err = nil
	}
	return nil, false, err
}

// take takes all of the lock (unix.F_WRLCK), a part of it or nothing.
func (g *guardLock) take(kind int16) error { return g.takeAt(g.number, kind) }

func (g *guardLock) takeAt(at int64, kind int16) error {
	lock := unix.Flock_t{Type: kind, Start: at, Len: 1}
	for {
		err := unix.FcntlFlock(g.file.Fd(), unix.F_OFD_SETLK, &lock)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// locked tells whether another one has a lock.
func locked(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }

// share leaves others a part: what is there is noted.
func (b *box) share() {
	if b.notes {
		_ = b.part.take(unix.F_RDLCK) // a lock that one has can be had in part
	}
}

// isLast tells whether no other sandbox is running, and keeps those that begin waiting. Of several that end at the same time one is.
func (b *box) isLast() bool {
	if b.part == nil {
		return true
	}
	if locked(b.part.take(unix.F_WRLCK)) {
		_ = b.part.take(unix.F_UNLCK)
		return !locked(b.part.take(unix.F_WRLCK))
	}
	return true
}

// leaveGuard gives up this sandbox's part. A process that was forked meanwhile may have the file, too: closing it is not enough.
func (b *box) leaveGuard() {
	if b.part != nil {
		b.part.withdraw()
		_ = b.part.take(unix.F_UNLCK)
		b.part.file.Close()
	}
	b.part, b.notes = nil, false
}

// clock is the time that the workspace's file system gives.
func (b *box) clock() (int64, error) {
	var own *os.File
	if b.part != nil {
		own = b.part.file
	}
	return clock(b.policy.Workspace, own)
}

// readNoted are the notes in a guard's directory, if there are any. Without, all that is there may be the doing of who runs.
func readNoted(dir string) (noted *sweep, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, guardFile))
	if err != nil || len(data) == 0 || bytes.HasPrefix(data, swept) {
		return &sweep{}, false
	}
	s := decodeSweep(data)
	return &s, true
}

// noteTrusted notes what this sandbox, which is not the first of its workspace, knows to be the user's: what has not changed since the first began.
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
			b.trusted[c.Path] = !b.others.mayHaveChanged(k)
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
