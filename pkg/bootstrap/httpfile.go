package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// errChanged is what becomes of a part when the file is another one by now.
var errChanged = errors.New("the server did not send the part that was asked for")

// file begins to get a file; where a part of it is there, with the rest. What the
// artifact is and has to come to, the source adds.
func (g *getter) file(ctx context.Context, address string, header http.Header, req Request) (*Artifact, error) {
	public := publicURL(address)
	have := req.have(public)
	resp, err := g.begin(ctx, address, header, have)
	if err != nil {
		return nil, err
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if strings.EqualFold(strings.TrimSpace(kind), "text/html") {
		resp.Body.Close()
		return nil, errWebPage
	}
	a := &Artifact{Body: resp.Body, Size: resp.ContentLength, URL: public}
	if resp.StatusCode == http.StatusPartialContent {
		a.Offset, a.Size, a.Validator = have.Bytes, have.Size, have.Validator
	} else if resp.ContentLength >= 0 && strings.EqualFold(resp.Header.Get("Accept-Ranges"), "bytes") {
		a.Validator = strongValidator(resp.Header)
	}
	if a.Validator != "" {
		a.More = func(ctx context.Context, from, to int64) (io.ReadCloser, error) {
			return g.part(ctx, address, header, from, to, a.Size, a.Validator)
		}
	}
	return a, nil
}

// begin asks for the rest of what is there, and for everything when that is not to be had.
func (g *getter) begin(ctx context.Context, address string, header http.Header, have Have) (*http.Response, error) {
	if have.Bytes == 0 {
		return g.get(ctx, address, header)
	}
	resp, err := g.get(ctx, address, rangeOf(header, fmt.Sprintf("bytes=%d-", have.Bytes), have.Validator),
		http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	if resp.StatusCode == http.StatusPartialContent && sends(resp, have.Bytes, have.Size, have.Size) {
		return resp, nil
	}
	resp.Body.Close()
	return g.get(ctx, address, header)
}

// part gets the bytes [from, to) of a file of that size, as long as it is the same file.
func (g *getter) part(ctx context.Context, address string, header http.Header, from, to, size int64, validator string) (io.ReadCloser, error) {
	resp, err := g.get(ctx, address, rangeOf(header, fmt.Sprintf("bytes=%d-%d", from, to-1), validator), http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusPartialContent || !sends(resp, from, to, size) {
		resp.Body.Close()
		return nil, errChanged
	}
	return resp.Body, nil
}

func rangeOf(header http.Header, value, validator string) http.Header {
	h := header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Range", value)
	h.Set("If-Range", validator)
	return h
}

// sends reports whether an answer is of the bytes [from, to) of a file of that size.
func sends(resp *http.Response, from, to, size int64) bool {
	return resp.Header.Get("Content-Range") == fmt.Sprintf("bytes %d-%d/%d", from, to-1, size) &&
		(resp.ContentLength < 0 || resp.ContentLength == to-from)
}

// strongValidator is what a server calls the very bytes of a file: a strong entity
// tag, or a time of change that was a while ago when it answered (RFC 9110, 8.8).
// "" where it has neither.
func strongValidator(h http.Header) string {
	if tag := h.Get("ETag"); len(tag) > 2 && strings.HasPrefix(tag, `"`) && strings.HasSuffix(tag, `"`) {
		return tag
	}
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return ""
	}
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil || date.Sub(modified) < time.Minute {
		return ""
	}
	return h.Get("Last-Modified")
}

// retryAfter reads the header of that name: seconds, or a date by the server's own clock.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return max(at.Sub(date), 0)
}
