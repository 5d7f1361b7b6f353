package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminalVariable says which tier a test's second process is to use, at a terminal of its own.
const terminalVariable = "SESAME_TEST_TERMINAL"

// pseudoTerminal makes a terminal: who is at it, and what programs run on.
func pseudoTerminal(t *testing.T) (person, programs *os.File) {
	t.Helper()
	// Not blocking, so that it can be closed while it is read.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	person = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if programs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { programs.Close() })
	return person, programs
}

// atTerminal runs a test again, in a process whose terminal is a new one.
func atTerminal(t *testing.T, tier Tier, more ...string) (cmd *exec.Cmd, person *os.File, said *lockedBuffer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	person, programs := pseudoTerminal(t)
	cmd = exec.CommandContext(t.Context(), exe, "-test.run", "^"+name+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), terminalVariable+"="+string(tier)), more...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = programs, programs, programs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	programs.Close()
	said = &lockedBuffer{}
	go func() { _, _ = io.Copy(said, person) }() // to the terminal's end
	return cmd, person, said
}

// terminalAttacks type a line into the terminal's input, where the shell of whoever started sesame would execute it.
const terminalAttacks = `
import fcntl, sys, termios
for what, number in (("TIOCSTI", 0x5412), ("TIOCSTI in another dress", 0x5412 | 1 << 31 << 1)):
    for c in b"evil\n":
        try:
            libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]
            if libc.ioctl(0, number, bytes([c])): raise OSError(ctypes.get_errno(), what)
        except OSError as e:
            print("refused:", e); break
    else:
        print("TYPED by", what)
`

// What is typed by a program is not typed by a person.
func TestTypingIntoTheTerminal(t *testing.T) {
	if tier := os.Getenv(terminalVariable); tier != "" {
		h := newHost(t)
		h.policy.Tier = Tier(tier)
		p, err := Start(t.Context(), &h.policy, &Command{
			Args: []string{"/bin/bash", "-c", program(terminalAttacks)}, Env: h.env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		n, err := unix.IoctlGetInt(0, unix.TIOCINQ)
		fmt.Printf("waiting in the terminal: %d, %v\n", n, err)
		return
	}
	try := func(tier Tier) string {
		cmd, _, said := atTerminal(t, tier)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		said.waitFor(t, "waiting in the terminal: ")
		return said.String()
	}
	if got := try(testTier()); strings.Contains(got, "TYPED") || !strings.Contains(got, "waiting in the terminal: 0, <nil>") || strings.Count(got, "refused:") != 2 {
		t.Errorf("inside: %s", got)
	}
	if !typingWorks() || os.Getenv(worldVariable) != "" {
		return
	}
	if got := try(Off); strings.Count(got, "TYPED") != 2 || !strings.Contains(got, "waiting in the terminal: 10, <nil>") {
		t.Errorf("outside: %s", got)
	}
}

// typingWorks tells whether the kernel lets programs type. Newer ones let only root.
func typingWorks() bool {
	legacy, err := os.ReadFile("/proc/sys/dev/tty/legacy_tiocsti")
	return capable(unix.CAP_SYS_ADMIN) || errors.Is(err, os.ErrNotExist) || strings.TrimSpace(string(legacy)) == "1"
}

// The console of Linux has a call for the same and more, with which text is selected and pasted.
func TestPastingIntoTheConsole(t *testing.T) {
	// As its input: inside there is no such device.
	console, err := os.OpenFile("/dev/tty1", os.O_RDWR|unix.O_NOCTTY, 0)
	isConsole := err == nil
	if !isConsole {
		_, console = pseudoTerminal(t)
	}
	defer console.Close()
	const shift = `
import array, fcntl
try: fcntl.ioctl(0, 0x541c, array.array("B", [6])); print("GOT") # which keys are held down
except OSError as e: print(e.errno)`
	for _, tier := range []Tier{testTier(), Off} {
		h := newHost(t)
		h.policy.Tier = tier
		var out lockedBuffer
		// Without a shell, which would make a terminal that nobody is at its own, and hang it up.
		p, err := Start(t.Context(), &h.policy, &Command{Args: []string{"python3", "-c", shift}, Env: h.env, Stdin: console, Stdout: &out, Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		want := "1\n" // not permitted
		if tier == Off {
			want = "25\n" // looked at by the kernel: no console
			if isConsole {
				want = "GOT\n"
			}
			if isConsole && (!capable(unix.CAP_SYS_TTY_CONFIG) || os.Getenv(worldVariable) != "") {
				continue // who is not at the console may not
			}
		}
		if out.String() != want {
			t.Errorf("%s: %q, want %q", tier, out.String(), want)
		}
	}
}

// A terminal that is closed takes all along that was started at it.
func TestTerminalIsClosed(t *testing.T) {
	if tier := os.Getenv(terminalVariable); tier != "" {
		// The hangup ends this process also where it began with the signal ignored, as under nohup.
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		go func() { <-hangup; os.Exit(1) }()
		h := newHost(t)
		h.policy.Tier = Tier(tier)
		script := strings.ReplaceAll(leavesBehind, "MARK", os.Getenv("SESAME_TEST_MARK")) + "trap '' HUP; echo re''ady; sleep 600; sleep 600"
		p, err := Start(t.Context(), &h.policy, &Command{
			Args: []string{"/bin/bash", "-c", script}, Env: h.env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = p.Wait() // the hangup ends this process
		return
	}
	for _, tier := range []Tier{testTier(), Off} {
		mark := uniqueSleep()
		cache := t.TempDir()
		t.Cleanup(func() { removeAll(t, cache) })
		cmd, person, said := atTerminal(t, tier, "SESAME_TEST_MARK="+mark, "XDG_CACHE_HOME="+cache)
		said.waitFor(t, "ready")
		person.Close()
		_ = cmd.Wait() // by the signal
		if tier != Off {
			waitGone(t, mark)
			continue
		}
		time.Sleep(100 * time.Millisecond)
		left := running(t, mark)
		if len(left) == 0 {
			t.Error("outside, too, all are gone")
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// A person at the terminal works as ever: keys, job control, the window's size.
func TestWorkAtTheTerminal(t *testing.T) {
	if tier := os.Getenv(terminalVariable); tier != "" {
		h := newHost(t)
		h.policy.Tier = Tier(tier)
		p, err := Start(t.Context(), &h.policy, &Command{
			Args: []string{"/bin/bash", "--norc", "-i"}, Env: h.env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || st.Code != 42 {
			t.Errorf("%+v, %v", st, err)
		}
		return
	}
	cmd, person, said := atTerminal(t, testTier())
	raw, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	resize := func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77})
	}
	if failed := raw.Control(resize); failed != nil || err != nil {
		t.Fatal(failed, err)
	}
	for _, step := range []struct{ keys, shows string }{
		{"echo be''gin\n", "begin"},
		{"stty size\n", "33 77"},
		{"sleep 1000 # one\n", "# one"},
		{"\x1a", "Stopped"}, // ctrl-z
		{"echo sta''tus $?; fg\n", "status 148"},
		{"\x03", "^C"}, // ctrl-c
		{"echo inter''rupted $?\n", "interrupted 130"},
		{"exit 42\n", "exit 42"},
	} {
		if _, err := io.WriteString(person, step.keys); err != nil {
			t.Fatal(err)
		}
		said.waitFor(t, step.shows)
		if step.shows == "^C" { // what is typed before the shell is back is lost
			_, after, _ := strings.Cut(said.String(), "^C")
			for deadline := time.Now().Add(10 * time.Second); !strings.Contains(after, "bash-") && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				_, after, _ = strings.Cut(said.String(), "^C")
			}
		}
		time.Sleep(200 * time.Millisecond) // until what was started is in the foreground
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}
