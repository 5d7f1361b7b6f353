// Bench measures sesame against its peers, by turns in one run, so that a noisy machine
// slows both: quote the ratios.
//
//	go run ./scripts/bench          all of it
//	go run ./scripts/bench start    sesame sandbox -- /bin/true against other sandboxes
//	go run ./scripts/bench pair     the same against bubblewrap only: what others leave to be taken apart slows neither
//	go run ./scripts/bench network  bulk, latency and memory of the gateway against no sandbox
//	go run ./scripts/bench files    git and go build inside against outside
//	go run ./scripts/bench turn     a turn through sesame against the bare Amp
//	go run ./scripts/bench fetch    a download into the cache against curl and gunzip
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
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
	b := &place{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&b.runs, "n", 60, "runs of each command that starts in milliseconds; of others it is a part of that")
	flags.Int64Var(&b.bulk, "bulk", 2_000_000_000, "bytes of a bulk transfer")
	flags.IntVar(&b.files, "files", 200_000, "files of the repository that git looks at")
	if err := flags.Parse(args); err != nil {
		return err
	}
	all := map[string]func(context.Context) error{"start": b.start, "pair": b.pair, "network": b.network, "files": b.fileWork, "turn": b.turn, "fetch": b.fetch}
	names := flags.Args()
	if len(names) == 0 {
		names = []string{"start", "pair", "network", "files", "turn", "fetch"}
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, name := range names {
		run, ok := all[name]
		if !ok {
			return fmt.Errorf("no benchmark %q", name)
		}
		if err := run(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// place is where sesame runs: built as it is released, with a home and a project of its own.
type place struct {
	dir, sesame, home, project string

	runs  int
	bulk  int64 // bytes
	files int
}

func (b *place) build(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(cache, "sesame-bench-"); err != nil {
		return err
	}
	b.sesame, b.home, b.project = filepath.Join(b.dir, "sesame"), filepath.Join(b.dir, "home"), filepath.Join(b.dir, "home", "project")
	if err := os.MkdirAll(b.project, 0o700); err != nil {
		return err
	}
	linked := filepath.Join(b.dir, "linked")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", linked, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	// As an installer or a download leaves it, and bubblewrap's package did: what Go's linker writes the kernel keeps in single pages at
	// first, which take longer to map.
	program, err := os.ReadFile(linked)
	if err != nil {
		return err
	}
	return os.WriteFile(b.sesame, program, 0o755)
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
	dir   string // the project when empty
	heard bool   // what counts is when its first word comes, not its end
	// prepare is done before each run, and not measured. Nil for nothing.
	prepare func() error
}

// run runs a side once and returns its output, which may have errors in it, and how long it took.
func (b *place) run(ctx context.Context, s side) (string, time.Duration, error) {
	cmd := exec.CommandContext(ctx, s.args[0], s.args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = cmp.Or(s.dir, b.project), s.env, strings.NewReader(s.stdin)
	begun := time.Now()
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	took, text := time.Since(begun), out.String()
	if s.heard {
		took = out.first.Sub(begun)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", s.name, err, text)
	}
	return text, took, err
}

// output is what a side says.
type output struct {
	strings.Builder
	first time.Time // when it began
}

func (o *output) Write(p []byte) (int, error) {
	if o.first.IsZero() {
		o.first = time.Now()
	}
	return o.Builder.Write(p)
}

// measure runs the sides, each time in another order, and returns the times of each: what one of them leaves behind for the kernel
// to take apart, and how warm it leaves the processor, is the next one's.
func (b *place) measure(ctx context.Context, runs int, sides ...side) ([][]time.Duration, error) {
	times := make([][]time.Duration, len(sides))
	for i := range runs + 2 { // two to warm up
		for _, k := range rand.Perm(len(sides)) {
			s := sides[k]
			if s.prepare != nil {
				if err := s.prepare(); err != nil {
					return nil, err
				}
			}
			_, took, err := b.run(ctx, s)
			if err != nil {
				return nil, err
			}
			if i >= 2 {
				times[k] = append(times[k], took)
			}
		}
	}
	return times, nil
}

// compare measures the sides and prints each one's times and its ratio, run by run, to the last.
func (b *place) compare(ctx context.Context, runs int, sides ...side) error {
	times, err := b.measure(ctx, runs, sides...)
	if err != nil {
		return err
	}
	last := times[len(sides)-1]
	for k, s := range sides {
		fmt.Printf("  %-28s min %7.1f ms  median %7.1f ms  ratio %.2f\n", s.name, ms(slices.Min(times[k])), ms(median(times[k])), ratio(times[k], last))
	}
	return nil
}

// ratio is the median of the ratios of single runs.
func ratio(times, to []time.Duration) float64 {
	var ratios []float64
	for i := range times {
		ratios = append(ratios, float64(times[i])/float64(to[i]))
	}
	return median(ratios)
}

func median[T cmp.Ordered](values []T) T { return slices.Sorted(slices.Values(values))[len(values)/2] }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (b *place) env(extra ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.home, "AMP_SKIP_UPDATE_CHECK=1"}, extra...)
}

// turn measures a whole turn with the newest native build against the loopback service.
func (b *place) turn(ctx context.Context) (err error) {
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
		ctx, max(b.runs/5, 5),
		side{name: "sesame run", args: []string{b.sesame, "run", "--quiet", "--amp-path", amp, "hello"}, env: env},
		side{name: "amp -x", args: []string{amp, "-x", "--dangerously-allow-all", "--no-archive-after-execute", "--stream-json"}, env: env, stdin: "hello"},
	)
}
