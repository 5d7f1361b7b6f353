package sandbox

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// gitHost serves a repository by SSH on the host's loopback, to whoever comes.
func gitHost(t *testing.T, repository string) (port string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveGit(conn, config, repository)
		}
	}()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// serveGit answers one client, until it goes.
func serveGit(conn net.Conn, config *ssh.ServerConfig, repository string) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			var command struct{ Line string }
			if r.Type != "exec" || ssh.Unmarshal(r.Payload, &command) != nil || !strings.HasPrefix(command.Line, "git-upload-pack ") {
				_ = r.Reply(r.Type == "env", nil) // a client that gets no answer fails
				continue
			}
			_ = r.Reply(true, nil)
			git := exec.Command("git", "upload-pack", repository)
			git.Stdin, git.Stdout, git.Stderr = channel, channel, channel.Stderr()
			var status struct{ Code uint32 }
			err := git.Run()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				status.Code = uint32(exit.ExitCode())
			} else if err != nil {
				status.Code = 127
			}
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
			channel.Close()
		}
	}
}

// A rule with a port opens that port, for a private host as well, whatever is spoken there: here Git's real client over SSH.
func TestGitOverSSH(t *testing.T) {
	if _, err := user.LookupId(strconv.Itoa(os.Getuid())); err != nil {
		return // ssh runs for nobody without an account: root's run of the tests has this one
	}
	h := newHost(t)
	repository := filepath.Join(filepath.Dir(h.policy.Home), "served.git")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", repository},
		{"-C", repository, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "served by ssh"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	port := gitHost(t, repository)
	clone := `export GIT_SSH_COMMAND='ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'
git clone -q ssh://git@localhost:` + port + `/served.git clone 2>&1 && git -C clone log --format=%s; rm -rf clone`
	if out := h.sh(clone); strings.Contains(out, "served by ssh") {
		t.Errorf("without a rule: %q", out)
	}
	h.allow("localhost:" + port)
	if out := h.sh(clone); out != "served by ssh\n" {
		t.Errorf("with a rule: %q", out)
	}
}
