//go:build unix

package bootstrap_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// TestMain becomes a process that installs one version, when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("BOOTSTRAP_CHILD") == "" {
		os.Exit(m.Run())
	}
	if err := confine(); err != nil {
		fmt.Println("cannot be confined:", err)
		os.Exit(9)
	}
	if err := childMain(); err != nil {
		fmt.Println(fault.CodeOf(err), err)
		for _, hint := range fault.HintsOf(err) {
			fmt.Println("hint:", hint)
		}
		os.Exit(5)
	}
	os.Exit(0)
}

func childMain() error {
	if limit, err := strconv.ParseUint(os.Getenv("BOOTSTRAP_FSIZE"), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ) // so that the write fails, as on a full disk
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
	}
	list, err := bootstrap.ParseSources(strings.Fields(os.Getenv("BOOTSTRAP_SOURCES")), bootstrap.Network{Timeouts: quick()})
	if err != nil {
		return err
	}
	in, err := bootstrap.New(bootstrap.Options{Dir: os.Getenv("BOOTSTRAP_DIR"), Sources: list, Platform: bootstrap.LinuxX64, Timeouts: quick(), Events: bootstrap.Events{
		Waiting: func(string) { fmt.Println("waiting") },
	}})
	if err != nil {
		return err
	}
	b, err := in.Ensure(context.Background(), newVersion)
	if err != nil {
		return err
	}
	fmt.Println(b.Path)
	switch os.Getenv("BOOTSTRAP_THEN") {
	case "refresh":
		newer, err := in.Refresh(context.Background(), b)
		fmt.Printf("found %q, %v\n", newer.Version, err)
	case "use":
		defer in.Use(b)()
		fmt.Println("in use")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return nil
}

func child(t *testing.T, cache string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append([]string{"BOOTSTRAP_CHILD=1", "BOOTSTRAP_DIR=" + cache, "HOME=" + t.TempDir()}, env...)
	return cmd
}
