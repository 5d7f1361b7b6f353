package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// patience is for how long a turn may take on a busy machine before the test gives up.
const patience = 90 * time.Second

// call is a sesame that runs or ran.
type call struct {
	p        *project
	args     []string
	cmd      *exec.Cmd
	begun    time.Time
	ended    chan struct{}
	waitErr  error // when it has ended
	took     time.Duration
	outBuf   lockedBuffer
	errBuf   lockedBuffer
	out, err string // likewise
	code     int    // likewise; -1 for one that a signal killed
}

// start starts sesame in the project. Standard input is a pipe that stays open and says
// nothing: no command may wait for it when it was not told to read it.
func (p *project) start(args ...string) *call {
	p.t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = write.Close() })
	defer read.Close()
	return p.startWith(read, args...)
}

func (p *project) startWith(stdin io.Reader, args ...string) *call {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.amp != "" && (args[0] == "run" || args[0] == "continue") {
		args = slices.Insert(slices.Clone(args), 1, "--amp-path", p.amp)
	}
	c := &call{p: p, args: args, begun: time.Now(), ended: make(chan struct{})}
	// TestMain becomes sesame when it is called by that name.
	c.cmd = &exec.Cmd{Path: self, Args: append([]string{"sesame"}, args...), Dir: p.dir}
	for name, value := range p.env {
		c.cmd.Env = append(c.cmd.Env, name+"="+value)
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = stdin, &c.outBuf, &c.errBuf
	// What holds the streams after sesame has ended is a failure of its own.
	c.cmd.WaitDelay = 5 * time.Second
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		c.waitErr = c.cmd.Wait()
		close(c.ended)
	}()
	p.t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // of a test that failed before it waited
		<-c.ended
	})
	return c
}

// wait waits for the end.
func (c *call) wait() *call {
	t := c.p.t
	t.Helper()
	late := false
	select {
	case <-c.ended:
	case <-time.After(patience - time.Since(c.begun)):
		late = true
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
	c.took = time.Since(c.begun)
	c.out, c.err, c.code = c.outBuf.String(), c.errBuf.String(), c.cmd.ProcessState.ExitCode()
	var exit *exec.ExitError
	if late || c.waitErr != nil && !errors.As(c.waitErr, &exit) {
		t.Fatalf("sesame %q: %v after %s\nstdout: %s\nstderr: %s", c.args, c.waitErr, c.took, c.out, c.err)
	}
	return c
}

// sesame runs sesame to its end.
func (p *project) sesame(args ...string) *call {
	p.t.Helper()
	return p.start(args...).wait()
}

// ok runs a sesame that must succeed.
func (p *project) ok(args ...string) *call {
	p.t.Helper()
	return p.sesame(args...).want(0)
}

// want wants the exit code.
func (c *call) want(code int) *call {
	c.p.t.Helper()
	if c.code != code {
		c.p.t.Fatalf("sesame %q: exit %d, want %d\nstdout: %s\nstderr: %s", c.args, c.code, code, c.out, c.err)
	}
	return c
}

// report is the object of -o json, which must be all of stdout.
func (c *call) report() Report {
	c.p.t.Helper()
	return decodeReport(c.p.t, c.out)
}

func decodeReport(t *testing.T, out string) Report {
	t.Helper()
	var r Report
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil || dec.More() || r.SchemaVersion != 1 {
		t.Fatalf("stdout is not one report: %v\n%s", err, out)
	}
	return r
}

// failed wants the report of a failure.
func (c *call) failed(status Status, code fault.Code, words ...string) Report {
	c.p.t.Helper()
	r := c.report()
	if r.Status != status || r.Error == nil || r.Error.Code != code {
		c.p.t.Fatalf("sesame %q: status %s, error %+v, want %s, %s", c.args, r.Status, r.Error, status, code)
	}
	for _, word := range words {
		if !strings.Contains(r.Error.Message, word) {
			c.p.t.Errorf("no %q in the message %q", word, r.Error.Message)
		}
	}
	// The same for people.
	if !strings.Contains(c.err, "sesame: "+r.Error.Message+"\n") {
		c.p.t.Errorf("stderr lacks the error: %s", c.err)
	}
	for hint := range strings.Lines(r.Error.Hint) {
		if !strings.Contains(c.err, "hint: "+strings.TrimSuffix(hint, "\n")+"\n") {
			c.p.t.Errorf("stderr lacks the hint %q: %s", hint, c.err)
		}
	}
	return r
}

// streaming waits until the model has said something in this turn.
func (c *call) streaming() {
	c.p.t.Helper()
	select {
	case <-c.p.deltas:
	case <-c.ended:
		c.p.t.Fatalf("it ended before anything was said\nstderr: %s", c.errBuf.String())
	case <-time.After(patience):
		c.p.t.Fatalf("nothing was said\nstderr: %s", c.errBuf.String())
	}
}

func (c *call) signal(s syscall.Signal) {
	c.p.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.p.t.Fatal(err)
	}
}

// drain forgets what the model said so far.
func (p *project) drain() {
	for {
		select {
		case <-p.deltas:
		default:
			return
		}
	}
}

// process is a process of this machine; its start tells it from a later one with its number.
type process struct {
	pid, parent int
	start       string
}

// allProcesses are those that are no zombies.
func allProcesses(t *testing.T) []process {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name is in parentheses and may contain anything.
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if fields[0] == "Z" {
			continue
		}
		pid, pidErr := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, parentErr := strconv.Atoi(fields[1])
		if err := errors.Join(pidErr, parentErr); err != nil {
			t.Fatal(err)
		}
		found = append(found, process{pid, parent, fields[19]})
	}
	return found
}

func (p process) cmdline() string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/cmdline")
	if err != nil {
		return ""
	}
	return string(bytes.ReplaceAll(data, []byte{0}, []byte{' '}))
}

// family is sesame and all that it started, as far as it has not ended.
func (c *call) family() []process {
	all := allProcesses(c.p.t)
	var found []process
	for next := []int{c.cmd.Process.Pid}; len(next) > 0; next = next[1:] {
		for _, p := range all {
			if p.pid == next[0] {
				found = append(found, p)
			}
			if p.parent == next[0] {
				next = append(next, p.pid)
			}
		}
	}
	return found
}

// wantGone wants that none of the processes lives on.
func wantGone(t *testing.T, family []process) {
	t.Helper()
	var left []string
	gone := eventually(10*time.Second, func() bool {
		left = nil
		for _, p := range allProcesses(t) {
			if slices.ContainsFunc(family, func(f process) bool { return f.pid == p.pid && f.start == p.start }) {
				left = append(left, p.cmdline())
			}
		}
		return len(left) == 0
	})
	if !gone {
		t.Errorf("still there: %q", left)
	}
}

// lockedBuffer is output that is looked at while it comes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
