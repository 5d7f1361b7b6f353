// Ampservice serves the loopback Amp service of pkg/amp/amptest, for trying
// things by hand against real Amp builds:
//
//	go run ./scripts/ampservice -v
//	AMP_URL=http://127.0.0.1:8765/ AMP_API_KEY=… amp -x 'RUN:date'
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := serve(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ampservice:", err)
		os.Exit(1)
	}
}

// serve prints the URL and the key and serves until ctx ends.
func serve(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("ampservice", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8765", "address to listen at; port 0 takes a free one")
	key := flags.String("key", amptest.ExampleKey, "the key to accept")
	verbose := flags.Bool("v", false, "log each request to stderr")
	bodies := flags.Bool("vv", false, "log each request with its body and each websocket frame")
	var f amptest.Faults
	flags.IntVar(&f.UserInfoStatus, "user-info-status", 0, "HTTP status of getUserInfo")
	flags.IntVar(&f.ThreadActorsStatus, "thread-actors-status", 0, "HTTP status of thread-actors (402: out of credit)")
	flags.IntVar(&f.ProviderStatus, "provider-status", 0, "HTTP status of every model call")
	flags.DurationVar(&f.Delay, "delay", 0, "wait before each answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	opts := []amptest.Option{amptest.WithAddr(*addr), amptest.WithKey(*key), amptest.WithFaults(f)}
	if *verbose || *bodies {
		opts = append(opts, amptest.WithObserver(func(r amptest.Request) {
			fmt.Fprintln(stderr, r.Status, r.Method, r.Path)
			if *bodies && len(r.Body) > 0 {
				fmt.Fprintf(stderr, "%s\n", r.Body)
			}
		}))
	}
	if *bodies {
		opts = append(opts, amptest.WithFrameObserver(func(f amptest.Frame) {
			arrow := "<-"
			if f.FromPeer {
				arrow = "->"
			}
			fmt.Fprintln(stderr, arrow, f.Data)
		}))
	}
	svc := amptest.New(opts...)
	if err := svc.Start(ctx); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "AMP_URL=%s\nAMP_API_KEY=%s\n", svc.URL(), svc.Key()); err != nil {
		return err
	}
	<-ctx.Done()
	return svc.Close()
}
