package cmd

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// patient is what the doctor looks at, as far as it could be had: an error here is
// what one of the checks is about, and stops none of the others.
type patient struct {
	app       *app
	limit     time.Duration // of a check
	offline   bool
	resolver  *net.Resolver  // nil: the system's
	rootCAs   *x509.CertPool // nil: the system's
	store     config.KeyStore
	dirs      config.Dirs
	dirsErr   error
	cfg       *config.Config
	cfgErr    error
	keySource config.Source
	key       config.Key
	keyErr    error

	workspace    string // where a turn would run; "" where it could not
	workspaceErr error
	policy       *sandbox.Policy // of a turn, without what would leave traces
	env          []string        // inside
	turnEnv      []string        // likewise, with what stands for the key
	policyErr    error
	program      string // this executable, to be started inside
	programErr   error
}

// patient finds out what there is to look at. cleanUp removes the directory that
// stands in for a workspace that cannot be one.
func (o *doctorOptions) patient() (p *patient, cleanUp func()) {
	a := o.app
	p = &patient{app: a, limit: o.limits.Each, offline: o.offline, resolver: o.resolver, rootCAs: o.rootCAs}
	cleanUp = func() {}
	p.dirs, p.dirsErr = a.dirs()
	p.workspace, p.workspaceErr = a.workspace(p.dirs)
	file := a.configFile
	if file != "" {
		file, p.cfgErr = a.absolute(file)
	}
	cfg, err := config.Load(config.Options{
		Env: a.env, Dirs: p.dirs, ConfigFile: file, Workspace: p.workspace, Dir: a.cwd, Flags: flagsOf(o.cmd),
	})
	p.cfg = cfg
	if p.cfgErr == nil {
		p.cfgErr = err
	}
	a.quiet = cfg.Quiet
	if p.cfgErr != nil {
		return p, cleanUp // which service, which key, which Amp: nobody knows
	}
	p.findKey()
	p.program, p.programErr = o.executable()
	if p.programErr == nil {
		p.program, p.programErr = filepath.EvalSymlinks(p.program)
	}
	workspace := p.workspace
	if workspace == "" {
		// The sandbox can be tried nevertheless.
		if workspace, p.policyErr = os.MkdirTemp("", "sesame-doctor-"); p.policyErr != nil {
			return p, cleanUp
		}
		stand := workspace
		cleanUp = func() { _ = os.Remove(stand) } // empty, as nothing was started that writes
		workspace = resolved(workspace)
	}
	p.makePolicy(workspace)
	return p, cleanUp
}

func (p *patient) findKey() {
	if p.dirsErr == nil {
		p.store = config.KeyStore{Path: p.dirs.Credentials(), Keyring: p.app.keyring}
	}
	p.key, p.keySource, p.keyErr = config.FindKey(p.app.env, p.store, p.cfg.Amp.URL)
	if p.keyErr == nil {
		p.app.redactor.Add(p.key)
	}
}

func (p *patient) makePolicy(workspace string) {
	policy, err := p.app.newPolicy(p.cfg, p.dirs, workspace)
	if err != nil {
		p.policyErr = err
		return
	}
	policy.HomeState, policy.GuardState, policy.Notice, policy.Denied = "", "", nil, nil
	policy.Private = slices.DeleteFunc(policy.Private, func(dir string) bool { return dir == "" })
	p.policy = policy
	var inside config.Key
	p.env, inside, p.policyErr = p.app.insideEnv(p.cfg, policy, p.key)
	if !inside.IsZero() {
		p.turnEnv = append(slices.Clone(p.env), "AMP_API_KEY="+inside.Reveal())
	} else {
		p.turnEnv = p.env
	}
}

// showing is the policy with some more to read; nil where there is none.
func (p *patient) showing(paths ...string) *sandbox.Policy {
	if p.policy == nil {
		return nil
	}
	policy := *p.policy
	policy.AllowRead = slices.Clone(policy.AllowRead)
	for _, path := range paths {
		if path != "" {
			policy.AllowRead = append(policy.AllowRead, path)
		}
	}
	return &policy
}
