package cmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/amp/session"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// shapelessKey does not look like one of the service's, so that nobody but sesame knows it for a key.
const shapelessKey = "example-key-without-any-shape-0123456789"

func e2eWrongKey(p *project) {
	p.env["AMP_API_KEY"] = strings.Replace(amptest.ExampleKey, "0123", "9999", 1)
	r := p.sesame("run", "-o", "json", "hello").want(4).failed(StatusError, fault.KeyRejected, "rejected the key")
	wantIn(p.t, r.Error.Hint, "sesame login")
	p.env["AMP_API_KEY"] = p.service.Key()
	p.ok("run", "hello")
}

func e2eNoKey(p *project) {
	delete(p.env, "AMP_API_KEY")
	// Standard input is open and says nothing all the while.
	for _, args := range [][]string{{"run", "-o", "json", "hello"}, {"run", "-o", "json", "hello", "-"}, {"run", "-o", "json"}, {"continue", "-o", "json", "hello"}} {
		c := p.sesame(args...).want(4)
		r := c.failed(StatusError, fault.KeyMissing, "AMP_API_KEY not configured")
		wantIn(p.t, r.Error.Hint, "sesame login")
		if c.took > 5*time.Second {
			p.t.Errorf("%q took %s", args, c.took)
		}
	}
	if ids := p.sessionsHere(); len(ids) > 0 || len(p.service.Requests()) > 0 {
		p.t.Errorf("sessions %q, %d requests", ids, len(p.service.Requests()))
	}
}

func e2eServiceDown(p *project) {
	address := closedPort(p.t)
	p.env["AMP_URL"] = "http://" + address + "/"
	r := p.sesame("run", "-o", "json", "hello").want(7).failed(StatusError, fault.ServiceUnreachable, address)
	wantIn(p.t, r.Error.Hint, "check the network")
	p.env["AMP_URL"] = p.service.URL()
	p.service.SetFaults(amptest.Faults{UserInfoStatus: 503})
	p.sesame("run", "-o", "json", "hello").want(7).failed(StatusError, fault.ServiceUnreachable)
}

func e2eModelError(p *project) {
	r := p.sesame("run", "-o", "json", "HTTP:500").want(1).failed(StatusError, fault.TurnFailed, "amp reports an error", "500")
	if r.ThreadID == "" || r.Result != "" {
		p.t.Errorf("got %+v", r)
	}
	c := p.sesame("run", "-o", "stream-json", "HTTP:400").want(1)
	wantIn(p.t, c.out, `"is_error":true`, `"status":"error"`)
	wantIn(p.t, c.err, "sesame: amp reports an error: 400")
	if got := p.ok("continue", "all is well").out; !strings.HasPrefix(got, "ECHO["+p.mode("smart")+"]: all is well") {
		p.t.Errorf("stdout %q", got)
	}
	// Where there is no stream, there is none for the error either.
	p.sesame("run", "-o", "json", "-m", "rush", "HTTP:500").want(1).failed(StatusError, fault.TurnFailed, "500")
}

func e2eOutOfCredit(p *project) {
	p.service.SetFaults(amptest.Faults{ThreadActorsStatus: 402, ThreadActorsMessage: "no credit is left"})
	if !p.build.Native { // these have no thread actors, and their providers' answers are e2eModelError's
		p.sesame("run", "-o", "json", "HTTP:402").want(1).failed(StatusError, fault.TurnFailed, "402")
		return
	}
	p.sesame("run", "-o", "json", "hello").want(1).failed(StatusError, fault.TurnFailed, "no credit is left")
}

func e2eTimeout(p *project) {
	p.ok("run", "the first")
	c := p.sesame("continue", "-o", "json", "--timeout", "3s", "SLOW:80").want(124)
	r := c.failed(StatusTimeout, fault.Timeout)
	wantIn(p.t, r.Error.Hint, "--timeout")
	if c.took < 3*time.Second || c.took > 30*time.Second {
		p.t.Errorf("took %s", c.took)
	}
	p.isIdleHere()
	if got := p.ok("continue", "go on").out; !strings.Contains(got, "go on (") || strings.Contains(got, "(1 messages)") {
		p.t.Errorf("stdout %q", got)
	}
	// Also where the time is up before Amp was asked what it can do.
	p.env["XDG_CACHE_HOME"] = filepath.Join(p.home, "empty-cache")
	p.sesame("run", "-o", "json", "--timeout", "1ms", "hello").want(124).failed(StatusTimeout, fault.Timeout, "did not begin in time")
}

// isIdleHere wants that nothing runs with this project's directory.
func (p *project) isIdleHere() {
	p.t.Helper()
	idle := eventually(5*time.Second, func() bool {
		for _, q := range allProcesses(p.t) {
			if dir, err := os.Readlink("/proc/" + strconv.Itoa(q.pid) + "/cwd"); err == nil && dir == p.dir {
				return false
			}
		}
		return true
	})
	if !idle {
		p.t.Error("something still runs in the workspace")
	}
}

// The key stays where it belongs, also when the model is told to print it. What was
// written to files is looked through when all tests of the machine have ended.
func e2eKey(p *project) {
	key := p.service.Key()
	c := p.start("run", "SLOW:60")
	c.streaming()
	family := c.family()
	if len(family) < 3 {
		p.t.Errorf("only %d processes", len(family))
	}
	for _, q := range allProcesses(p.t) {
		if strings.Contains(q.cmdline(), key) {
			p.t.Errorf("the key is among the arguments of %d", q.pid)
		}
	}
	c.signal(syscall.SIGTERM)
	c.wait().want(143)
	wantGone(p.t, family)

	for _, output := range []string{"json", "stream-json"} {
		// By standard input: other tests look for this key among everybody's arguments.
		prompt := strings.NewReader("RUN:env; env >&2; printenv AMP_API_KEY\nRUN:echo my key is " + key)
		c := p.startWith(prompt, "run", "-v", "-o", output).wait().want(0)
		if strings.Contains(c.out+c.err, key) {
			p.t.Errorf("-o %s: the key was printed: %s%s", output, c.out, c.err)
		}
		wantIn(p.t, c.out, "AMP_URL="+p.env["AMP_URL"])
	}
	for _, r := range p.service.Requests() {
		if bytes.Contains(r.Body, []byte("AMP_API_KEY="+key)) {
			p.t.Errorf("the key is in the body of %s", r.Path)
		}
	}
}

// Amp itself redacts what has the shape of a key; what it does not know, sesame does.
func e2eShapelessKey(p *project) {
	p.ok("run", "hello")
	for _, output := range []string{"text", "json", "stream-json"} {
		c := p.ok("run", "--expose-key", "-o", output, "-O", "last.txt", "RUN:printenv AMP_API_KEY\nRUN:env >&2")
		if strings.Contains(c.out+c.err+p.read(p.path("last.txt")), shapelessKey) {
			p.t.Errorf("-o %s: the key was printed: %s%s", output, c.out, c.err)
		}
		wantIn(p.t, c.out, "[redacted]")
	}
	eachFile(p.t, p.state("sessions"), func(path string, data []byte) {
		if bytes.Contains(data, []byte(shapelessKey)) {
			p.t.Errorf("the key is in %s", path)
		}
	})
}

// e2eSignal ends a later turn: the session can go on whatever the build keeps of it.
func e2eSignal(p *project, s syscall.Signal, code int) {
	first := p.ok("run", "-o", "json", "the first").report()
	p.drain()
	c := p.start("continue", "-o", "json", "SLOW:80")
	c.streaming()
	family := c.family()
	if len(family) < 3 {
		p.t.Errorf("only %d processes", len(family))
	}
	c.signal(s)
	r := c.wait().want(code).failed(StatusCanceled, fault.Canceled)
	if r.SessionID != first.SessionID || r.ThreadID != first.ThreadID {
		p.t.Errorf("got %+v", r)
	}
	if c.took > 40*time.Second {
		p.t.Errorf("took %s", c.took)
	}
	wantGone(p.t, family)
	if got := p.ok("continue", "go on").out; !strings.Contains(got, "go on (") || strings.Contains(got, "(1 messages)") {
		p.t.Errorf("stdout %q", got)
	}
}

// May 4 uploads a thread when a turn has ended and keeps none itself: what is cut off
// before is lost, and that is said.
func e2eSignalInFirstTurn(p *project) {
	c := p.start("run", "-o", "json", "SLOW:80")
	c.streaming()
	family := c.family()
	c.signal(syscall.SIGINT)
	r := c.wait().want(130).failed(StatusCanceled, fault.Canceled)
	wantGone(p.t, family)
	next := p.sesame("continue", "-o", "json", "go on")
	if p.build.Version == amptest.May4JS {
		if e := next.want(8).failed(StatusError, fault.SessionNotFound); e.Error.Hint == "" {
			p.t.Errorf("got %+v", e.Error)
		}
		return
	}
	if got := next.want(0).report(); got.SessionID != r.SessionID || !strings.Contains(got.Result, "go on (") {
		p.t.Errorf("got %+v", got)
	}
}

// Tools run in sessions of their own, and some go into the background.
func e2eSignalInTool(p *project) {
	p.ok("run", "the first")
	c := p.start("continue", "-o", "json", "RUN:(setsid sleep 86400 >/dev/null 2>&1 &); nohup sleep 86401 >/dev/null 2>&1 & touch started; sleep 86402")
	if !eventually(patience, func() bool { _, err := os.Stat(p.path("started")); return err == nil }) {
		p.t.Fatalf("the tool does not run: %s", c.errBuf.String())
	}
	family := c.family()
	if len(family) < 5 {
		p.t.Errorf("only %d processes", len(family))
	}
	c.signal(syscall.SIGTERM)
	c.wait().want(143).failed(StatusCanceled, fault.Canceled)
	wantGone(p.t, family)
	p.ok("continue", "go on")
}

func e2eKilled(p *project) {
	p.killed = true
	p.ok("run", "the first")
	p.drain()
	c := p.start("continue", "RUN:(setsid sleep 86403 >/dev/null 2>&1 &)\nSLOW:80")
	c.streaming()
	family := c.family()
	if len(family) < 4 {
		p.t.Errorf("only %d processes", len(family))
	}
	c.signal(syscall.SIGKILL)
	c.wait().want(-1)
	wantGone(p.t, family)
	id := p.sessionsHere()[0]
	store := session.NewStore(p.state(), nil)
	if e, err := store.Show(id); err != nil || e.InUse || e.Record.Status() != session.Interrupted {
		p.t.Errorf("session %+v, %v", e, err)
	}
	if got := p.ok("continue", "go on").out; !strings.Contains(got, "go on (") || strings.Contains(got, "(1 messages)") {
		p.t.Errorf("stdout %q", got)
	}
	left, err := filepath.Glob(p.state("sessions", id, "*.new"))
	if err != nil || len(left) > 0 {
		p.t.Errorf("left: %q, %v", left, err)
	}
}

func e2eInUse(p *project) {
	id := p.ok("run", "-o", "json", "the first").report().SessionID
	p.drain()
	c := p.start("continue", "SLOW:80")
	c.streaming()
	r := p.sesame("continue", "-o", "json", "me too").want(8).failed(StatusError, fault.SessionBusy, "session "+id+" is in use")
	if r.SessionID != id && r.SessionID != "" || r.Error.Hint == "" {
		p.t.Errorf("got %+v", r)
	}
	// A new session of the same workspace is no trouble.
	if got := p.ok("run", "beside it").out; got != p.echo("smart", "beside it", "1")+"\n" {
		p.t.Errorf("stdout %q", got)
	}
	c.signal(syscall.SIGTERM)
	c.wait().want(143)
	p.ok("continue", "--session", id, "now me")
}
