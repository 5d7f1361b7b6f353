package first

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testMemory, testSteps = 1 << 16, 1 << 15

// inTest is a first process in the hands of a test.
type inTest struct {
	t      *testing.T
	socket int
	begun  *Beginning
}

func beginInTest(t *testing.T) *inTest {
	t.Helper()
	b, err := Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Started(); err != nil {
		t.Fatal(err)
	}
	p := &inTest{t, b.Socket, b}
	t.Cleanup(func() {
		unix.Close(p.socket)
		b.Unbind()
	})
	for range 2 { // which process it is, and which namespace: two say that
		if m := p.next(); m.What != TellFirst && m.What != TellSpace {
			t.Fatalf("%+v", m)
		}
	}
	return p
}

// next is the next message, the zero value when there is none any more.
func (p *inTest) next() Message {
	p.t.Helper()
	packet := make([]byte, 2*Size)
	for {
		n, _, err := unix.Recvfrom(p.socket, packet, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.ECONNRESET):
			p.t.Fatal(err)
		case n <= 0:
			return Message{}
		}
		m, ok := ParseMessage(packet[:n])
		if !ok {
			p.t.Fatalf("a message of %d bytes", n)
		}
		return m
	}
}

// perform sends a script; the command's output is a file.
func (p *inTest) perform(out *os.File, write func(s *Script)) {
	p.t.Helper()
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC)
	if err != nil {
		p.t.Fatal(err)
	}
	defer unix.Close(fd)
	memory := make([]byte, testMemory)
	s := NewScript(memory, testSteps, Generally)
	s.Await() // for the streams
	write(s)
	size, err := s.Finish()
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := unix.Write(fd, memory[:size]); err != nil {
		p.t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer null.Close()
	if out == nil {
		out = null
	}
	if err := unix.Sendmsg(p.socket, Perform(size).Bytes(), unix.UnixRights(fd), nil, 0); err != nil {
		p.t.Fatal(err)
	}
	streams := unix.UnixRights(int(null.Fd()), int(out.Fd()), int(out.Fd()))
	if err := unix.Sendmsg(p.socket, GoOn(true).Bytes(), streams, nil, 0); err != nil {
		p.t.Fatal(err)
	}
}

// tell has the script tell the parent a number.
func tell(s *Script, n int) {
	m := s.Data(Message{What: TellHome, A: uint32(n)}.Bytes())
	s.Call(syscall.SYS_SENDTO, Value(Socket), m, Value(Size), Value(0), Value(0), Value(0))
}

// run has the script execute a shell's command.
func run(s *Script, command string) {
	args, env := s.Table(s.Text("sh"), s.Text("-c"), s.Text(command), Arg{}), s.Table(Arg{})
	var child, end Label
	s.Start(&child)
	s.Jump(&end)
	s.Here(&child)
	s.Call(syscall.SYS_EXECVE, s.Text("/no/such/sh"), args, env).Spare(syscall.ENOENT)
	s.Call(syscall.SYS_EXECVE, s.Text("/bin/sh"), args, env)
	s.Here(&end)
}

// Threads are as late as they are told to be, and as usual in the end, also those that late ones have started.
func TestThreadsAreDelayed(t *testing.T) {
	if !findMonitor() {
		if runtime.GOARCH == "amd64" {
			t.Fatal("the monitor was not found")
		}
		t.Skip("only on amd64")
	}
	slack := func(thread string) string {
		data, err := os.ReadFile("/proc/" + thread + "/timerslack_ns")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return "50000" // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	wait := func(what string, is func() bool) {
		t.Helper()
		if os.Geteuid() != 0 { // others may not know how late threads are; that the handler does no harm is seen
			time.Sleep(20 * time.Millisecond)
			return
		}
		for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not so: %s", what)
			}
		}
	}
	delayTimers(monitor.thread, 7_000_000)
	wait("the monitor is late", func() bool { return slack(strconv.Itoa(int(monitor.thread))) == "7000000" })
	if os.Geteuid() == 0 && slack("self") != "50000" {
		t.Error("the main thread is late, too")
	}
	// Two threads that are late, one by the other.
	late := make(chan struct{})
	defer close(late)
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		try(syscall.SYS_PRCTL, setTimerSlack, 7_000_000, 0, 0)
		go func() {
			runtime.LockOSThread()
			started <- struct{}{}
			<-late
		}()
		started <- struct{}{}
		<-late
	}()
	<-started
	<-started
	hurry()
	wait("no thread is late", func() bool {
		return !slices.ContainsFunc(threads(), func(thread string) bool { return slack(thread) != "50000" })
	})
}

func TestScriptGoesItsWay(t *testing.T) {
	p := beginInTest(t)
	p.perform(nil, func(s *Script) {
		var elsewhere, behind, onward Label
		s.Call(syscall.SYS_CHDIR, s.Text("/no/such")).Spare(syscall.EACCES, syscall.ENOENT)
		tell(s, 1) // a spared error goes on with the next step
		s.Call(syscall.SYS_CHDIR, s.Text("/no/such")).Spare(syscall.ENOENT).Else(&elsewhere)
		tell(s, 99)
		s.Here(&elsewhere)
		s.Call(syscall.SYS_CHDIR, s.Text("/proc")).Spare(syscall.ENOENT).Else(&behind) // no error goes on with the next one
		tell(s, 2)
		s.Jump(&onward)
		s.Here(&behind)
		tell(s, 98)
		s.Here(&onward)
		// A result becomes an argument, and part of the data.
		fd := s.Call(syscall.SYS_OPENAT, Value(unix.AT_FDCWD), s.Text("/proc"), Value(syscall.O_RDONLY), Value(0)).Result()
		m := s.Data(Message{What: TellHome}.Bytes())
		s.Poke(m.At(4), fd)
		s.Call(syscall.SYS_SENDTO, Value(Socket), m, Value(Size), Value(0), Value(0), Value(0))
		s.Call(syscall.SYS_READLINKAT, Value(unix.AT_FDCWD), s.Paths(fd), s.Data(make([]byte, 64)), Value(64))
		s.Call(syscall.SYS_FCHDIR, In(fd))
		s.Call(syscall.SYS_READLINKAT, Value(unix.AT_FDCWD), s.Paths(fd, fd), s.Data(make([]byte, 64)), Value(64)).Spare(syscall.ENOENT)
		tell(s, 3)
		s.Topic("what fails", "here")
		s.Call(syscall.SYS_CHDIR, s.Text("/no/such")).Spare(syscall.EACCES)
		tell(s, 97)
	})
	for _, want := range []uint32{1, 2, 0, 3} { // 0 is any descriptor
		if m := p.next(); m.What != TellHome || m.A != want && (want != 0 || m.A <= Socket) {
			t.Fatalf("%+v, want %d", m, want)
		}
	}
	m := p.next()
	if m.What != TellFailed || syscall.Errno(m.B) != syscall.ENOENT || m.A < AtStep+NextScript {
		t.Errorf("%+v", m)
	}
	if m := p.next(); m != (Message{}) {
		t.Errorf("it goes on: %+v", m)
	}
}

func TestFailureNamesTheStep(t *testing.T) {
	s := NewScript(make([]byte, testMemory), testSteps, 0)
	s.Topic("files: ro", "/usr")
	s.Call(sysOpenTree)
	s.Topic("setsid", "")
	s.Call(syscall.SYS_SETSID)
	for at, want := range map[int]string{
		AtStep + NextScript:     "files: ro /usr: open_tree",
		AtStep + NextScript + 1: "setsid",
		AtStep + NextScript + 9: "",
		AtUserNamespace:         "user namespace",
		AtStep:                  "",
	} {
		if got := Failure(at, s); got != want {
			t.Errorf("%d is %q, want %q", at, got, want)
		}
	}
}

func TestScriptThatIsTooLong(t *testing.T) {
	for name, write := range map[string]func(s *Script){
		"steps": func(s *Script) {
			for range testMemory {
				s.Call(syscall.SYS_GETPID)
			}
		},
		"data": func(s *Script) {
			for range testMemory {
				s.Text("text")
			}
		},
		"one piece of data": func(s *Script) { s.Table(s.Data(make([]byte, 2*testMemory))) },
	} {
		s := NewScript(make([]byte, testMemory), testSteps, 0)
		write(s)
		if size, err := s.Finish(); !errors.Is(err, syscall.E2BIG) {
			t.Errorf("%s: %d, %v", name, size, err)
		}
	}
}

func TestCommandsEnd(t *testing.T) {
	for _, c := range []struct {
		name, command string
		want          Message
	}{
		{"code", "exit 42", Message{What: TellEnded, A: 42, C: 1}},
		{"signal", "kill -TERM $$", Message{What: TellEnded, A: 128 + 15, B: 15, C: 1}},
		{"orphans that end", "(true &); (sh -c 'exit 3' & true); sleep 0.1", Message{What: TellEnded, C: 1}},
		{"somebody is left", "sleep 60 & exit 7", Message{What: TellEnded, A: 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := beginInTest(t)
			p.perform(nil, func(s *Script) { run(s, c.command) })
			if m := p.next(); m.What != TellStarted {
				t.Fatalf("%+v", m)
			}
			if m := p.next(); m != c.want {
				t.Errorf("%+v, want %+v", m, c.want)
			}
		})
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	p := beginInTest(t)
	if err := unix.Sendto(p.socket, Signal(int(syscall.SIGTERM)).Bytes(), 0, nil); err != nil { // too early: it is for nobody
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.perform(w, func(s *Script) { run(s, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done") })
	if m := p.next(); m.What != TellStarted {
		t.Fatalf("%+v", m)
	}
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(p.socket, Signal(int(syscall.SIGTERM)).Bytes(), 0, nil); err != nil {
		t.Fatal(err)
	}
	if m := p.next(); m.What != TellEnded || m.A != 5 {
		t.Errorf("%+v", m)
	}
}

func TestCommandThatCannotBeExecuted(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		paths []string
		want  syscall.Errno
	}{
		{[]string{"/no/such", filepath.Join(dir, "text", "below")}, syscall.ENOENT},
		{[]string{"/no/such", filepath.Join(dir, "text"), "/no/such/either"}, syscall.EACCES},
		{[]string{dir}, syscall.EACCES},
	} {
		p := beginInTest(t)
		var script *Script
		p.perform(nil, func(s *Script) {
			script = s
			args := s.Table(s.Text("x"), Arg{})
			var child, end Label
			s.Start(&child)
			s.Jump(&end)
			s.Here(&child)
			for _, path := range c.paths {
				s.Call(syscall.SYS_EXECVE, s.Text(path), args, args).Spare(syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES)
			}
			s.NoCommand()
			s.Here(&end)
		})
		m := p.next()
		at := int(m.A) - AtStep - NextScript
		if m.What != TellFailed || syscall.Errno(m.B) != c.want || !script.Executes(at) {
			t.Errorf("%v: %+v", c.paths, m)
		}
	}
}

// The command has no descriptors but its streams, no signal blocked and the caller's limits, umask and processors.
func TestCommandHasWhatTheCallerHas(t *testing.T) {
	p := beginInTest(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.perform(w, func(s *Script) {
		s.Call(syscall.SYS_OPENAT, Value(unix.AT_FDCWD), s.Text("/proc"), Value(syscall.O_RDONLY), Value(0)).Result() // left open, without O_CLOEXEC
		s.Call(syscall.SYS_UMASK, In(Umask))
		run(s, `ls /proc/self/fd | xargs; ulimit -Sn; umask; grep SigBlk /proc/self/status; grep Cpus_allowed: /proc/self/status /proc/$PPID/status | cut -f2 | uniq`)
	})
	w.Close()
	child, err := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -Sn; grep Cpus_allowed: /proc/self/status | cut -f2").Output()
	if err != nil {
		t.Fatal(err)
	}
	limit, processors, _ := strings.Cut(strings.TrimSpace(string(child)), "\n")
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	// The shell has one more, with which it looks. Go has raised this process's own limit.
	want := []string{"0 1 2 3", limit, fmt.Sprintf("%04o", mask), "SigBlk:\t0000000000000000", processors}
	if !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
}

// When the parent is gone, so are the first process and all that it has.
func TestFirstProcessEndsWithItsParent(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := beginInTest(t)
	p.perform(w, func(s *Script) { run(s, "sleep 60 & sleep 60") })
	w.Close()
	if m := p.next(); m.What != TellStarted {
		t.Fatalf("%+v", m)
	}
	if err := unix.Shutdown(p.socket, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(r) // to its end: nobody has it any more
		gone <- err
	}()
	select {
	case err := <-gone:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("something is left")
	}
}

func TestKernelVersion(t *testing.T) {
	var names unix.Utsname
	if err := unix.Uname(&names); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(names.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if got := kernel(); got != major<<8+minor {
		t.Errorf("%#x for %d.%d", got, major, minor)
	}
	for release, want := range map[string]int{
		"6.14.0-37-generic": 6<<8 + 14, "6.14-rc7": 6<<8 + 14, "6.14": 6<<8 + 14, "5.10.209-198\x00\x00": 5<<8 + 10, "7.1.2": 7<<8 + 1, "6.1400": 6<<8 + 255,
		"": 0, "6": 0, "6.": 0, ".14": 0, "linux": 0, "6.x": 0,
	} {
		if got := version([]byte(release)); got != want {
			t.Errorf("%q: %#x, want %#x", release, got, want)
		}
	}
}
