package amptest

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// object is a JSON object under construction.
type object = map[string]any

func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/internal", s.internal)
	mux.HandleFunc("GET /api/threads/{id}", s.downloadThread)
	mux.HandleFunc("POST /api/threads/sync", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, object{"threadActions": []any{}})
	})
	mux.HandleFunc("POST /api/telemetry", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, object{})
	})
	mux.HandleFunc("POST /api/provider/anthropic/v1/messages", s.anthropic)
	mux.HandleFunc("POST /api/provider/openai/v1/responses", s.openai)
	mux.HandleFunc("POST /api/thread-actors", s.createActor)
	mux.HandleFunc("POST /api/user-actor-credentials", s.actorCredentials)
	mux.HandleFunc("GET /actors/metadata", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, object{"runtime": "rivetkit", "version": "2.0.0"})
	})
	mux.HandleFunc("GET /actors/gateway/threadActor/websocket/", s.websocket)
	mux.HandleFunc("GET /auth/cli-login", s.cliLogin)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusNotFound, object{"error": "not found"})
	})
	return mux
}

// cliLogin is the page that a browser comes to for a login, with a user who says yes at once.
func (s *Service) cliLogin(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back := url.Values{"authToken": {q.Get("authToken")}, "apiKey": {s.key}}
	http.Redirect(w, r, "http://localhost:"+url.PathEscape(q.Get("callbackPort"))+"/auth/callback?"+back.Encode(), http.StatusFound)
}

// guard lets nothing under /api/ pass without the key, and carries out the delay.
func (s *Service) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			if !s.authorized(r) {
				writeJSON(w, http.StatusUnauthorized, object{
					"ok": false, "error": object{"code": "auth-required", "message": "Unauthorized"},
				})
				return
			}
			if !pause(r.Context(), s.fault().Delay) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Service) authorized(r *http.Request) bool {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		key = r.Header.Get("X-Api-Key")
	}
	return subtle.ConstantTimeCompare([]byte(key), []byte(s.key)) == 1
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the peer may be gone: nobody is left to tell
}
