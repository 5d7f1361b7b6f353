package bootstrap

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// failedPrefix begins the message of every fault of this package; people search for it.
const failedPrefix = "bootstrap failed: "

// sourceFailure is what became of one source.
type sourceFailure struct {
	source string
	err    error
}

// failureList is what became of all sources, in one line.
type failureList []sourceFailure

func (l failureList) Error() string {
	parts := make([]string, len(l))
	for i, f := range l {
		parts[i] = f.source + ": " + f.err.Error()
	}
	return strings.Join(parts, "; ")
}

func (l failureList) Unwrap() []error {
	errs := make([]error, len(l))
	for i, f := range l {
		errs[i] = f.err
	}
	return errs
}

func joinFailures(failures []sourceFailure) error { return failureList(failures) }

// failed makes the fault with the hints of the guide's "Bootstrap Failed".
func (in *Installer) failed(err error) *fault.Error {
	f := fault.New(fault.BootstrapFailed, failedPrefix+"%w", err)
	for _, hint := range advice(err, in.now()) {
		f = f.Hint("%s", hint)
	}
	if !in.remote() {
		return f.Hint("check the directories of amp.sources, or give an executable with --amp-path")
	}
	return f.Hint("check that this machine has internet access").
		Hint("check that network and firewall rules allow HTTPS to static.ampcode.com and storage.googleapis.com").
		Hint("`sesame doctor` and the session logs have the details; without internet, --amp-path or a directory in amp.sources helps")
}

// advice is what else may help with some failures of sources.
func advice(err error, now time.Time) (hints []string) {
	var wrong *DigestError
	if errors.As(err, &wrong) && wrong.What == pinnedFile {
		hints = append(hints, pinHint)
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		hints = append(hints, fmt.Sprintf("this machine's clock says %s: certificates look expired, or not valid yet, when it is wrong", now.UTC().Format("2006-01-02 15:04 MST")))
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		hints = append(hints, "where a proxy ends TLS, SSL_CERT_FILE (for npm: cafile) names the file of its authority")
	}
	var proxy *proxyError
	if errors.As(err, &proxy) {
		hints = append(hints, "check HTTPS_PROXY and the proxy's rules; NO_PROXY lists the hosts that need none")
	}
	if errors.Is(err, errWebPage) {
		hints = append(hints, "open any page in a browser: the network may want a login first")
	}
	return hints
}

// remote reports whether any source needs a network.
func (in *Installer) remote() bool {
	return slices.ContainsFunc(in.sources, func(s Source) bool {
		_, local := s.(*directory)
		return !local
	})
}

// notFetched tells a version that does not exist from one that cannot be had just now.
func (in *Installer) notFetched(version string, host Platform, failures []sourceFailure) *fault.Error {
	err := joinFailures(failures)
	nowhere := !slices.ContainsFunc(failures, func(f sourceFailure) bool { return !missing(f.err) })
	if nowhere {
		return fault.New(fault.BootstrapFailed, failedPrefix+"no source has amp %s for %s: %w", version, host, err).
			Hint("check the version: `sesame amp install latest` takes the newest one").
			Hint("old versions vanish from npm; a mirror or a directory in amp.sources may keep them")
	}
	return in.failed(fmt.Errorf("amp %s for %s: %w", version, host, err))
}

// cacheFault is for what no source can mend: the disk, the permissions.
func (in *Installer) cacheFault(err error) *fault.Error {
	f := fault.New(fault.BootstrapFailed, failedPrefix+"the cache of amp: %w", err)
	switch {
	case isDiskFull(err):
		f = f.Hint("the disk or your quota is full: amp needs about 200 MB (`sesame amp prune` removes old versions)")
	case errors.Is(err, errReadOnly):
		f = f.Hint("the file system is read-only")
	case errors.Is(err, fs.ErrPermission) && ownedByAnother(in.cache.dir):
		return f.Hint("only root can put anything into %s: it has to run `sesame amp install`", in.cache.dir).
			Hint("XDG_CACHE_HOME puts it elsewhere")
	}
	return f.Hint("%s must be yours alone and have about 200 MB free", in.cache.dir).
		Hint("XDG_CACHE_HOME puts it elsewhere")
}

// interrupted is the fault of a context that ended.
func interrupted(ctx context.Context) *fault.Error {
	code := fault.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = fault.Timeout
	}
	return fault.New(code, "fetching amp was ended: %w", context.Cause(ctx))
}

// ownedByAnother reports whether a cache that may be used, so one of root's, is not this user's.
func ownedByAnother(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && checkPrivate(dir) == nil && !isOwner(info)
}
