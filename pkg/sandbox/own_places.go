//go:build unix

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ownPlaces are the directories that a sandbox has of its own where nothing can be mounted.
type ownPlaces struct {
	policy *Policy
	run    string // the run's own directory: "tmp", "files" and, if it is not kept, "home"
	home   string
	lock   *os.File // of Policy.HomeState, or nil

	// reads tells whether the sandbox may read a path with all below it; shows, whether something below.
	reads, shows func(path string) bool
}

// newOwnPlaces makes the run's directory in a temporary one, "" for the usual.
func newOwnPlaces(p *Policy, parent string) (ownPlaces, error) {
	run, err := os.MkdirTemp(parent, "sesame-")
	if err != nil {
		return ownPlaces{}, err
	}
	if run, err = filepath.EvalSymlinks(run); err != nil {
		return ownPlaces{}, err
	}
	o := ownPlaces{policy: p, run: run}
	for _, dir := range []string{o.tmp(), o.files()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			o.close()
			return ownPlaces{}, err
		}
	}
	return o, nil
}

func (o *ownPlaces) tmp() string   { return filepath.Join(o.run, "tmp") }
func (o *ownPlaces) files() string { return filepath.Join(o.run, "files") }

// close removes what the sandbox does not remove by itself when all goes well.
func (o *ownPlaces) close() {
	_ = os.RemoveAll(o.run) // what is left is in the user's own temporary directory
	if o.lock != nil {
		o.lock.Close()
	}
}

// prepareHomeState makes the directory that keeps the home's changes. The file "workspace" in it says whose it is.
func prepareHomeState(state, workspace string) error {
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o700); err != nil {
			return err
		}
	}
	owner := filepath.Join(state, "workspace")
	if _, err := os.Stat(owner); err == nil {
		return nil
	}
	return os.WriteFile(owner, []byte(workspace), 0o600)
}

// openOwn opens a directory that commands can close for sesame as well, as they can their home.
func openOwn(dir string) (*os.Root, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if info.Mode()&0o700 != 0o700 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return os.OpenRoot(dir)
}

// takeHome makes the home, or brings the one that is kept up to date.
func (o *ownPlaces) takeHome() error {
	o.home = filepath.Join(o.run, "home")
	if state := o.policy.HomeState; state != "" {
		if err := prepareHomeState(state, o.policy.Workspace); err != nil {
			return err
		}
		lock, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		// Several sandboxes may share it, as programs share a home. Who wants to remove it has to wait.
		_ = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		o.lock = lock
		real, err := filepath.EvalSymlinks(state)
		if err != nil {
			return err
		}
		o.home = filepath.Join(real, confinedHome)
	}
	if err := os.MkdirAll(o.home, 0o700); err != nil {
		return err
	}
	if o.policy.Home == "" {
		return nil
	}
	h, err := o.openMirror()
	if err != nil {
		return err
	}
	defer h.root.Close()
	return h.fill()
}

// give writes the policy's files where the sandbox can read them.
func (o *ownPlaces) give() error {
	return writeFiles(o.files(), o.policy.Files)
}

// insidePaths turns the paths that other tiers have into those of this one: arguments and variables name them.
func (o *ownPlaces) insidePaths() *strings.Replacer {
	return strings.NewReplacer(PrivateDir+"/", o.files()+"/", homeWithin, filepath.Join(o.run, "home"))
}

// writtenHomes are variables that say where in the home a toolchain also writes.
var writtenHomes = []string{"GOPATH", "CARGO_HOME", "GEM_HOME", "DENO_DIR", "BUN_INSTALL", "PNPM_HOME"}

// environment is the command's, for the home and the temporary directory that there are.
func (o *ownPlaces) environment(env []string) []string {
	inside := o.insidePaths()
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "HOME":
			value = o.home
		case name == "TMPDIR" || name == "TEMP" || name == "TMP":
			continue
		case o.policy.Home != "" && slices.Contains(writtenHomes, name) && within(value, o.policy.Home):
			value = o.home + strings.TrimPrefix(value, o.policy.Home)
		case name == "PATH":
			value = o.searchPath(value)
		default:
			value = inside.Replace(value)
		}
		out = append(out, name+"="+value)
	}
	return append(out, "TMPDIR="+o.tmp())
}

// searchPath leaves out the directories that cannot be read: a shell would find programs there, and fail to start them.
func (o *ownPlaces) searchPath(path string) string {
	dirs := slices.DeleteFunc(filepath.SplitList(path), func(dir string) bool { return !o.reads(resolve(dir)) })
	return strings.Join(dirs, string(filepath.ListSeparator))
}
