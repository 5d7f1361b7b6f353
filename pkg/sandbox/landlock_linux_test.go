package sandbox

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// TestInTierLandlock runs this package's tests again in the tier landlock; and in worlds without user
// namespaces, where it is what the strongest tier comes to.
func TestInTierLandlock(t *testing.T) {
	if os.Getenv(tierVariable) != "" {
		return // these are the tests that are run again
	}
	t.Parallel() // most of a test is waiting
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, world := range []string{"", "limit", "filter"} {
		t.Run("world "+world, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.skip", "^(TestInTierLandlock|TestAsOrdinaryUser|TestPromisesHaveTests|TestCheckTier.*|"+ofNamespaces+")$")
			cmd.Env = append(os.Environ(), tierVariable+"="+string(Landlock), worldVariable+"="+world)
			if world != "" {
				cmd.Args = append(cmd.Args, "-test.run", inEveryWorld)
				cmd.SysProcAttr = userNamespace(worlds[world].flags)
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, failuresOf(string(out)))
			}
			if !strings.Contains(string(out), "--- PASS: TestSecretsAreAbsent") {
				t.Errorf("the tests did not run:\n%s", out)
			}
		})
	}
}

// inEveryWorld are tests of how the tier comes to be where there are no user namespaces, and of what each class of attacks comes to there: what
// it allows and refuses is the same in every world of the tier.
const inEveryWorld = "^Test(Confined.*|SecretsAreAbsent|SystemIsReadOnly|HomeIsCopyOnWriteAndLasts|WorkspaceGuard|TopIsPutBackInTierLandlock|GitWorks|PrivilegesAreGone|" +
	"KernelMachinery|ForeignCalls|SocketFamilies|OtherProcessesAreOutOfReach|DescriptorsAreClosed|Environment.*|ExitStatus|NothingOutlives.*|CancelKillsAll|TracedCommandIsKilled|" +
	"KilledParentTakesAllAlong|SideBySide|ManyConnections|DenialsNameTheProgram|Refusals.*|TypingIntoTheTerminal|StrictProfile|NextTierHasTheInput|Start.*|Doctor.*|Explain.*)$"

// ofNamespaces are tests that are of that tier in whatever one they are run.
const ofNamespaces = "TestFirstProcessKnowsNothing|TestHomeOnAnOverlayLasts|TestLongWorkspacePath|TestRepositoriesBesideEachOtherAreMounts|TestRepositoryMadeAgainIsTheUsers|TestWrittenDuringTheTurn"

// failuresOf is what go test says of what failed.
func failuresOf(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "--- PASS") && !strings.HasPrefix(line, "=== ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func userNamespace(flags uintptr) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: flags}
	if flags != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

func TestMain(m *testing.M) {
	if world := os.Getenv(worldVariable); world != "" {
		if err := worlds[world].enter(); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// A tier that fails when it is half made has read nothing of what the command is to read.
func TestNextTierHasTheInput(t *testing.T) {
	h := newHost(t)
	h.policy.Tier, h.policy.Home, h.policy.HomeState = Auto, "/proc/sys/kernel", "" // which no overlay can be laid over
	var out strings.Builder
	p, err := Start(t.Context(), &h.policy, &Command{Args: []string{"/bin/cat"}, Env: h.env, Stdin: strings.NewReader("the prompt"), Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || p.Tier() != Landlock || out.String() != "the prompt" {
		t.Errorf("%+v, %v, in the tier %s: %q", status, err, p.Tier(), out.String())
	}
}

// In a place without user namespaces "the strongest tier" is this one, and it says so.
func TestStrongestTier(t *testing.T) {
	h := newHost(t)
	h.policy.Tier = Auto
	var notices []string
	h.policy.Notice = func(s string) { notices = append(notices, s) }
	p, err := h.start(t.Context(), nil, "true")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st.Code != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if os.Getenv(worldVariable) == "" {
		if p.Tier() != Namespaces || len(notices) != 0 {
			t.Errorf("tier %s, notices %q", p.Tier(), notices)
		}
		return
	}
	if p.Tier() != Landlock || len(notices) != 1 || !strings.Contains(notices[0], "weaker than namespaces") {
		t.Errorf("tier %s, notices %q", p.Tier(), notices)
	}
	// Who asks for namespaces gets them or nothing.
	h.policy.Tier = Namespaces
	if _, err := h.start(t.Context(), nil, "true"); err == nil {
		t.Error("namespaces fell back")
	}
}

// A command that another sandbox of the workspace runs cannot have this one made in a weaker tier.
func TestNoWeakerTierByChanges(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lockedBuffer{}
	first, err := h.start(ctx, out, "/usr/bin/python3", "-c", `
import os
print("ready", flush=True)
while True:
    try: os.mkdir(".vscode")
    except OSError: pass
    try: os.rmdir(".vscode")
    except OSError: pass`)
	if err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	second := &host{t: t, policy: h.policy, env: h.env}
	second.policy.Tier, second.policy.HomeState = Auto, ""
	for range 300 {
		p, err := second.start(ctx, nil, "true")
		if err != nil {
			if fault.CodeOf(err) != fault.SandboxUnavailable || !strings.Contains(err.Error(), "other programs") {
				t.Error(err)
			}
			continue
		}
		if p.Tier() != Namespaces && os.Getenv(worldVariable) == "" {
			t.Errorf("it is in the tier %s", p.Tier())
		}
		if st, err := p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	}
	cancel()
	_, _ = first.Wait()
}

func TestPassingFailures(t *testing.T) {
	for _, err := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, errChanged, &planError{syscall.EACCES}} {
		if !passing(unavailable(err)) {
			t.Errorf("%v leads to a weaker tier", err)
		}
	}
	for _, err := range []error{syscall.EPERM, syscall.ENOSPC, syscall.EINVAL} {
		if passing(unavailable(err)) {
			t.Errorf("after %v there is no tier", err)
		}
	}
}

// weakAttacks are those of the tests of all tiers that the tier landlock is said not to hold, and by which weakness.
var weakAttacks = map[string]string{
	"see the host's processes": "processes",
	"another interface":        "interfaces",
	"the loader":               "execution",
}

// holds tells whether the tier of these tests is said to hold something; "" is held by all.
func holds(t *testing.T, weakness string) bool {
	t.Helper()
	if weakness == "" {
		return true
	}
	if !slices.ContainsFunc(Weaknesses(Landlock, 0), func(w Weakness) bool { return w.ID == weakness }) {
		t.Errorf("%q is not on the list of weaknesses", weakness)
	}
	return testTier() == Namespaces
}
