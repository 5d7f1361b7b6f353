//go:build unix

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The private home of the tier seatbelt has nothing that its profile hides, and nothing written there reaches the host.
func TestSeatbeltHomeHasNoSecrets(t *testing.T) {
	for _, level := range []Profile{Standard, Strict} {
		m := newMac(t)
		m.policy.Profile = level
		for _, path := range []string{
			".zshrc", ".npmrc", ".aws/credentials", ".SSH/id", ".config/gh/hosts.yml", ".config/nvim/init.lua", ".config/both/x",
			"Library/Keychains/login.keychain-db", "Library/Caches/x", ".nvm/versions/node", ".claude.json", "denied", "src/main.c",
		} {
			file := filepath.Join(m.policy.Home, path)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("of the host: "+path), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(filepath.Join(m.policy.Home, ".aws"), filepath.Join(m.policy.Home, "aws-link")); err != nil {
			t.Fatal(err)
		}
		m.policy.DenyRead = []string{filepath.Join(m.policy.Home, "denied"), filepath.Join(m.policy.Home, ".config/both")}
		o, err := newOwnPlaces(m.policy, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer o.close()
		b := &profile{policy: m.policy, places: m.places}
		o.reads, o.shows = b.reads, b.shows
		if err := o.takeHome(); err != nil {
			t.Fatal(err)
		}
		b.places.home, b.places.tmp = o.home, o.tmp()
		rules := parseProfile(t, m.profile())
		var shown []string
		err = filepath.WalkDir(o.home, func(path string, e os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(o.home, path)
			if !e.IsDir() {
				shown = append(shown, rel)
			}
			if e.Type().IsRegular() && !rules.allow("file-read-data", filepath.Join(m.policy.Home, rel), false) {
				t.Errorf("%s: %s is a copy of what is hidden", level, rel)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		list := " " + strings.Join(shown, " ") + " "
		for rel, want := range map[string]bool{
			".zshrc": level == Standard, ".config/nvim/init.lua": level == Standard, "src": level == Standard, ".nvm": true,
			".npmrc": false, ".aws": false, ".SSH": false, "Library": false, "denied": false, ".claude.json": false,
		} {
			if strings.Contains(list, " "+rel+" ") != want {
				t.Errorf("%s: %s in the home: %v, want %v (%s)", level, rel, !want, want, list)
			}
		}
		if level == Standard {
			if err := os.WriteFile(filepath.Join(o.home, ".zshrc"), []byte("changed"), 0o600); err != nil {
				t.Fatal(err)
			}
			if data, _ := os.ReadFile(filepath.Join(m.policy.Home, ".zshrc")); string(data) != "of the host: .zshrc" {
				t.Errorf("the host's file was changed: %s", data)
			}
		}
	}
}

func TestSeatbeltEnvironment(t *testing.T) {
	m := newMac(t)
	o := ownPlaces{policy: m.policy, run: "/private/tmp/sesame-1", home: "/state/home", reads: (&profile{policy: m.policy, places: m.places}).reads}
	env := o.environment([]string{
		"HOME=" + m.policy.Home, "PATH=/usr/bin:" + m.policy.Home + "/.ssh/bin:" + m.policy.Home + "/bin", "TMPDIR=/var/folders/x",
		"NODE_EXTRA_CA_CERTS=" + extraCertificates, "GOPATH=" + m.policy.Home + "/go", "HTTPS_PROXY=http://host:1", "NO_PROXY=*",
	})
	env = setVariables(env, proxyVariables(m.policy, "http://sesame:t@127.0.0.1:1")...)
	for name, want := range map[string]string{
		"HOME": "/state/home", "PATH": "/usr/bin:" + m.policy.Home + "/bin", "TMPDIR": "/private/tmp/sesame-1/tmp", "GOPATH": "/state/home/go",
		"NODE_EXTRA_CA_CERTS": "/private/tmp/sesame-1/files/ca.pem", "HTTPS_PROXY": "http://sesame:t@127.0.0.1:1", "all_proxy": "http://sesame:t@127.0.0.1:1",
		"NO_PROXY": "localhost,127.0.0.1,::1",
	} {
		if got := lookup(env, name); got != want {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	script := filepath.Join(t.TempDir(), "amp")
	for text, want := range map[string]bool{"#!/usr/bin/env node\n": true, "#!/bin/sh\nnode\n": false, "\x7fELF node": false, "": false} {
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := isNodeScript(script); got != want {
			t.Errorf("%q is a script for Node: %v", text, got)
		}
	}
}
