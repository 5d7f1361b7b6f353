package sandbox

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

const canaryKey = "the-real-key-0123456789"

// TestAttackInside is the attackers' program, when a canary starts it.
func TestAttackInside(t *testing.T) {
	if os.Getenv("SESAME_TEST_ATTACK") == "" {
		return // nothing to test in this one: TestCanaries starts another
	}
	if err := Attack(os.Stdin, os.Stdout); err != nil {
		t.Fatal(err)
	}
	os.Exit(0)
}

func (h *host) canaries() map[string]check.Result {
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	policy := h.policy
	policy.AllowRead = append(slices.Clone(policy.AllowRead), self)
	checks := CheckCanaries(&Canaries{
		Policy:  &policy,
		Command: &Command{Args: []string{self, "-test.run=^TestAttackInside$"}, Env: append(slices.Clone(h.env), "SESAME_TEST_ATTACK=1")},
		Key:     canaryKey,
	})
	results := map[string]check.Result{}
	for _, c := range checks {
		results[c.ID] = c.Run(h.t.Context())
	}
	return results
}

func TestCanaries(t *testing.T) {
	h := newHost(t)
	h.write(".ssh/id_ed25519", "secret")
	h.write(".aws/credentials", "secret")
	for id, r := range h.canaries() {
		if r.Status != check.OK {
			t.Errorf("%s: %+v", id, r)
		}
	}
	if r := h.canaries()["sandbox.processes"]; (h.policy.Tier != Landlock) != strings.Contains(r.Summary, "can be seen or signalled") {
		t.Errorf("in the tier %s: %q", h.policy.Tier, r.Summary)
	}
	h.env = append(h.env, "X=a"+canaryKey+"b")
	if r := h.canaries()["sandbox.key"]; r.Status != check.Fail || !strings.Contains(r.Summary, "/environ") || strings.Contains(r.Summary, canaryKey) {
		t.Errorf("the key inside: %+v", r)
	}
	h.policy.Tier = Off
	if r := h.canaries()["sandbox.writes"]; r.Status != check.Skip {
		t.Errorf("off: %+v", r)
	}
}

// Without a sandbox each attack succeeds, or the canaries would prove nothing.
func TestCanariesWithoutSandbox(t *testing.T) {
	h := newHost(t)
	secret := h.write(".ssh/id_ed25519", "secret")
	f, err := newField(&Canaries{Policy: &h.policy, Key: canaryKey})
	if err != nil {
		t.Fatal(err)
	}
	defer f.clear()
	// Nothing of the machine that runs the tests is written to.
	f.orders.Writes = slices.DeleteFunc(f.orders.Writes, func(path string) bool { return !within(path, h.policy.Home) && !within(path, f.dir) })
	t.Setenv("X", canaryKey)
	private := filepath.Join(t.TempDir(), "environ")
	if err := os.WriteFile(private, []byte("A=1\x00K="+canaryKey+"\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !f.orders.hasKey(beginning(private)) {
		t.Error("the key is not recognised")
	}
	var in, out bytes.Buffer
	if err := json.NewEncoder(&in).Encode(f.orders); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(in.String(), canaryKey) {
		t.Error("the attackers are told the key")
	}
	if err := Attack(&in, &out); err != nil {
		t.Fatal(err)
	}
	var got loot
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	results := f.judge(got, Namespaces)
	for _, id := range []string{"sandbox.secrets", "sandbox.writes", "sandbox.hosts", "sandbox.processes", "sandbox.privileges"} {
		if r := results[id]; r.Status != check.Fail || len(r.Remedy) == 0 {
			t.Errorf("%s: %+v", id, r)
		}
	}
	details := strings.Join(results["sandbox.secrets"].Details, "\n")
	if !strings.Contains(details, filepath.Dir(secret)) || !strings.Contains(details, f.dir) {
		t.Errorf("secrets: %s", details)
	}
	if calls := results["sandbox.hosts"].Details; len(calls) != 3 {
		t.Errorf("calls: %q", calls)
	}
	f.clear()
	for _, path := range f.orders.Writes {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("left %s", path)
		}
	}
}
