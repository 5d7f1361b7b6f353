package bootstrap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/check"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestCheckCached(t *testing.T) {
	in := installer(t, bootstrap.Options{Dir: filepath.Join(t.TempDir(), "none")})
	look := func(want string) check.Result { return in.CheckCached(want).Run(t.Context()) }
	r := look("latest")
	if r.Status != check.Warn || !strings.Contains(r.Summary, "not cached yet") || !strings.Contains(r.Remedy[0], "`sesame amp install`") {
		t.Errorf("empty: %+v", r)
	}
	if r := look("../etc"); r.Status != check.Fail || r.Code != fault.Usage {
		t.Errorf("no version: %+v", r)
	}

	in, cache, s := filled(t, oldVersion, newVersion)
	before := s.total()
	r = look("latest")
	details := strings.Join(r.Details, "\n")
	if r.Status != check.OK || !strings.HasPrefix(r.Summary, newVersion+" (linux-x64, ") {
		t.Errorf("latest: %+v", r)
	}
	if digest := "sha256:" + sha256Hex(program(newVersion)); !strings.Contains(details, digest) || !strings.Contains(details, oldVersion) {
		t.Errorf("no %s or no %s in %s", digest, oldVersion, details)
	}
	if r := look("0.0.7-gabc"); r.Status != check.Warn || !strings.Contains(r.Remedy[0], "`sesame amp install 0.0.7-gabc`") {
		t.Errorf("another: %+v", r)
	}

	amp := filepath.Join(cache, newVersion, "amp")
	if err := os.Chmod(amp, 0o444); err != nil {
		t.Fatal(err)
	}
	if r := look(newVersion); r.Status != check.Warn || !strings.Contains(r.Summary, "is not executable") {
		t.Errorf("damaged: %+v", r)
	}
	if r := look("latest"); r.Status != check.OK || !strings.HasPrefix(r.Summary, oldVersion) || !strings.Contains(strings.Join(r.Details, "\n"), newVersion+" is damaged") {
		t.Errorf("the newest is damaged: %+v", r)
	}
	if err := os.Chmod(cache, 0o777); err != nil {
		t.Fatal(err)
	}
	if r := look("latest"); r.Status != check.Fail || r.Code != fault.BootstrapFailed || !strings.Contains(r.Summary, "may be written to by others") {
		t.Errorf("loose: %+v", r)
	}
	if s.total() != before {
		t.Error("it asked the network")
	}
}

func TestCheckPath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "amp")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := bootstrap.CheckPath(file).Run(t.Context()); r.Status != check.Fail || !strings.Contains(r.Summary, "not executable") || len(r.Remedy) == 0 {
		t.Errorf("not executable: %+v", r)
	}
	if err := os.Chmod(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := bootstrap.CheckPath(file).Run(t.Context()); r.Status != check.OK {
		t.Errorf("executable: %+v", r)
	}
}
