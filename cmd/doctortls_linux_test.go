package cmd

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
)

// A company's authority that Node is told of counts for the doctor, as it does for a turn; and the key is not inside.
func TestDoctorWithCompanyAuthority(t *testing.T) {
	cert, authority := localhostCertificate(t)
	service := amptest.New()
	if err := service.StartTLS(t.Context(), cert); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Close() })
	w, _ := newPatientWorld(t)
	w.env["AMP_URL"], w.env["AMP_API_KEY"] = service.URL(), service.Key()
	w.env["NODE_EXTRA_CA_CERTS"] = w.write(t, filepath.Join(w.home, "company.pem"), string(authority))
	w.checkKey = askService(w.env)
	args := []string{"--only", "key", "--only", "inside", "--only", "service", "--only", "sandbox"}
	r, code := w.examine(t, args...)
	if code != 0 || r.Checks["key.accepted"].Status != "ok" || r.Checks["sandbox.key"].Status != "ok" || r.Checks["inside.host"].Status != "ok" {
		t.Errorf("exit %d: %s", code, w.out)
	}
	delete(w.env, "NODE_EXTRA_CA_CERTS")
	w.checkKey = askService(w.env)
	if r, code := w.examine(t, args...); code != 1 || !strings.Contains(r.Checks["service.tls"].Summary, "does not trust") {
		t.Errorf("unknown: exit %d: %s", code, w.out)
	}
}
