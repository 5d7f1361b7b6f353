// Package amptest is a loopback Amp service, good enough for real, unmodified
// Amp builds of both generations to complete turns against it: the JavaScript
// builds to May 2026, which call the model providers through the service, and
// the native builds since July 2026, which talk to thread actors over a
// websocket. What "the model" says is scripted by the user's own text: see
// [Service].
//
// It is a test double. It accepts any mode, keeps everything in memory and
// checks nothing but the key. The core needs no testing.T, so that demos and
// benchmarks use it too.
package amptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// ExampleKey is the key that a Service accepts unless WithKey says otherwise.
// It has the shape of a real one and opens nothing.
const ExampleKey = "sgamp_user_01EXAMPLE0EXAMPLE0EXAMPLE0_" +
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// userID is the one user of the service, who owns all threads.
const userID = "user_1"

// Service is an Amp service. Its model does what the newest user message says,
// line by line; each line that begins with one of these words is a step:
//
//	RUN:<command>       call the shell tool with that command
//	TOOL:<name> <json>  call that tool with that input
//	THINK:<text>        a thinking block, then the text "THOUGHT: <text>"
//	SLOW:<seconds>      one delta of text per second
//	HTTP:<status>       the provider answers that status
//
// The model call that follows the last tool's result says "TOOL SAID: <output>".
// A message without steps is answered with "ECHO[<mode>]: <text> (<n> messages)",
// n being the messages of the conversation so far.
//
// All methods may be called from several goroutines.
type Service struct {
	key     string
	addr    string
	frames  bool
	onEach  func(Request)
	onFrame func(Frame)
	onDelta func()
	handler http.Handler

	// life ends with Close: turns of thread actors outlive the request that began them.
	life context.Context
	end  context.CancelFunc

	mu       sync.Mutex
	faults   Faults
	requests []*Request
	sent     []Frame
	threads  map[string]*thread
	sockets  map[*socket]struct{}
	server   *http.Server
	url      string
	bound    string
	served   chan struct{}
}

// Option changes a Service at its making.
type Option func(*Service)

// WithKey sets the one key that the service accepts.
func WithKey(key string) Option { return func(s *Service) { s.key = key } }

// WithAddr sets the address that Start listens at, "127.0.0.1:0" if not given.
func WithAddr(addr string) Option { return func(s *Service) { s.addr = addr } }

// WithFaults sets what goes wrong from the start; see SetFaults.
func WithFaults(f Faults) Option { return func(s *Service) { s.faults = f } }

// WithFrames makes the service keep every websocket frame for Frames.
func WithFrames() Option { return func(s *Service) { s.frames = true } }

// WithObserver calls f after each request is answered (for a websocket: after
// it ended). Calls may overlap.
func WithObserver(f func(Request)) Option { return func(s *Service) { s.onEach = f } }

// WithFrameObserver calls f for each websocket frame. Calls may overlap.
func WithFrameObserver(f func(Frame)) Option { return func(s *Service) { s.onFrame = f } }

// WithDeltaObserver calls f after each delta of text that the model says, so
// that a test can act in mid-turn. Calls may overlap.
func WithDeltaObserver(f func()) Option { return func(s *Service) { s.onDelta = f } }

// New returns a service that is not listening yet.
func New(opts ...Option) *Service {
	s := &Service{
		key:     ExampleKey,
		addr:    "127.0.0.1:0",
		threads: map[string]*thread{},
		sockets: map[*socket]struct{}{},
	}
	for _, opt := range opts {
		opt(s)
	}
	s.life, s.end = context.WithCancel(context.Background())
	if s.onDelta == nil {
		s.onDelta = func() {}
	}
	s.handler = s.record(s.guard(s.routes()))
	return s
}

// Handler is the service itself, for a server of one's own.
func (s *Service) Handler() http.Handler { return s.handler }

// Key is the key that the service accepts.
func (s *Service) Key() string { return s.key }

// URL is where the service listens, "http://127.0.0.1:PORT/"; "" before Start.
func (s *Service) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Addr is the address that the service listens at, "127.0.0.1:PORT"; "" before
// Start.
func (s *Service) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound
}

// Done is closed when the service has stopped listening. Call it after Start.
func (s *Service) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// Start listens and serves until ctx ends or Close is called. The error is the
// listener's.
func (s *Service) Start(ctx context.Context) error { return s.start(ctx, nil) }

// StartTLS is Start over TLS with the given certificate. URL then begins with
// "https" and names the certificate's first DNS name, if it has one.
func (s *Service) StartTLS(ctx context.Context, cert tls.Certificate) error {
	return s.start(ctx, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
}

func (s *Service) start(ctx context.Context, conf *tls.Config) error {
	if s.URL() != "" {
		return errors.New("the Amp service is already started")
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen for the Amp service: %w", err)
	}
	scheme, host := "http", l.Addr().String()
	if conf != nil {
		scheme, host = "https", tlsHost(conf.Certificates[0], host)
		l = tls.NewListener(l, conf)
	}
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return s.life },
	}
	served := make(chan struct{})
	s.mu.Lock()
	s.server, s.served = server, served
	s.bound = l.Addr().String()
	s.url = scheme + "://" + host + "/"
	s.mu.Unlock()
	go func() {
		defer close(served)
		_ = server.Serve(l) // always fails in the end: with ErrServerClosed
	}()
	go func() {
		select {
		case <-ctx.Done():
			_ = s.Close()
		case <-s.life.Done():
		}
	}()
	return nil
}

// tlsHost names the listener by the certificate's first name, so that clients
// that verify it can use the URL; the port stays.
func tlsHost(cert tls.Certificate, addr string) string {
	if cert.Leaf == nil || len(cert.Leaf.DNSNames) == 0 {
		return addr
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(cert.Leaf.DNSNames[0], port)
}

// Close ends all turns and connections. It may be called again.
func (s *Service) Close() error {
	s.end()
	s.mu.Lock()
	server, served := s.server, s.served
	sockets := make([]*socket, 0, len(s.sockets))
	for c := range s.sockets {
		sockets = append(sockets, c)
	}
	s.mu.Unlock()
	// The server forgets hijacked connections, so websockets are closed here.
	for _, c := range sockets {
		_ = c.ws.CloseNow()
	}
	if server == nil {
		return nil
	}
	err := server.Close()
	<-served
	if err != nil {
		return fmt.Errorf("close the Amp service: %w", err)
	}
	return nil
}
