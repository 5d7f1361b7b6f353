package amp_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/config/fault"
)

func TestUserInfo(t *testing.T) {
	svc := amptest.StartT(t)
	for _, base := range []string{svc.URL(), strings.TrimSuffix(svc.URL(), "/")} {
		account, err := amp.NewService(base, svc.Key(), nil).UserInfo(t.Context())
		if err != nil || account.ID == "" || !strings.Contains(account.Email, "@") {
			t.Errorf("%+v %v", account, err)
		}
	}
	_, err := amp.NewService(svc.URL(), "wrong", nil).UserInfo(t.Context())
	if fault.CodeOf(err) != fault.KeyRejected || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong key: %v", err)
	}
	if last := svc.Requests()[len(svc.Requests())-1]; last.Method != http.MethodPost {
		t.Errorf("asked with %s", last.Method)
	}
	svc.SetFaults(amptest.Faults{UserInfoStatus: http.StatusServiceUnavailable})
	if _, err = amp.NewService(svc.URL(), svc.Key(), nil).UserInfo(t.Context()); fault.CodeOf(err) != fault.ServiceUnreachable {
		t.Errorf("503: %v", err)
	}
	if err := svc.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = amp.NewService(svc.URL(), svc.Key(), nil).UserInfo(t.Context())
	if fault.CodeOf(err) != fault.ServiceUnreachable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("closed: %v", err)
	}
}

func TestUserInfoAnswers(t *testing.T) {
	const html = "text/html; charset=utf-8"
	for name, tt := range map[string]struct {
		status     int
		kind, body string
		code       fault.Code
		want       string
	}{
		"captive portal":          {200, html, "<html>log in", fault.ServiceUnreachable, "captive portal"},
		"portal that lies":        {200, "application/json", " <!doctype html>", fault.ServiceUnreachable, "captive portal"},
		"proxy that blocks":       {403, html, "<html>blocked", fault.ServiceUnreachable, "a proxy"},
		"forbidden":               {403, "application/json", "{}", fault.KeyRejected, "rejected"},
		"unauthorized in a page":  {401, html, "<html>", fault.KeyRejected, "rejected"},
		"no such place":           {404, "application/json", "{}", fault.ServiceUnreachable, "404"},
		"other JSON":              {200, "application/json", `{"hello":1}`, fault.ServiceUnreachable, ""},
		"result of another shape": {200, "application/json", `{"ok":true,"result":[]}`, fault.ServiceUnreachable, "not what"},
		"nobody":                  {200, "application/json", `{"ok":true,"result":{}}`, fault.ServiceUnreachable, "not what"},
		"an error":                {200, "application/json", `{"ok":false,"error":{"code":"x","message":"down\u001b[2J for now"}}`, fault.ServiceUnreachable, "down[2J for now"},
		"refused in the body":     {200, "application/json", `{"ok":false,"error":{"code":"auth-required"}}`, fault.KeyRejected, ""},
		"endless":                 {200, "application/json", `{"ok":true,"x":"` + strings.Repeat("x", 2<<20) + `"}`, fault.ServiceUnreachable, "not what"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer server.Close()
			_, err := amp.NewService(server.URL, "k", nil).UserInfo(t.Context())
			if fault.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", fault.CodeOf(err), err)
			}
		})
	}
}

// TestUserInfoRedirect: the key is for the named host, not for where that points.
func TestUserInfoRedirect(t *testing.T) {
	asked := false
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer thief.Close()
	server := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	_, err := amp.NewService(server.URL, "k", nil).UserInfo(t.Context())
	if fault.CodeOf(err) != fault.ServiceUnreachable || asked {
		t.Errorf("%v, followed: %v", err, asked)
	}
}

func TestUserInfoTime(t *testing.T) {
	svc := amptest.StartT(t, amptest.WithFaults(amptest.Faults{Delay: time.Minute}))
	_, err := amp.NewService(svc.URL(), svc.Key(), &http.Client{Timeout: 50 * time.Millisecond}).UserInfo(t.Context())
	if fault.CodeOf(err) != fault.ServiceUnreachable || !strings.Contains(err.Error(), "in time") {
		t.Errorf("slow: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = amp.NewService(svc.URL(), svc.Key(), nil).UserInfo(ctx); fault.CodeOf(err) != fault.ServiceUnreachable {
		t.Errorf("deadline: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err = amp.NewService(svc.URL(), svc.Key(), nil).UserInfo(ctx); fault.CodeOf(err) != fault.Canceled {
		t.Errorf("canceled: %v", err)
	}
}
