package bootstrap_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/bootstrap"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestDetectPlatform(t *testing.T) {
	const with = "processor\t: 0\nflags\t\t: fpu sse avx avx2 bmi\nbugs\t: x\n"
	const without = "processor\t: 0\nmodel name\t: avx2 pretender\nflags\t\t: fpu sse avx avx2x bmi\n"
	glibc := map[string]string{"lib64/ld-linux-x86-64.so.2": "", "lib/ld-linux-aarch64.so.1": ""}
	tests := []struct {
		system string
		files  map[string]string
		want   bootstrap.Platform
		words  string
	}{
		{system: "linux/amd64", files: map[string]string{"proc/cpuinfo": with}, want: bootstrap.LinuxX64},
		{system: "linux/amd64", files: map[string]string{"proc/cpuinfo": without}, want: bootstrap.LinuxX64Baseline},
		{system: "linux/arm64", want: bootstrap.LinuxARM64},
		{system: "darwin/arm64", want: bootstrap.DarwinARM64},
		{system: "darwin/amd64", want: bootstrap.DarwinX64},
		{system: "windows/amd64", want: bootstrap.WindowsX64},
		{system: "windows/arm64", want: bootstrap.WindowsX64},
		{system: "linux/amd64", files: map[string]string{"lib/ld-musl-x86_64.so.1": "", "proc/cpuinfo": with}, words: "glibc"},
		{system: "linux/arm64", files: map[string]string{"lib/ld-musl-aarch64.so.1": ""}, words: "glibc"},
		{
			system: "linux/amd64", want: bootstrap.LinuxX64, // musl beside glibc, as developers have it
			files: map[string]string{"lib/ld-musl-x86_64.so.1": "", "lib64/ld-linux-x86-64.so.2": "", "proc/cpuinfo": with},
		},
		{system: "linux/386", words: "no build of amp for linux on 386"},
		{system: "freebsd/amd64", words: "no build"},
	}
	for _, test := range tests {
		root := t.TempDir()
		files := test.files
		if files == nil {
			files = glibc
		}
		for name, text := range files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		goos, goarch, _ := strings.Cut(test.system, "/")
		got, err := bootstrap.DetectPlatform(goos, goarch, root)
		if test.words != "" {
			wantFault(t, err, fault.BootstrapFailed, "bootstrap failed", test.words)
		} else if err != nil || got != test.want {
			t.Errorf("%s with %v: %q, %v", test.system, test.files, got, err)
		}
	}
}

func TestVersionsSortByNumber(t *testing.T) {
	sorted := []string{"", "latest", "0.0.999999999-gffffff", "0.0.1770734955-g93e689", "0.0.1790142911-g7618fb", "0.0.1790142911-g7618fc", "0.1.0", "1.0.0-rc1"}
	shuffled := slices.Clone(sorted[2:])
	slices.Reverse(shuffled)
	slices.SortFunc(shuffled, bootstrap.CompareVersions)
	if !slices.Equal(shuffled, sorted[2:]) {
		t.Errorf("%q", shuffled)
	}
	if bootstrap.CompareVersions(sorted[1], sorted[2]) != -1 || bootstrap.CompareVersions(sorted[2], "") != 1 ||
		bootstrap.CompareVersions("x", "y") != 0 {
		t.Error("what is no version must come first")
	}
	for _, v := range sorted {
		if want := v != "" && v != "latest"; bootstrap.ValidVersion(v) != want {
			t.Errorf("ValidVersion(%q) = %v", v, !want)
		}
	}
}

func TestFromPath(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := put("amp.js", "#!/usr/bin/env node\n", 0o755)
	link := filepath.Join(dir, "amp")
	if err := os.Symlink("amp.js", link); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	resolved, err := filepath.EvalSymlinks(script)
	if err != nil {
		t.Fatal(err)
	}
	for given, want := range map[string]string{script: resolved, link: resolved, "amp": resolved, program: program} {
		b, err := bootstrap.FromPath(given)
		if err != nil || b.Path != want || b.Source != bootstrap.SourcePath || b.Version != "" || b.Size == 0 {
			t.Errorf("%s: %+v, %v", given, b, err)
		}
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink("gone", dangling); err != nil {
		t.Fatal(err)
	}
	for given, words := range map[string]string{
		"":                                "empty",
		filepath.Join(dir, "gone"):        "file does not exist",
		dangling:                          "file does not exist",
		dir:                               "directory",
		os.DevNull:                        "not a regular file",
		put("data", "#!/bin/sh\n", 0o644): "not executable",
		put("text", "hello", 0o755):       "neither a program",
		put("nothing", "", 0o755):         "neither a program",
		put("other", "\xcf\xfa\xed\xfe\x07", 0o755): "neither a program",
		filepath.Join(script, "x"):                  "not a directory",
	} {
		b, err := bootstrap.FromPath(given)
		if err == nil {
			t.Errorf("%s: %+v", given, b)
			continue
		}
		wantFault(t, err, fault.BootstrapFailed, "bootstrap failed: the amp executable", words)
	}
}
