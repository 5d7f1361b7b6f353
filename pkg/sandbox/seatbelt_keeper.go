//go:build unix

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// On macOS nothing ends the descendants of a process with it, and those that detach themselves are not found again by who their
// parent is. But in this sandbox a process can signal those of the same sandbox and nobody else: so the keeper, sesame itself
// inside the sandbox, starts the command, and at the end kills whatever it can.

// keeperArg is the argument that makes a keeper of sesame. By itself it does nothing: without a plan there is nothing to keep.
const keeperArg = "sesame-keeper"

// Descriptors that the keeper gets.
const (
	keeperPlanFile   = 3 // the plan; its end says that the parent is gone
	keeperReportFile = 4 // reports
)

// keeperPlan is what the keeper is to start, and how it can tell that it is in a sandbox.
type keeperPlan struct {
	Parent int    // the process outside that started it
	Canary string // a file of the same user that the profile hides
	Args   []string
	Dir    string
	Env    []string
}

// keeperReport is one of a stream.
type keeperReport struct {
	Failed    string `json:",omitempty"`
	NoCommand string `json:",omitempty"` // with Code
	Started   bool   `json:",omitempty"`
	Ended     bool   `json:",omitempty"` // with Code and Signal; nothing else is left
	Code      int    `json:",omitempty"`
	Signal    int    `json:",omitempty"`
}

// Keep does a keeper's work if that is what the arguments of the program say, and returns how to exit.
func Keep(args []string) (code int, keeper bool) {
	if len(args) != 2 || args[1] != keeperArg {
		return 0, false
	}
	syscall.CloseOnExec(keeperPlanFile)
	syscall.CloseOnExec(keeperReportFile)
	in, out := os.NewFile(keeperPlanFile, "plan"), os.NewFile(keeperReportFile, "report")
	reports := json.NewEncoder(out)
	dec := json.NewDecoder(in)
	var plan keeperPlan
	err := dec.Decode(&plan)
	if err == nil {
		err = confined(plan)
	}
	if err != nil {
		_ = reports.Encode(keeperReport{Failed: err.Error()}) // nobody listens where nobody asked for a keeper
		return 1, true
	}
	return keep(plan, in, reports), true
}

// confined tells whether the sandbox is in force. If it were not, the sweep at the end would end all that this user runs.
func confined(plan keeperPlan) error {
	if plan.Parent <= 1 || os.Getppid() != plan.Parent {
		return errors.New("the process that started the sandbox is gone")
	}
	err := syscall.Kill(plan.Parent, 0)
	if os.Getppid() != plan.Parent {
		return errors.New("the process that started the sandbox is gone")
	}
	if err == nil {
		return errors.New("the sandbox is not in force: a process outside of it can be signalled")
	}
	if !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("the sandbox is not as it should be: signal the process outside: %w", err)
	}
	f, err := os.Open(plan.Canary)
	if err == nil {
		f.Close()
		return errors.New("the sandbox is not in force: a hidden file can be read")
	}
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the sandbox is not as it should be: %w", err)
	}
	return nil
}

// keep starts the command and stays until it, or the parent, has ended.
func keep(plan keeperPlan, parent io.Reader, reports *json.Encoder) int {
	cmd, err := keeperCommand(plan)
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err = cmd.Start()
	}
	if err != nil {
		code := 126
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			code = 127
		}
		_ = reports.Encode(keeperReport{NoCommand: err.Error(), Code: code}) // if nobody reads it, nobody waits
		return code
	}
	_ = reports.Encode(keeperReport{Started: true})
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	gone, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, _ = io.Copy(io.Discard, parent) // nothing comes: it ends when the parent does
		close(gone)
	}()
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may just have ended
			continue
		case <-gone:
			sweepSandbox(syscall.Kill, os.Getpid())
			return 128 + int(syscall.SIGKILL)
		case err := <-ended:
			sweepSandbox(syscall.Kill, os.Getpid())
			st, err := status(err)
			if err != nil {
				_ = reports.Encode(keeperReport{Failed: err.Error()})
				return 1
			}
			_ = reports.Encode(keeperReport{Ended: true, Code: st.Code, Signal: int(st.Signal)})
			return st.Code
		}
	}
}

// keeperCommand is the command of a plan, looked up in the PATH of its own environment.
func keeperCommand(plan keeperPlan) (*exec.Cmd, error) {
	if err := os.Setenv("PATH", lookup(plan.Env, "PATH")); err != nil {
		return nil, err
	}
	path, err := exec.LookPath(plan.Args[0])
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{Path: path, Args: plan.Args, Dir: plan.Dir, Env: plan.Env}, nil
}

// highestPID is the largest number of a process on macOS (PID_MAX in bsd/sys/proc_internal.h).
const highestPID = 99999

// sweepSandbox kills every process but this one that may be signalled, until it finds no new ones: a process that has ended but
// was not waited for yet, in the sandbox or not, takes signals without a complaint.
func sweepSandbox(kill func(pid int, sig syscall.Signal) error, self int) {
	before := map[int]bool{}
	for quiet := 0; quiet < 2; {
		found, fresh := map[int]bool{}, false
		for pid := 2; pid <= highestPID; pid++ {
			if pid != self && kill(pid, syscall.SIGKILL) == nil {
				found[pid] = true
				fresh = fresh || !before[pid]
			}
		}
		before = found
		if quiet++; fresh {
			quiet = 0
		}
		if len(found) == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
