//go:build unix

package sandbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A keeper that is not in a sandbox must not begin: its sweep would end all that the user runs.
func TestKeeperRefusesWithoutASandbox(t *testing.T) {
	if os.Getenv("SESAME_TEST_KEEPER") != "" {
		code, _ := Keep([]string{"sesame", keeperArg})
		os.Exit(code)
	}
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "made")
	for name, plan := range map[string]*keeperPlan{
		"no plan":             nil,
		"not in a sandbox":    {Parent: os.Getpid(), Canary: canary, Args: []string{"touch", made}, Env: os.Environ()},
		"another parent":      {Parent: os.Getppid(), Canary: canary, Args: []string{"touch", made}, Env: os.Environ()},
		"the first process":   {Parent: 1, Canary: canary, Args: []string{"touch", made}, Env: os.Environ()},
		"without a canary":    {Parent: os.Getpid(), Canary: canary + "x", Args: []string{"touch", made}, Env: os.Environ()},
		"a plan of no values": {},
	} {
		in, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		from, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeeperRefusesWithoutASandbox$")
		cmd.Env = append(os.Environ(), "SESAME_TEST_KEEPER=1")
		cmd.ExtraFiles = []*os.File{in, out}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		out.Close()
		if plan != nil {
			if err := json.NewEncoder(to).Encode(plan); err != nil {
				t.Fatal(err)
			}
		}
		to.Close()
		var r keeperReport
		if err := json.NewDecoder(from).Decode(&r); err != nil || r.Failed == "" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		from.Close()
		if err := cmd.Wait(); err == nil {
			t.Errorf("%s: exit 0", name)
		}
	}
	if _, err := os.Stat(made); err == nil {
		t.Error("the command ran")
	}
}

func TestSweepEndsAndFindsAll(t *testing.T) {
	alive := map[int]bool{70: true, 5000: true, highestPID: true}
	const zombie, self = 80, 90
	passes := 0
	sweepSandbox(func(pid int, sig syscall.Signal) error {
		switch {
		case pid == self || pid < 2 || sig != syscall.SIGKILL:
			t.Errorf("signal %v to %d", sig, pid)
		case pid == zombie:
			return nil // for ever
		case alive[pid]:
			delete(alive, pid)
			if pid == 5000 && passes == 0 {
				passes++
				alive[60] = true // a child that it had just made, with a number that was passed
			}
			return nil
		}
		return syscall.EPERM
	}, self)
	if len(alive) != 0 {
		t.Errorf("left: %v", alive)
	}
}

// Others read the environment where the kernel put it.
func TestConcealEnvironment(t *testing.T) {
	if os.Getenv("SESAME_TEST_CONCEAL") != "" {
		before, _ := os.ReadFile("/proc/self/environ")
		ok := concealEnvironment()
		after, _ := os.ReadFile("/proc/self/environ")
		os.Stdout.WriteString(strings.Join([]string{
			"was " + map[bool]string{true: "there", false: "hidden"}[strings.Contains(string(before), "sgamp_secret")],
			map[bool]string{true: "wiped", false: "failed"}[ok],
			"is " + map[bool]string{true: "there", false: "hidden"}[strings.Contains(string(after), "sgamp_secret")],
			"kept " + os.Getenv("AMP_API_KEY"),
		}, ", "))
		os.Exit(0)
	}
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("this system shows no environment as a file: scripts/mactest looks there")
	}
	for _, last := range []string{"-test.v=false", ""} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConcealEnvironment$", last)
		cmd.Env = append(os.Environ(), "SESAME_TEST_CONCEAL=1", "EMPTY=", "AMP_API_KEY=sgamp_secret", "LAST=x")
		out, err := cmd.Output()
		if err != nil || string(out) != "was there, wiped, is hidden, kept sgamp_secret" {
			t.Errorf("last argument %q: %s, %v", last, out, err)
		}
	}
}
