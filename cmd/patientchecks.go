package cmd

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// checks are all there are, in the order of the screen. Each lives in the package of
// what it looks at.
func (p *patient) checks() []check.Check {
	const settings = config.CheckFilesID
	return slices.Concat(
		p.environmentChecks(),
		p.keyChecks(),
		p.serviceChecks(settings),
		p.ampChecks(settings),
		p.sandboxChecks(settings),
		p.sessionChecks(),
		amp.CheckTools(p.app.env.Get("PATH")),
	)
}

// without makes checks say only why they are not made.
func without(why string, checks []check.Check) []check.Check {
	for i := range checks {
		checks[i].Run, checks[i].Needs = check.Found(check.Skipped("%s", why)), nil
	}
	return checks
}

// online are checks that ask the network.
func (p *patient) online(checks ...check.Check) []check.Check {
	if p.offline {
		return without("it asks the network, and --offline is given", checks)
	}
	return checks
}

func (p *patient) environmentChecks() []check.Check {
	checks := []check.Check{
		config.CheckFiles(p.cfg, p.cfgErr),
		config.CheckDirs(p.dirs, p.dirsErr),
		p.checkWorkspace(),
		p.checkDisk(),
	}
	if in := p.installer(); in != nil {
		build := readBuild()
		checks = append(checks, in.CheckPlatform("sesame "+build.Version+" on "+build.Platform))
	}
	return checks
}

// checkDisk makes room by removing what `sesame amp prune` would.
func (p *patient) checkDisk() check.Check {
	c := config.CheckDisk(p.dirs)
	in := p.installer()
	look := c.Run
	c.Run = func(ctx context.Context) check.Result {
		r := look(ctx)
		if in == nil || r.Status == check.OK || r.Status == check.Skip {
			return r
		}
		if list, err := in.List(); err != nil || len(list) <= p.cfg.Amp.KeepVersions {
			return r
		}
		return r.Mended("removed old versions of Amp", func(ctx context.Context) error {
			_, err := in.Prune(ctx, p.cfg.Amp.KeepVersions)
			return err
		})
	}
	return c
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

func (p *patient) keyChecks() []check.Check {
	accepted := amp.CheckKey(func(ctx context.Context) (string, error) {
		who, err := p.app.checkKey(ctx, p.cfg.Amp.URL, p.key)
		return who.String(), err
	}, config.CheckKeyID, amp.CheckHostID)
	return append([]check.Check{
		config.CheckKey(p.keySource, p.keyErr, p.store.Loose()),
		config.CheckKeyShape(p.key, config.CheckKeyID),
		config.CheckStored(p.store, p.cfg.Amp.URL, p.keySource, p.key, config.CheckKeyID),
	}, p.online(accepted)...)
}

func (p *patient) serviceChecks(settings string) []check.Check {
	url := p.cfg.Amp.URL
	roots := p.rootCAs
	if roots == nil {
		// Where they cannot be read the system's are taken, and the sandbox's own check says why.
		roots, _ = sandbox.HostRoots(p.app.env.List())
	}
	thread := p.thread()
	route := &amp.Route{Base: url, Proxy: proxyOf(p.app.env), Resolver: p.resolver, RootCAs: roots, Thread: thread}
	checks := amp.CheckRoute(route, settings)
	command := &sandbox.Command{Args: []string{p.program, "doctor", "route", url}, Env: p.env}
	if thread != "" {
		command.Args = append(command.Args, thread)
	}
	inside := amp.CheckInside(amp.InPolicy(p.showing(p.program)), command, url, settings, sandbox.CheckTierID, amp.CheckHostID)
	return p.online(append(checks, p.fromInside(inside...)...)...)
}

// thread is the newest one that the service has of this user, "" where none is known.
func (p *patient) thread() string {
	if p.dirsErr != nil || p.offline {
		return ""
	}
	entries, _, err := session.NewStore(p.dirs.State, p.app.now).List()
	if err != nil {
		return "" // the check of the sessions says so
	}
	for _, e := range entries {
		if e.ThreadID != "" && e.ServiceURL == p.cfg.Amp.URL {
			return e.ThreadID
		}
	}
	return ""
}

// fromInside are checks that this program makes in the sandbox.
func (p *patient) fromInside(checks ...check.Check) []check.Check {
	switch {
	case p.cfg.Sandbox.Tier == string(sandbox.Off):
		return without("there is no sandbox to ask from: it is off", checks)
	case p.programErr != nil:
		return without(fmt.Sprintf("this program cannot be found: %v", p.programErr), checks)
	}
	return checks
}

// installer is what looks after the cache; nil where there can be none.
func (p *patient) installer() *bootstrap.Installer {
	if p.cfgErr != nil || p.dirsErr != nil {
		return nil
	}
	in, err := p.app.installer(p.cfg, p.dirs)
	if err != nil {
		return nil // ampChecks says why
	}
	return in
}

// ampChecks are those of the Amp that would run, and of where it comes from.
func (p *patient) ampChecks(settings string) []check.Check {
	own, err := ownAmp(p.cfg)
	cached := bootstrap.CheckPath(own, settings)
	fetched := []check.Check{p.inTime(bootstrap.CheckPinned(own, p.cfg.Amp.SHA256, bootstrap.CheckCachedID))}
	in := p.installer()
	switch {
	case err != nil:
		cached.Run = check.Found(check.Failed(err))
	case own != "":
	case p.dirsErr != nil:
		cached.Run = check.Found(check.Skipped("without directories there is no cache"))
	case p.cfgErr == nil && in == nil:
		_, err := p.app.installer(p.cfg, p.dirs)
		cached.Run = check.Found(check.Failed(err))
	case in != nil:
		cached = in.CheckCached(p.cfg.Amp.Version, settings)
		fetched = []check.Check{p.inTime(in.CheckDigest(p.cfg.Amp.Version, bootstrap.CheckCachedID))}
		fetched = append(fetched, p.online(in.CheckSources(p.cfg.Amp.Version, p.checkSourceInside, settings)...)...)
	}
	return slices.Concat([]check.Check{cached}, fetched, p.startChecks(settings))
}

// checkSourceInside tells what a program in the sandbox gets of a place that Amp comes from.
func (p *patient) checkSourceInside(title string, where func() (string, []netip.Addr, bool), needs ...string) check.Check {
	policy := p.showing(p.program)
	if policy == nil {
		policy = &sandbox.Policy{}
	}
	c := sandbox.CheckReach(policy, &sandbox.Command{Args: []string{p.program, "doctor", "reach"}, Env: p.env}, sandbox.Place{
		Title: title, Group: "sources of Amp, from the sandbox", Otherwise: "sesame itself fetches Amp, from outside", Where: where,
	}, append(needs, sandbox.CheckTierID)...)
	return p.fromInside(c)[0]
}

// quickly is what a check has where the doctor is to be quick.
const quickly = 200 * time.Millisecond

// inTime is a check that may take longer than --offline has time for.
func (p *patient) inTime(c check.Check) check.Check {
	if !p.offline {
		return c
	}
	whole := c.Run
	c.Run = func(ctx context.Context) check.Result {
		done := make(chan check.Result, 1)
		go func() { done <- whole(ctx) }()
		late := time.NewTimer(quickly)
		defer late.Stop()
		select {
		case r := <-done:
			return r
		case <-late.C:
			return check.Skipped("it was not done within %s, and --offline is to be quick: `sesame amp verify`", quickly)
		}
	}
	return c
}

// startChecks start the Amp that would run, if there is one.
func (p *patient) startChecks(settings string) []check.Check {
	binary, err := bootstrap.Binary{}, p.dirsErr
	needs := []string{settings, bootstrap.CheckCachedID, sandbox.CheckTierID}
	own, ownErr := ownAmp(p.cfg)
	switch {
	case ownErr != nil:
		err = ownErr
	case own != "":
		// That it is the one of the pin, its digest's check tells.
		if binary, err = bootstrap.FromPath(own); p.cfg.Amp.SHA256 != "" {
			needs = append(needs, bootstrap.CheckDigestID)
		}
	case err == nil:
		binary, err = p.app.cachedAmp(p.cfg, p.dirs)
	}
	policy := p.showing()
	if err == nil && policy != nil {
		policy = p.showing(programRoot(binary.Path, policy))
		policy.AllowHosts = nil // nothing that is asked here needs any
	}
	// It ends in time to say so itself.
	prober := &amp.Prober{Launcher: amp.InPolicy(policy), Env: p.env, Timeout: p.limit * 4 / 5, ReadOnly: true}
	if p.dirsErr == nil {
		prober.CacheDir = filepath.Join(p.dirs.Cache, "capabilities")
	}
	starts := []check.Check{prober.CheckStarts(binary.Path, needs...)}
	deep := []check.Check{p.checkDeep(prober, policy, binary, bootstrap.CheckCachedID, "amp.starts")}
	modes := prober.CheckModes(binary.Path, p.cfg.Mode, p.cfg.Amp.Modes, append(needs, "amp.starts")...)
	if err != nil && p.cfgErr == nil {
		why := "there is no Amp to start"
		if fault.CodeOf(err) != fault.BootstrapFailed {
			why = err.Error()
		}
		return without(why, slices.Concat(starts, modes, deep))
	}
	if p.offline {
		const why = "starting Amp takes a while, and --offline is to be quick"
		known := prober.Knows(binary.Path)
		starts, deep = without(why, starts), without(why, deep)
		if !known {
			return slices.Concat(starts, without(why, modes), deep)
		}
		modes[0].Needs = needs
	}
	// Each start of Amp takes half a second: they are made at once.
	deep[0].With, modes[0].With = starts[0].ID, starts[0].ID
	return slices.Concat(starts, modes, deep)
}

// checkDeep starts Amp with a file that is no JSON where a turn's settings are.
func (p *patient) checkDeep(prober *amp.Prober, policy *sandbox.Policy, binary bootstrap.Binary, needs ...string) check.Check {
	var broken sandbox.Policy
	if policy != nil {
		broken = *policy
	}
	broken.Files = []sandbox.File{{Path: settingsInside, Data: amp.BrokenSettings()}}
	return prober.CheckDeep(binary.Path, p.app.userSettings(p.dirs), settingsInside, amp.InPolicy(&broken), needs...)
}

func (p *patient) sandboxChecks(settings string) []check.Check {
	tier := sandbox.CheckTier(p.policy, p.env, p.program, settings)
	if p.policyErr != nil {
		tier.Run = check.Found(check.Failed(p.policyErr))
	}
	policy := p.showing(p.program)
	if policy == nil {
		policy = &sandbox.Policy{}
	}
	canaries := sandbox.CheckCanaries(&sandbox.Canaries{
		Policy:  policy,
		Command: &sandbox.Command{Args: []string{p.program, "doctor", "attack"}, Env: p.turnEnv},
		Key:     p.key.Reveal(),
	}, settings, sandbox.CheckTierID)
	for i := range canaries {
		if canaries[i].ID == "sandbox.key" && p.cfg.Sandbox.ExposeKey {
			canaries[i].Run = check.Found(check.Warned("it is inside, as --expose-key or sandbox.expose-key says").
				Hint("leave it out: the service gets the key all the same"))
		}
	}
	return append([]check.Check{tier}, canaries...)
}

func (p *patient) sessionChecks() []check.Check {
	store := session.NewStore(p.dirs.State, p.app.now)
	checks := append([]check.Check{session.CheckLast(p.dirs.State, p.app.now())}, store.Checks()...)
	if p.dirsErr != nil {
		return without("without directories there are no sessions", checks)
	}
	return checks
}
