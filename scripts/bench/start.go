package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// fenceModules is where fence's command is: today's place, and the one before, which has older versions only.
var fenceModules = []string{"github.com/fencesandbox/fence/cmd/fence", "github.com/Use-Tusk/fence/cmd/fence"}

// srtSettings is the least that srt starts with: nothing may be reached or written.
const srtSettings = `{"network":{"allowedDomains":[],"deniedDomains":[]},"filesystem":{"denyRead":[],"allowWrite":[],"denyWrite":[]}}`

// peer is another sandbox around /bin/true.
type peer struct {
	name string
	// args finds or installs it and returns how it is run; what it adds to the name says which version that is.
	args func(context.Context) (args []string, version string, err error)
}

// start measures what a sandbox costs before its command runs and after it ended.
func (b *place) start(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	p := peers{filepath.Join(cache, "sesame-bench-peers")}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	fmt.Println("start: a sandbox around /bin/true")
	sides := []side{
		{name: "sesame", args: []string{b.sesame, "sandbox", "--", "/bin/true"}, env: b.env()},
		{name: "sesame, tier landlock", args: []string{b.sesame, "sandbox", "--sandbox", "landlock", "--", "/bin/true"}, env: b.env()},
	}
	for _, peer := range []peer{
		{"bubblewrap, no filters", p.bubblewrap},
		{"firejail", p.firejail},
		{"codex sandbox", p.codex},
		{"codex, without Node", p.codexNative},
		{"fence", p.fence},
		{"srt", p.srt},
	} {
		args, version, err := peer.args(ctx)
		s := side{name: strings.TrimSpace(peer.name + " " + version), args: args, env: b.env()}
		if err == nil {
			_, _, err = b.run(ctx, s)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Printf("  %-28s not measured: %s\n", s.name, strings.Join(strings.Fields(err.Error()), " "))
			continue
		}
		sides = append(sides, s)
	}
	times, err := b.measure(ctx, b.runs, sides...)
	if err != nil {
		return err
	}
	for k, s := range sides {
		fmt.Printf("  %-28s median %7.1f ms  sesame takes %.3f of that\n", s.name, ms(median(times[k])), ratio(times[0], times[k]))
	}
	return nil
}

// peers gets other sandboxes into a directory that stays.
type peers struct{ dir string }

// pair measures the same of sesame and bubblewrap alone.
func (b *place) pair(ctx context.Context) error {
	args, _, err := peers{}.bubblewrap(ctx)
	if err != nil {
		return fmt.Errorf("bubblewrap: %w", err)
	}
	fmt.Println("pair: sesame and bubblewrap around /bin/true")
	return b.compare(
		ctx, b.runs,
		side{name: "sesame", args: []string{b.sesame, "sandbox", "--", "/bin/true"}, env: b.env()},
		side{name: "bubblewrap, no filters", args: args, env: b.env()},
	)
}

func (p peers) bubblewrap(context.Context) ([]string, string, error) {
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		return nil, "", errors.New("not installed (Debian: apt-get install bubblewrap)")
	}
	return []string{bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent", "/bin/true"}, "", nil
}

func (p peers) firejail(context.Context) ([]string, string, error) {
	firejail, err := exec.LookPath("firejail")
	if err != nil {
		return nil, "", errors.New("not installed (Debian: apt-get install firejail)")
	}
	return []string{firejail, "--quiet", "/bin/true"}, "", nil
}

func (p peers) srt(ctx context.Context) ([]string, string, error) {
	version, err := p.npm(ctx, "@anthropic-ai/sandbox-runtime")
	if err != nil {
		return nil, "", err
	}
	settings := filepath.Join(p.dir, "srt-settings.json")
	if err := os.WriteFile(settings, []byte(srtSettings), 0o600); err != nil {
		return nil, "", err
	}
	return []string{filepath.Join(p.dir, "node_modules", ".bin", "srt"), "--settings", settings, "--", "/bin/true"}, version, nil
}

func (p peers) codex(ctx context.Context) ([]string, string, error) {
	version, err := p.npm(ctx, "@openai/codex")
	return []string{filepath.Join(p.dir, "node_modules", ".bin", "codex"), "sandbox", "--", "/bin/true"}, version, err
}

// codexNative is the executable that codex's Node launcher starts.
func (p peers) codexNative(context.Context) ([]string, string, error) {
	found, err := filepath.Glob(filepath.Join(p.dir, "node_modules", "@openai", "codex-*", "vendor", "*", "bin", "codex"))
	if err == nil && len(found) != 1 {
		err = errors.New("the package has no single native executable")
	}
	if err != nil {
		return nil, "", err
	}
	return []string{found[0], "sandbox", "--", "/bin/true"}, "", nil
}

// npm installs the newest version of a package from wherever npm is configured to, and returns that version.
func (p peers) npm(ctx context.Context, name string) (string, error) {
	install := exec.CommandContext(ctx, "npm", "install", "--prefix", p.dir, "--no-audit", "--no-fund", "--loglevel=error", name+"@latest")
	if text, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install: %w\n%s", err, text)
	}
	data, err := os.ReadFile(filepath.Join(p.dir, "node_modules", name, "package.json"))
	if err != nil {
		return "", err
	}
	var about struct{ Version string }
	err = json.Unmarshal(data, &about)
	return about.Version, err
}

// fence is built from the newest version that the module proxy has.
func (p peers) fence(ctx context.Context) ([]string, string, error) {
	var errs []error
	for _, module := range fenceModules {
		install := exec.CommandContext(ctx, "go", "install", module+"@latest")
		install.Env = append(os.Environ(), "GOBIN="+p.dir)
		text, err := install.CombinedOutput()
		if err != nil {
			errs = append(errs, fmt.Errorf("go install: %w\n%s", err, text))
			continue
		}
		for _, err := range errs {
			fmt.Printf("  %-28s newest version not measured: %s\n", "fence", strings.Join(strings.Fields(err.Error()), " "))
		}
		path := filepath.Join(p.dir, "fence")
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, "", err
		}
		return []string{path, "--", "/bin/true"}, info.Main.Version, nil
	}
	return nil, "", errors.Join(errs...)
}
