package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	attackPause = 300 * time.Millisecond // for one connection
	attackRead  = 256 << 10              // bytes of one file in which the key is looked for
)

func abstractSocket(name string) string { return "@sesame-canary-" + name }

func pidNamespace() string {
	name, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return name
}

// Attack is the part of the canaries that runs inside: it reads what to try from r and writes what it got to
// w. What it did to the host, the host sees by itself. Its error is that of reading and writing.
func Attack(r io.Reader, w io.Writer) error {
	var o orders
	if err := json.NewDecoder(r).Decode(&o); err != nil {
		return fmt.Errorf("read what to try: %w", err)
	}
	var got loot
	for _, path := range o.Secrets {
		if readable(path) {
			got.Secrets = append(got.Secrets, path)
		}
	}
	for _, path := range o.Writes {
		_ = os.WriteFile(path, []byte(o.Token), 0o600) // the host sees whether it is there
	}
	for _, address := range o.TCP {
		call("tcp", address, o.Token)
	}
	for _, address := range o.Sockets {
		call("unix", address, o.Token)
	}
	got.Processes = o.processes()
	got.Privileges = o.privileges()
	if o.KeyHash != "" {
		got.Key = o.keyPlaces()
	}
	return json.NewEncoder(w).Encode(got)
}

// readable tells whether a file has anything to read, or a directory any names.
func readable(path string) bool {
	// Not blocking: it could be a pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if names, err := f.Readdirnames(1); err == nil && len(names) > 0 {
		return true
	}
	n, _ := f.Read(make([]byte, 1))
	return n > 0
}

func call(network, address, token string) {
	conn, err := net.DialTimeout(network, address, attackPause) //nolint:noctx // ends with the sandbox
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(attackPause))
	// Until the host has noted the call: the attack ends with this program.
	if _, err := io.WriteString(conn, token); err == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
	_ = conn.Close()
}

// processes tries to reach the process that ordered the attack.
func (o *orders) processes() []string {
	if ns := pidNamespace(); ns != "" && ns != o.Namespace {
		return nil // its number means somebody else here, or nobody
	}
	var got []string
	if syscall.Kill(o.PID, 0) == nil {
		got = append(got, fmt.Sprintf("process %d %s", o.PID, signalled))
	}
	if readable(fmt.Sprintf("/proc/%d/environ", o.PID)) {
		got = append(got, fmt.Sprintf("the environment of process %d can be read", o.PID))
	}
	return got
}

// privileges are those that this process has and should not. Without namespaces an ordinary user cannot empty the
// bounding set, which has no effect where nothing can be gained by executing something.
func (o *orders) privileges() []string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return []string{"/proc/self/status cannot be read: " + err.Error()}
	}
	want := map[string]string{"NoNewPrivs": "1", "Seccomp": "2"}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		want[set] = strings.Repeat("0", 16)
	}
	if ns := pidNamespace(); ns != "" && ns == o.Namespace && os.Getuid() != 0 {
		delete(want, "CapBnd")
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if wanted, ok := want[name]; ok && strings.TrimSpace(value) != wanted {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
	}
	return got
}

// keyPlaces are the files that the key is in: environments and command lines, and what is
// private to the sandbox.
func (o *orders) keyPlaces() []string {
	files, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is good
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	files = append(files, lines...)
	_ = filepath.WalkDir(PrivateDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return nil
	})
	var got []string
	for _, file := range files {
		data := beginning(file)
		if o.hasKey(data) {
			got = append(got, file)
		}
	}
	slices.Sort(got)
	return got
}

func beginning(file string) []byte {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, attackRead))
	return data
}

// hasKey looks for the key by its hash, in every run of characters that could hold it.
func (o *orders) hasKey(data []byte) bool {
	for _, word := range bytes.FieldsFunc(data, func(r rune) bool { return r <= ' ' || r > '~' }) {
		for i := 0; i+o.KeyLength <= len(word); i++ {
			if keyHash(o.KeySalt, word[i:i+o.KeyLength]) == o.KeyHash {
				return true
			}
		}
	}
	return false
}
