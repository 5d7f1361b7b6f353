package amptest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Request is one request that the service got.
type Request struct {
	Time   time.Time
	Method string
	Path   string // with the query
	Header http.Header
	Body   []byte // decoded where it came gzip-encoded
	Status int    // what was answered; 0 while there is no answer, 101 for a websocket
}

// Internal is the name of the internal call ("getUserInfo"), "" for other requests.
func (r Request) Internal() string {
	name, ok := strings.CutPrefix(r.Path, "/api/internal?")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, "&")
	return strings.TrimSuffix(name, "=")
}

// Frame is one websocket text frame.
type Frame struct {
	Time     time.Time
	Thread   string // the thread's id
	FromPeer bool   // sent by Amp, not by the service
	Data     string
}

// Requests is what the service was asked so far, oldest first.
func (s *Service) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.requests))
	for i, r := range s.requests {
		out[i] = *r
	}
	return out
}

// Frames is the websocket traffic so far, oldest first; empty without WithFrames.
func (s *Service) Frames() []Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

func (s *Service) keepFrame(thread string, fromPeer bool, data []byte) {
	if !s.frames && s.onFrame == nil {
		return
	}
	f := Frame{Time: time.Now(), Thread: thread, FromPeer: fromPeer, Data: string(data)}
	if s.frames {
		s.mu.Lock()
		s.sent = append(s.sent, f)
		s.mu.Unlock()
	}
	if s.onFrame != nil {
		s.onFrame(f)
	}
}

// record reads the whole body, keeps the request, and gives next the decoded body.
func (s *Service) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(r)
		rec := &Request{
			Time: time.Now(), Method: r.Method, Path: r.URL.RequestURI(),
			Header: r.Header.Clone(), Body: body,
		}
		s.mu.Lock()
		s.requests = append(s.requests, rec)
		s.mu.Unlock()

		sw := &statusWriter{ResponseWriter: w}
		if err != nil {
			http.Error(sw, err.Error(), http.StatusBadRequest)
		} else {
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(sw, r)
		}
		s.mu.Lock()
		rec.Status = sw.status
		done := *rec
		s.mu.Unlock()
		if s.onEach != nil {
			s.onEach(done)
		}
	})
}

func readBody(r *http.Request) ([]byte, error) {
	var src io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, fmt.Errorf("read gzip body: %w", err)
		}
		src = zr
	}
	body, err := io.ReadAll(src)
	if err != nil {
		return body, fmt.Errorf("read body: %w", err)
	}
	return body, nil
}

// statusWriter notes the status. It stays a Flusher and a Hijacker, which
// streaming and websockets need.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

func (w *statusWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, http.ErrNotSupported
	}
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return h.Hijack()
}
