package cmd

import (
	"context"
	"errors"
	"maps"
	"os/exec"
	"runtime"
	"time"

	"github.com/sesame-cli/sesame/pkg/config"
)

// browserStart is how long a program that opens a browser may take before it is left to itself.
const browserStart = 3 * time.Second

// browser opens addresses for the user to see. Nil where none is to be had.
type browser func(ctx context.Context, url string) error

// findBrowser looks for what opens a browser on this machine's own display. BROWSER names one,
// as it does for xdg-open.
func findBrowser(env config.Env) browser {
	for _, command := range browserCommands(env) {
		path, err := exec.LookPath(command[0])
		if err != nil {
			continue
		}
		return func(ctx context.Context, url string) error {
			return openWith(ctx, env, path, append(command[1:], url))
		}
	}
	return nil
}

func browserCommands(env config.Env) [][]string {
	if own := env.Get("BROWSER"); own != "" {
		return [][]string{{own}}
	}
	switch runtime.GOOS {
	case "darwin":
		if env.Get("SSH_CONNECTION") != "" {
			return nil // it would open where nobody sits
		}
		return [][]string{{"open"}}
	case "windows":
		return [][]string{{"rundll32", "url.dll,FileProtocolHandler"}}
	}
	if env.Get("WSL_DISTRO_NAME") != "" {
		return [][]string{{"wslview"}}
	}
	if env.Get("DISPLAY") == "" && env.Get("WAYLAND_DISPLAY") == "" {
		return nil
	}
	return [][]string{{"xdg-open"}, {"x-www-browser"}}
}

// openWith starts the program and waits only for it to fail at once. It needs no key, and
// what it says is not for this terminal.
func openWith(ctx context.Context, env config.Env, path string, args []string) error {
	environ := maps.Clone(env)
	delete(environ, "AMP_API_KEY")
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, args...) // the browser outlives the login
	cmd.Env = environ.List()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	late := time.NewTimer(browserStart)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), cmd.Process.Kill())
	}
}
