package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
)

// A service that repeats what it was sent in headers gives the key away in none of the places where an answer has such.
func TestNoHeaderBringsTheKeyBack(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Known")
		w.Header().Set("X-Early", r.Header.Get("X-Api-Key"))
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Known", r.Header.Get("X-Api-Key"))
		w.Header().Set(http.TrailerPrefix+"X-Late", r.Header.Get("X-Api-Key"))
	}))
	defer s.Close()
	_, client := swapWorld(t, s, true)
	var early string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		early = h.Get("X-Early")
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://example.com/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", placeholder)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "body" {
		t.Fatalf("%q, %v", body, err)
	}
	for where, got := range map[string]string{
		"an informational answer": early, "a header": resp.Header.Get("X-Early"),
		"a trailer": resp.Trailer.Get("X-Known"), "a trailer that was not announced": resp.Trailer.Get("X-Late"),
	} {
		if got != placeholder || strings.Contains(got, realKey) {
			t.Errorf("%s says %q", where, got)
		}
	}
}
