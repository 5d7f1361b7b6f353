package cmd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// patient is what the doctor looks at, as far as it could be had: an error here is
// what one of the checks is about, and stops none of the others.
type patient struct {
	app       *app
	limit     time.Duration // of a check
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
	policyErr    error
	program      string // this executable, to be started inside
	programErr   error
}

// patient finds out what there is to look at. cleanUp removes the directory that
// stands in for a workspace that cannot be one.
func (o *doctorOptions) patient() (p *patient, cleanUp func()) {
	a := o.app
	p = &patient{app: a, limit: o.limits.Each}
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
	var store config.KeyStore
	if p.dirsErr == nil {
		store = config.KeyStore{Path: p.dirs.Credentials(), Keyring: p.app.keyring}
	}
	p.key, p.keySource, p.keyErr = config.FindKey(p.app.env, store, p.cfg.Amp.URL)
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
	policy.HomeState, policy.Notice, policy.Denied = "", nil, nil
	policy.Private = slices.DeleteFunc(policy.Private, func(dir string) bool { return dir == "" })
	p.policy = policy
	p.env, p.policyErr = p.app.insideEnv(p.cfg, policy)
}

// checks are all there are, in the order of the screen. Each lives in the package of
// what it looks at.
func (p *patient) checks() []check.Check {
	const settings, tier = config.CheckFilesID, sandbox.CheckTierID
	url := ""
	if p.cfg != nil {
		url = p.cfg.Amp.URL
	}
	return []check.Check{
		config.CheckFiles(p.cfg, p.cfgErr),
		config.CheckDirs(p.dirs, p.dirsErr),
		p.checkWorkspace(),
		config.CheckKey(p.keySource, p.keyErr),
		amp.CheckKey(p.askService, config.CheckKeyID, amp.CheckHostID),
		amp.CheckHost(url, settings),
		p.checkInside(url, settings, tier, amp.CheckHostID),
		p.checkCached(settings),
		p.checkStarts(settings, bootstrap.CheckCachedID, tier),
		p.checkTier(settings),
	}
}

func (p *patient) askService(ctx context.Context) (string, error) {
	who, err := p.app.checkKey(ctx, p.cfg.Amp.URL, p.key)
	return who.String(), err
}

// checkWorkspace tells whether a turn could begin in this directory. That it could not
// is nothing to be mended, unless the user named the directory.
func (p *patient) checkWorkspace() check.Check {
	r := check.Passed("%s", p.workspace)
	if p.workspaceErr != nil {
		r = check.Failed(p.workspaceErr)
		if p.app.cd == "" {
			r.Status, r.Code = check.Warn, ""
		}
	}
	return check.Check{ID: "config.workspace", Group: "configuration", Title: "workspace", Run: check.Found(r)}
}

func (p *patient) checkTier(needs ...string) check.Check {
	c := sandbox.CheckTier(p.policy, p.env, p.program, needs...)
	if p.policyErr != nil {
		c.Run = check.Found(check.Failed(p.policyErr))
	}
	return c
}

func (p *patient) checkInside(url string, needs ...string) check.Check {
	command := &sandbox.Command{Args: []string{p.program, "doctor", "probe", url}, Env: p.env}
	c := amp.CheckInside(amp.InPolicy(p.showing(p.program)), command, url, needs...)
	switch {
	case p.cfg.Sandbox.Tier == string(sandbox.Off):
		c.Run = check.Found(check.Skipped("there is no sandbox to ask from: it is off"))
	case p.programErr != nil:
		c.Run = check.Found(check.Failed(p.programErr))
	}
	return c
}

// checkCached looks for the Amp that would run.
func (p *patient) checkCached(needs ...string) check.Check {
	own, err := ownAmp(p.cfg)
	c := bootstrap.CheckPath(own, needs...)
	switch {
	case err != nil:
		c.Run = check.Found(check.Failed(err))
	case own != "":
	case p.dirsErr != nil:
		c.Run = check.Found(check.Skipped("without directories there is no cache"))
	default:
		in, err := p.app.installer(p.cfg, p.dirs)
		if err != nil {
			c.Run = check.Found(check.Failed(err))
			break
		}
		c = in.CheckCached(p.cfg.Amp.Version, needs...)
	}
	return c
}

// checkStarts starts the Amp that would run, if there is one.
func (p *patient) checkStarts(needs ...string) check.Check {
	binary, err := bootstrap.Binary{}, p.dirsErr
	if own, ownErr := ownAmp(p.cfg); err == nil || own != "" {
		if err = ownErr; err == nil {
			binary, err = p.app.cachedAmp(p.cfg, p.dirs)
		}
	}
	policy := p.showing()
	if err == nil && policy != nil {
		policy = p.showing(programRoot(binary.Path, policy))
	}
	// It ends in time to say so itself.
	prober := &amp.Prober{Launcher: amp.InPolicy(policy), Env: p.env, Timeout: p.limit * 4 / 5}
	c := prober.CheckStarts(binary.Path, needs...)
	if err != nil {
		c.Run = check.Found(check.Skipped("there is no Amp to start"))
		if fault.CodeOf(err) != fault.BootstrapFailed {
			c.Run = check.Found(check.Skipped("%v", err))
		}
	}
	return c
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
