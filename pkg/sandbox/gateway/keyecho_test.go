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

// Nor does one that puts it where no server of a known make would, nor one that writes it in other letters.
func TestNoPartOfAnAnswerBringsTheKeyBack(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		key := r.Header.Get("X-Api-Key")
		status, body := "200", "Content-Length: 0\r\n"
		if r.URL.Path == "/upgrade" {
			status, body = "101", "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		}
		_, _ = io.WriteString(c, "HTTP/1.1 103 "+key+"\r\n"+key+": x\r\n\r\nHTTP/1.1 "+status+" "+key+"\r\n"+body+
			key+": x\r\nX-Upper: "+strings.ToUpper(key)+"\r\nTrailer: "+key+"\r\n\r\n")
	}))
	defer s.Close()
	for _, path := range []string{"/", "/upgrade"} {
		w, _ := swapWorld(t, s, true)
		addr, _ := w.lookup("example.com")
		c := w.connect(addr, 80)
		upgrade := map[string]string{"/upgrade": "Connection: Upgrade\r\nUpgrade: websocket\r\n", "/": "Connection: close\r\n"}[path]
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: example.com\r\nX-Api-Key: "+placeholder+"\r\n"+upgrade+"\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(c)
		if !strings.Contains(string(answer), "X-Upper: "+placeholder) || strings.Contains(strings.ToLower(string(answer)), strings.ToLower(realKey)) {
			t.Errorf("%s: the answer is %q", path, answer)
		}
	}
}
