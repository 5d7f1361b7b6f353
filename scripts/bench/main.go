// Bench measures sesame against its peers, in turn in one run, so that a noisy machine
// slows both: quote the ratios.
//
//	go run ./scripts/bench          all of it
//	go run ./scripts/bench start    sesame sandbox -- /bin/true against bubblewrap
//	go run ./scripts/bench turn     a turn through sesame against the bare Amp
//	go run ./scripts/bench fetch    a download into the cache against curl and gunzip
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	runs := flags.Int("n", 60, "runs of each command that starts in milliseconds; turns are a fifth of that")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	all := map[string]func(context.Context, int) error{"start": b.start, "turn": b.turn, "fetch": b.fetch}
	names := flags.Args()
	if len(names) == 0 {
		names = []string{"start", "turn", "fetch"}
	}
	for _, name := range names {
		run, ok := all[name]
		if !ok {
			return fmt.Errorf("no benchmark %q", name)
		}
		if err := run(ctx, *runs); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// place is where sesame runs: built as it is released, with a home and a project of its own.
type place struct {
	dir, sesame, home, project string
}

func newBench(ctx context.Context) (*place, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cache, "sesame-bench-")
	if err != nil {
		return nil, err
	}
	b := &place{dir, filepath.Join(dir, "sesame"), filepath.Join(dir, "home"), filepath.Join(dir, "home", "project")}
	if err := os.MkdirAll(b.project, 0o700); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.sesame, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, text)
	}
	return b, nil
}

func (b *place) close() error {
	_ = filepath.WalkDir(b.dir, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // an overlay's state has directories without permissions
		}
		return nil
	})
	return os.RemoveAll(b.dir)
}

// side is one of the commands that are compared.
type side struct {
	name  string
	args  []string
	env   []string
	stdin string
}

// compare runs the sides in turn and prints each one's times and its ratio, run by run, to the last.
func (b *place) compare(ctx context.Context, runs int, sides ...side) error {
	times := make([][]time.Duration, len(sides))
	for i := range runs + 2 { // two to warm up
		for k, s := range sides {
			cmd := exec.CommandContext(ctx, s.args[0], s.args[1:]...)
			cmd.Dir, cmd.Env, cmd.Stdin = b.project, s.env, strings.NewReader(s.stdin)
			begun := time.Now()
			text, err := cmd.CombinedOutput()
			took := time.Since(begun)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", s.name, err, text)
			}
			if i >= 2 {
				times[k] = append(times[k], took)
			}
		}
	}
	last := times[len(sides)-1]
	for k, s := range sides {
		var ratios []float64
		for i := range times[k] {
			ratios = append(ratios, float64(times[k][i])/float64(last[i]))
		}
		t := slices.Sorted(slices.Values(times[k]))
		slices.Sort(ratios)
		fmt.Printf("  %-28s min %7.1f ms  median %7.1f ms  ratio %.2f\n", s.name, ms(t[0]), ms(t[len(t)/2]), ratios[len(ratios)/2])
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (b *place) env(extra ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.home, "AMP_SKIP_UPDATE_CHECK=1"}, extra...)
}

// start measures what a sandbox costs before its command runs and after it ended.
func (b *place) start(ctx context.Context, runs int) error {
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		return errors.New("bubblewrap is not installed (Debian: apt-get install bubblewrap)")
	}
	fmt.Println("start: a sandbox around /bin/true")
	return b.compare(
		ctx, runs,
		side{name: "sesame", args: []string{b.sesame, "sandbox", "--", "/bin/true"}, env: b.env()},
		side{name: "sesame, tier landlock", args: []string{b.sesame, "sandbox", "--sandbox", "landlock", "--", "/bin/true"}, env: b.env()},
		side{name: "bubblewrap, no filters", args: []string{bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent", "/bin/true"}, env: b.env()},
	)
}

// turn measures a whole turn with the newest native build against the loopback service.
func (b *place) turn(ctx context.Context, runs int) (err error) {
	service := amptest.New()
	if err := service.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	env := b.env("AMP_URL="+service.URL(), "AMP_API_KEY="+service.Key())
	install := exec.CommandContext(ctx, b.sesame, "amp", "install", "--quiet")
	install.Env = append(env, "XDG_CACHE_HOME="+filepath.Dir(b.dir))
	path, err := install.Output()
	if err != nil {
		return fmt.Errorf("sesame amp install: %w", err)
	}
	amp := strings.TrimSpace(string(path))
	fmt.Println("turn: one turn with a real Amp build and the loopback service")
	return b.compare(
		ctx, max(runs/5, 5),
		side{name: "sesame run", args: []string{b.sesame, "run", "--quiet", "--amp-path", amp, "hello"}, env: env},
		side{name: "amp -x", args: []string{amp, "-x", "--dangerously-allow-all", "--no-archive-after-execute", "--stream-json"}, env: env, stdin: "hello"},
	)
}
