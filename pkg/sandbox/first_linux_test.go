package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sesame-cli/sesame/pkg/sandbox/shim/first"
)

// workspaceVariable names the workspace for a test that is started once more, with secrets.
const workspaceVariable = "SESAME_TEST_WORKSPACE"

// The first process has nothing of what its parent has in its environment, on its command line and in its memory.
func TestFirstProcessKnowsNothing(t *testing.T) {
	if base := os.Getenv(workspaceVariable); base != "" {
		forkedSandbox(t, base)
		return
	}
	const secret = "sgamp_user_EARLY00000000000000000_fedcba9876543210"
	h := newHost(t)
	const files = "123"
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	prlimit, err := exec.LookPath("prlimit")
	if err != nil {
		t.Fatal(err)
	}
	in, toIt, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer toIt.Close()
	out, fromIt, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// Package exec gives no variable twice.
	process, err := os.StartProcess(prlimit, []string{"prlimit", "--nofile=" + files + ":", self, "-test.run=^TestFirstProcessKnowsNothing$", "-test.v", "sandbox", "argument-" + secret}, &os.ProcAttr{
		// Go drops the second of two variables of a name, but not from memory.
		Env:   append(os.Environ(), workspaceVariable+"="+h.policy.Workspace, "AMP_API_KEY="+secret, "OTHER_TOKEN=other-"+secret, "AMP_API_KEY=twice-"+secret),
		Files: []*os.File{in, fromIt, os.Stderr},
	})
	in.Close()
	fromIt.Close()
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	lines := bufio.NewScanner(out)
	for pid == 0 && lines.Scan() {
		_, _ = fmt.Sscanf(lines.Text(), "first process %d", &pid)
	}
	if pid == 0 {
		_ = process.Kill()
		t.Fatal("it did not start")
	}
	if os.Geteuid() == 0 { // nobody else may look
		// The same look at the process that it was forked from finds it, or would find nothing anywhere.
		if n := countInMemory(t, process.Pid, secret); n == 0 {
			t.Error("not even sesame itself has the secret in its memory")
		}
		if n := countInMemory(t, pid, secret); n > 0 {
			t.Errorf("the first process has the secret in %d places", n)
		}
	}
	for _, file := range []string{"environ", "cmdline"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if os.Geteuid() == 0 && err != nil || len(bytes.Trim(data, "\x00")) > 0 {
			t.Errorf("%s: %v, %q", file, err, data)
		}
	}
	toIt.Close()
	rest := ""
	for lines.Scan() {
		rest += lines.Text() + "\n"
	}
	if state, err := process.Wait(); err != nil || !state.Success() || !strings.Contains("\n"+rest, "\nfiles "+files+"\n") {
		t.Errorf("%v, %v, or a limit of files that is not %s: %s", state, err, files, rest)
	}
}

// forkedSandbox is the other side of the test.
func forkedSandbox(t *testing.T, workspace string) {
	policy := &Policy{Tier: Namespaces, Workspace: workspace, Home: filepath.Dir(filepath.Dir(workspace))}
	b := Begin(&Command{Args: []string{"/bin/sh", "-c", "cat; echo; echo files $(ulimit -Sn)"}, Stdin: os.Stdin, Stdout: os.Stdout})
	p, ok := b.head.(*firstProcess)
	if !ok || first.Early() != nil {
		t.Fatal("what was begun with the program was not taken")
	}
	process, err := b.Start(t.Context(), policy)
	if err != nil {
		t.Fatal(err)
	}
	wantLoose(t)
	fmt.Printf("\nfirst process %d\n", p.id)
	if st, err := process.Wait(); err != nil || st.Code != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

// wantLoose waits until this process has back what it did without while the sandbox was made.
func wantLoose(t *testing.T) {
	t.Helper()
	var late []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		late = slices.DeleteFunc(timerSlacks(t), func(slack string) bool { return slack == "50000" })
		if runtime.GOMAXPROCS(0) == runtime.NumCPU() && len(late) == 0 {
			return
		}
	}
	t.Errorf("%d of %d processors, timers later than others: %q", runtime.GOMAXPROCS(0), runtime.NumCPU(), late)
}

// timerSlacks are how late timers of this process's threads may be, which only root may know.
func timerSlacks(t *testing.T) (slacks []string) {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		data, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
		if err == nil {
			slacks = append(slacks, strings.TrimSpace(string(data)))
		} else if os.Geteuid() == 0 && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
	return slacks
}

// countInMemory counts where a text is in what a process may write.
func countInMemory(t *testing.T, pid int, text string) (n int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	looked := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if _, err := fmt.Sscanf(line, "%x-%x rw", &from, &to); err != nil || to-from > 1<<30 {
			continue
		}
		part := make([]byte, to-from)
		if _, err := mem.ReadAt(part, from); err == nil {
			looked++
			n += bytes.Count(part, []byte(text))
		}
	}
	if looked == 0 {
		t.Fatalf("no memory of process %d could be read", pid)
	}
	return n
}

// Who starts the program that only forks a first process, without being its parent, has nothing changed for him and nothing left.
func TestFirstProcessWithoutParent(t *testing.T) {
	before, err := os.ReadFile("/proc/net/route")
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range [][]*os.File{nil, {os.Stdin}} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{first.Name}
		cmd.ExtraFiles = files
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
	}
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		names, err := filepath.Glob("/proc/[0-9]*/comm")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			var st unix.Stat_t
			data, err := os.ReadFile(name)
			if err == nil && string(data) == first.Name+"\n" && unix.Stat(name, &st) == nil && childOf(t, filepath.Dir(name), os.Getpid()) {
				left++
			}
		}
		if left == 0 {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%d processes are left", left)
		}
	}
	if after, err := os.ReadFile("/proc/net/route"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("routes were %s, and are %s, %v", before, after, err)
	}
}

// childOf tells whether a process, by its directory in /proc, is a child that still does something.
func childOf(t *testing.T, dir string, parent int) bool {
	t.Helper()
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	return err == nil && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", parent)) && !strings.Contains(string(status), "State:\tZ")
}

// Who hangs up while another one closes uses no descriptor that may be another file's by then. The race detector sees it.
func TestHangUpMeetsClose(t *testing.T) {
	for range 100 {
		l, theirs, err := newLine()
		if err != nil {
			t.Fatal(err)
		}
		var ends sync.WaitGroup
		for _, end := range []func(){l.hangUp, l.close, l.hangUp} {
			ends.Go(end)
		}
		ends.Wait()
		theirs.Close()
	}
}
