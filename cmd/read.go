package cmd

import (
	"context"
	"io"
)

// readAll reads r to its end, or limit+1 bytes of it, which tells that there is more.
// It stops waiting when the context ends; the reader is then left to itself.
func readAll(ctx context.Context, r io.Reader, limit int64) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(r, limit+1))
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case got := <-done:
		return got.data, got.err
	}
}
