package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sandboxes of a workspace that run at the same time cannot tell what one of them changes from what the user does. So the first of them notes
// what is there, and these notes stay until the last one has ended. Those that begin meanwhile take nothing for the user's that has changed
// since: they neither copy it nor put it back. Each sweeps what it may have done itself; the last one sweeps by the notes, too,
// in case another was killed.

// guardLockFile has two locks. Every sandbox that runs has a part in one of them (a record lock of the open file), whole while there is
// but one; the other (flock) is with whoever keeps notes.
const guardLockFile = "guard-lock"

// waitingIsTold is how long a sandbox waits for another one to begin or end before it says so.
const waitingIsTold = time.Second

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
	for begun, told := time.Now(), false; locked(recordLock(f, unix.F_WRLCK)); {
		if recordLock(f, unix.F_RDLCK) == nil {
			if !locked(recordLock(f, unix.F_WRLCK)) {
				break // they have gone by now
			}
			b.part, b.joined = f, b.readNoted()
			return nil
		}
		if !told && time.Since(begun) > waitingIsTold {
			b.notice("waiting for another sandbox of this workspace, which begins or ends")
			told = true
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), f.Close())
		case <-time.After(time.Millisecond):
		}
	}
	// Where files cannot be locked like that, nobody knows of others.
	b.part = f
	b.lockGuard()
	return nil
}

// locked tells whether another one has a lock.
func locked(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }

// share leaves others a part: what is there is noted.
func (b *box) share() {
	if b.part != nil && b.joined == nil {
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
	if b.part == nil {
		return
	}
	_ = recordLock(b.part, unix.F_UNLCK)
	if b.guardLock != nil {
		_ = unix.Flock(int(b.guardLock.Fd()), unix.LOCK_UN)
	}
	b.part.Close()
	b.part, b.guardLock = nil, nil
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

// lockGuard makes this sandbox the one that keeps notes of the workspace's guard.
func (b *box) lockGuard() {
	if b.part != nil && b.joined == nil && b.guardLock == nil && unix.Flock(int(b.part.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		b.guardLock = b.part
	}
}

// readNoted are the notes that another sandbox has made. Without any, all that is there may be that one's doing.
func (b *box) readNoted() *sweep {
	s := sweep{}
	if data, err := os.ReadFile(filepath.Join(b.policy.HomeState, guardFile)); err == nil {
		s = decodeSweep(data)
	}
	return &s
}

// isNew tells whether something that is kept has changed since other sandboxes run.
func (l *look) isNew(k kept) bool {
	for _, f := range k.Files {
		if f.ID.Changed >= l.othersSince {
			return l.together
		}
	}
	return false
}

// notedBefore is what others have noted of a path before it could be changed.
func (b *box) notedBefore(path string) (kept, bool) {
	if b.joined != nil {
		for _, k := range b.joined.kept {
			if k.Path == path {
				return k, true
			}
		}
	}
	return kept{}, false
}
