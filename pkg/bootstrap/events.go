package bootstrap

import "time"

// Events are called, where they are set, while a version is being fetched, all
// from the goroutine that called the Installer.
type Events struct {
	// Started is called when a source has begun to send; again when another source takes over.
	Started func(Started)
	// Progress tells how many bytes of Started.Size have come so far.
	Progress func(received int64)
	// Done is called once the binary is verified and in the cache.
	Done func(Binary)
	// Waiting is called when another process is fetching the same version.
	Waiting func(version string)
	// Retrying is called when a source failed and is tried again after the wait.
	Retrying func(source string, err error, wait time.Duration)
	// Failed is called when one source could not deliver, and another may.
	Failed func(source string, err error)
	// Warning is called with what a person should know although the work goes on.
	Warning func(message string)
}

// Started says what is being fetched.
type Started struct {
	Version string
	Source  string
	URL     string // without secrets
	Size    int64  // bytes on the wire, -1 when unknown
	Resumed int64  // bytes that an earlier attempt left
}

func (e Events) started(s Started) {
	if e.Started != nil {
		e.Started(s)
	}
}

func (e Events) progress(n int64) {
	if e.Progress != nil {
		e.Progress(n)
	}
}

func (e Events) done(b Binary) {
	if e.Done != nil {
		e.Done(b)
	}
}

func (e Events) waiting(version string) {
	if e.Waiting != nil {
		e.Waiting(version)
	}
}

func (e Events) retrying(source string, err error, wait time.Duration) {
	if e.Retrying != nil {
		e.Retrying(source, err, wait)
	}
}

func (e Events) failed(source string, err error) {
	if e.Failed != nil {
		e.Failed(source, err)
	}
}

func (e Events) warning(message string) {
	if e.Warning != nil {
		e.Warning(message)
	}
}
