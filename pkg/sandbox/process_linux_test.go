package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPrivilegesAreGone(t *testing.T) {
	h := newHost(t)
	out := h.sh(`grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status`)
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if strings.HasPrefix(want, "CapBnd") && os.Getuid() != 0 && testTier() == Landlock {
			continue // it takes privileges to give these up, which without new privileges have no effect
		}
		if !strings.Contains(out, want+"\n") {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
	attacks := []attack{
		{"setuid", python(`import os; os.setuid(12345); print("GOT")`), capable(unix.CAP_SETUID)},
		{"another owner", `touch x; chown 12345 x && echo GOT; rm -f x`, capable(unix.CAP_CHOWN)},
		{"real-time priority", python(`import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); print("GOT")`), capable(unix.CAP_SYS_NICE)},
		{"no limits", python(`import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (r.getrlimit(r.RLIMIT_NOFILE)[1] + 1,) * 2); print("GOT")`), capable(unix.CAP_SYS_RESOURCE)},
	}
	if os.Getuid() != 0 { // root is root in any program
		attacks = append(attacks, attack{"a set-uid program", `su root < <(sleep 1) & sleep 0.5; grep -P "^Uid:\t\d+\t0\t" /proc/$!/status && echo GOT`, true})
	}
	h.refuse(attacks)
}

func TestOtherProcessesAreOutOfReach(t *testing.T) {
	h := newHost(t)
	h.env = append(h.env, "MARK=1")
	victim := exec.CommandContext(t.Context(), "sleep", "300")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Wait() }()
	defer func() { _ = victim.Process.Kill() }()
	h.refuse([]attack{
		{"see the host's processes", `cat /proc/*/cmdline | tr '\0' ' ' | grep '[s]leep 300' && echo GOT`, true},
		{"PID 1's environment", `cat /proc/1/environ >/dev/null && echo GOT`, opens("/proc/1/environ")},
		{"PID 1's memory", `cat /proc/1/maps 2>/dev/null | grep . && echo GOT; : < /proc/1/mem && echo GOT`, opens("/proc/1/mem")},
		{"PID 1's root and descriptors", `ls -A /proc/1/root/ | grep . && echo GOT; readlink /proc/1/fd/* | grep . && echo GOT`, readsLink("/proc/1/fd/0")},
		{"kill PID 1", `kill -9 1; sleep 0.1; [ -e /proc/1 ] || echo GOT`, false}, // outside that is the machine's
	})
	if victim.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("the host's process is gone")
	}
}

func readsLink(path string) bool {
	_, err := os.Readlink(path)
	return err == nil
}

func TestDescriptorsAreClosed(t *testing.T) {
	h := newHost(t)
	secret, err := os.Open(h.write(".ssh/id", "SECRET"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	// As a shell leaves it: open across exec.
	fd, err := syscall.Dup(int(secret.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if out := h.sh(`ls /proc/self/fd | tr '\n' ' '`); out != "0 1 2 3 " { // 3 is ls's own
		t.Errorf("descriptors inside: %s", out)
	}
}

func TestEnvironment(t *testing.T) {
	host := []string{
		"PATH=/bin", "HOME=/home/u", "LANG=C", "LC_ALL=C", "TERM=xterm", "AWS_SECRET_ACCESS_KEY=x", "GITHUB_TOKEN=x", "LD_PRELOAD=x", "BASH_ENV=x",
		"NODE_OPTIONS=x", "SSH_AUTH_SOCK=x", "DBUS_SESSION_BUS_ADDRESS=x", "AMP_API_KEY=x", "MY_VAR=1", "OTHER=2", "HTTPS_PROXY=http://u:p@h",
	}
	got := strings.Join(Environment(host, "/h", []string{"MY_*"}), " ")
	if want := "HOME=/h PATH=/bin LANG=C LC_ALL=C TERM=xterm MY_VAR=1 " + strings.Join(gitSettings, " "); got != want {
		t.Errorf("environment %q, want %q", got, want)
	}
	own := []string{"GIT_CONFIG_COUNT=0"}
	if got := Environment(own, "/h", []string{"GIT_CONFIG_*"}); !slices.Equal(got, []string{"HOME=/h", own[0]}) {
		t.Errorf("with settings of the user's own: %q", got)
	}
}

func TestExitStatus(t *testing.T) {
	h := newHost(t)
	for script, want := range map[string]int{"true": 0, "exit 42": 42, "kill -TERM $$": 143, "kill -9 $$": 137, "kill -SEGV $$": 139} {
		if r := h.run("/bin/bash", "-c", script); r.code != want {
			t.Errorf("%s: %d, want %d", script, r.code, want)
		}
	}
	for _, c := range []struct {
		cmd  string
		code int
	}{{"no-such-command", 127}, {"/no/such/command", 127}, {"/etc/passwd", 126}, {"/etc", 126}} {
		_, err := h.start(t.Context(), nil, c.cmd)
		var no *NoCommandError
		if !asError(err, &no) || no.Code != c.code || !strings.HasPrefix(no.Error(), "exec: \""+c.cmd+"\": ") {
			t.Errorf("%s: %v, want code %d", c.cmd, err, c.code)
		}
	}
	for _, path := range []string{"", ".", "bin:."} { // nowhere to look
		h.env = setVariables(h.env, "PATH="+path)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := h.start(ctx, nil, "true")
		cancel()
		var no *NoCommandError
		if !asError(err, &no) || no.Code != 127 {
			t.Errorf("PATH=%s: %v", path, err)
		}
	}
}

// leavesBehind is a script whose background processes do all they can to stay.
const leavesBehind = `
(setsid setsid sh -c 'trap "" TERM HUP INT; echo $$; exec sleep MARK' &)
nohup sh -c 'exec sleep MARK' >/dev/null 2>&1 &
`

func TestNothingOutlivesTheCommand(t *testing.T) {
	h := newHost(t)
	mark := uniqueSleep()
	h.sh(strings.ReplaceAll(leavesBehind, "MARK", mark) + "sleep 0.3")
	waitGone(t, mark)
}

func TestCancelKillsAll(t *testing.T) {
	h := newHost(t)
	mark := uniqueSleep()
	ctx, cancel := contextWithCancel(t)
	out := &lockedBuffer{}
	p, err := h.start(ctx, out, "/bin/bash", "-c", strings.ReplaceAll(leavesBehind, "MARK", mark)+"echo ready; sleep "+mark)
	if err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	cancel()
	if st, err := p.Wait(); st.Code != 137 || err != nil && ctx.Err() == nil {
		t.Errorf("status %+v, %v", st, err)
	}
	waitGone(t, mark)
}

// tracesTheCommand is a program that traces the one that it comes from: whoever traces another one hears of its end first.
const tracesTheCommand = `
import ctypes, os, time
c = ctypes.CDLL(None, use_errno=True)
parent = os.getpid()
c.prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0) # whoever may signal it may trace it (PR_SET_PTRACER)
if not os.fork():
    os.setsid()
    if c.ptrace(0x4206, parent, 0, 0x40): print("not traced", ctypes.get_errno(), flush=True) # to hear of its exit before it is one
    else: print("traced", flush=True)
    os.execvp("sleep", ["sleep", "MARK"])
os.execvp("sleep", ["sleep", "MARK"])
`

// A command that another program inside traces ends with all others when it is to.
func TestTracedCommandIsKilled(t *testing.T) {
	h := newHost(t)
	mark := uniqueSleep()
	ctx, cancel := contextWithCancel(t)
	out := &lockedBuffer{}
	p, err := h.start(ctx, out, "/usr/bin/python3", "-c", strings.ReplaceAll(tracesTheCommand, "MARK", mark))
	if err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "traced")
	if strings.Contains(out.String(), "not") {
		scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
		if err != nil || strings.TrimSpace(string(scope)) < "2" {
			t.Fatal(out)
		}
		t.Skip("NOT TESTED: this machine lets nobody trace") // 2 and 3: only who may administer it, or nobody
	}
	cancel()
	if st, err := p.Wait(); st.Code != 137 || err != nil && ctx.Err() == nil {
		t.Errorf("status %+v, %v", st, err)
	}
	waitGone(t, mark)
}

// The parent cannot clean up when it is killed; the kernel must.
func TestKilledParentTakesAllAlong(t *testing.T) {
	if os.Getenv("SESAME_TEST_PARENT") != "" {
		h := newHost(t)
		_, err := h.start(t.Context(), os.Stdout, "/bin/bash", "-c", strings.ReplaceAll(leavesBehind, "MARK", os.Getenv("SESAME_TEST_PARENT"))+
			"exec python3 -c '"+strings.ReplaceAll(strings.ReplaceAll(tracesTheCommand, "'", `"`), "MARK", os.Getenv("SESAME_TEST_PARENT"))+"'")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
	}
	mark := uniqueSleep()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	t.Cleanup(func() {
		if dirs, err := filepath.Glob(filepath.Join(cache, "*")); err == nil {
			for _, d := range dirs {
				removeAll(t, d)
			}
		}
	})
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^TestKilledParentTakesAllAlong$")
	cmd.Env = append(os.Environ(), "SESAME_TEST_PARENT="+mark, "XDG_CACHE_HOME="+cache)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "traced")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	waitGone(t, mark)
}

// Whenever a start is cancelled, it says so, or there is a command that was killed.
func TestCancelledStart(t *testing.T) {
	h := newHost(t)
	mark := uniqueSleep()
	failed, ran := 0, 0
	for i := range 120 {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(time.Duration(i)*200*time.Microsecond, cancel)
		p, err := h.start(ctx, &lockedBuffer{}, "/bin/sleep", mark)
		switch {
		case errors.Is(err, context.Canceled):
			failed++
		case err != nil:
			t.Fatal(err)
		default:
			ran++
			if st, err := p.Wait(); err != nil || st.Signal != syscall.SIGKILL {
				t.Errorf("after %v: %+v, %v", time.Duration(i)*200*time.Microsecond, st, err)
			}
		}
		timer.Stop()
		cancel()
	}
	if failed == 0 {
		t.Errorf("no start was cancelled, %d ran", ran)
	}
	waitGone(t, mark)
}

func TestSignalReachesTheCommand(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			out, mark := &lockedBuffer{}, uniqueSleep()
			p, err := h.start(t.Context(), out, "env", "--default-signal", "/bin/bash", "-c", strings.ReplaceAll(leavesBehind, "MARK", mark)+`trap 'echo got it; exit 5' `+name+`; echo ready; while :; do sleep 0.05; done`)
			if err != nil {
				t.Fatal(err)
			}
			out.waitFor(t, "ready")
			if err := p.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if st, err := p.Wait(); err != nil || st.Code != 5 || !strings.Contains(out.String(), "got it") {
				t.Errorf("status %+v, %v: %s", st, err, out)
			}
			waitGone(t, mark)
		})
	}
}

func TestFilesGivenInside(t *testing.T) {
	h := newHost(t)
	big := bytes.Repeat([]byte("x"), 1<<20)
	h.policy.Files = []File{{Path: PrivateDir + "/settings.json", Data: []byte(`{}`)}, {Path: PrivateDir + "/big", Data: big}}
	if out := h.sh(`cat /run/sesame/settings.json; wc -c < /run/sesame/big; echo x > /run/sesame/settings.json || true`); !strings.HasPrefix(out, "{}1048576\n") {
		t.Errorf("files: %.100q", out)
	}
}
