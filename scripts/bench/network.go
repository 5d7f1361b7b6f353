package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

const (
	smallRequests = 500 // on one connection
	connections   = 200 // at once
	crowdSize     = 1_000_000
)

// origin is a loopback server whose answers are as large as the benchmark wants them.
type origin struct {
	key  string // what requests have to bring, if anything
	bulk int64

	mu      sync.Mutex
	waiting int
	open    chan struct{} // closed when all connections are there
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if o.key != "" && r.Header.Get("Authorization") != "Bearer "+o.key {
		w.WriteHeader(http.StatusForbidden) // the gateway did not put the key in: this would measure something else
		return
	}
	switch r.URL.Path {
	case "/bulk":
		sendZeros(w, o.bulk)
	case "/crowd":
		select {
		case <-o.crowd():
			sendZeros(w, crowdSize)
		case <-r.Context().Done():
		}
	default:
		fmt.Fprintln(w, "ok")
	}
}

// crowd is closed when as many as are to be there at once have asked for it.
func (o *origin) crowd() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting == 0 {
		o.open = make(chan struct{})
	}
	if o.waiting++; o.waiting == connections {
		o.waiting = 0
		close(o.open)
	}
	return o.open
}

func sendZeros(w http.ResponseWriter, size int64) {
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	for chunk := make([]byte, 256<<10); size > 0; size -= int64(len(chunk)) {
		if _, err := w.Write(chunk[:min(size, int64(len(chunk)))]); err != nil {
			return // the client has gone, and says so
		}
	}
}

// network measures what the gateway costs: on connections that it passes on as they are, and on those to the service, in
// which it swaps the key.
func (b *place) network(ctx context.Context) error {
	plain := httptest.NewServer(&origin{bulk: b.bulk})
	defer plain.Close()
	host := strings.TrimPrefix(plain.URL, "http://")
	if err := b.path(ctx, "an allowed host", plain.URL, []string{"--allow-host", host}, b.env()); err != nil {
		return err
	}

	const key = "sgamp_user_BENCH000000000000000_0123456789abcdef0123456789abcdef"
	service := httptest.NewTLSServer(&origin{key: key, bulk: b.bulk})
	defer service.Close()
	certificate := filepath.Join(b.dir, "service.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: service.Certificate().Raw}), 0o600); err != nil {
		return err
	}
	// Node's variable is what sesame trusts the service by, curl's is for curl outside; inside sesame sets both.
	env := b.env("AMP_URL="+service.URL, "AMP_API_KEY="+key, "NODE_EXTRA_CA_CERTS="+certificate, "CURL_CA_BUNDLE="+certificate)
	return b.path(ctx, "the service, its key swapped", service.URL, nil, env)
}

// path measures one way through the gateway against none, with curl on both sides.
func (b *place) path(ctx context.Context, name, url string, flags, env []string) error {
	sides := func(args ...string) (inside, outside side) {
		curl := append([]string{"sh", "-c", `exec curl -sSf --http1.1 -o /dev/null -w '%{time_total}\n' -H "Authorization: Bearer $AMP_API_KEY" "$@"`, "curl"}, args...)
		sandboxed := append(append([]string{b.sesame, "sandbox"}, flags...), "--")
		return side{name: "inside", args: append(sandboxed, curl...), env: env}, side{name: "outside", args: curl, env: env}
	}
	fmt.Printf("network: %s\n", name)

	inside, outside := sides(url + "/bulk")
	in, out, err := b.seconds(ctx, max(b.runs/10, 3), inside, outside)
	if err != nil {
		return err
	}
	rates := make([]float64, len(in)) // of the inside, for each of the outside's
	for i := range in {
		rates[i] = out[i] / in[i]
	}
	size := float64(b.bulk) / 1e6
	fmt.Printf("  %.0f MB  inside median %.0f MB/s, outside %.0f MB/s, ratio %.2f\n", size, size/median(in), size/median(out), median(rates))
	bulkPeak := b.peak(ctx, inside.args, env)

	inside, outside = sides(fmt.Sprintf("%s/small?[1-%d]", url, smallRequests))
	if in, out, err = b.seconds(ctx, max(b.runs/10, 3), inside, outside); err != nil {
		return err
	}
	fmt.Printf("  a small request on a kept connection  inside median %.3f ms, outside %.3f ms, added %.3f ms\n",
		1000*median(in), 1000*median(out), 1000*(median(in)-median(out)))

	inside, _ = sides("--max-time", "300", "--parallel", "--parallel-immediate", "--parallel-max", strconv.Itoa(connections), fmt.Sprintf("%s/crowd?[1-%d]", url, connections))
	crowdPeak := b.peak(ctx, inside.args, env)
	if bulkPeak < 0 || crowdPeak < 0 {
		return errors.New("the transfer whose memory is measured failed")
	}
	fmt.Printf("  peak memory of sesame  %.1f MB with %d connections at once, %.1f MB in the transfer of %.0f MB\n",
		float64(crowdPeak)/1e6, connections, float64(bulkPeak)/1e6, size)
	return nil
}

// seconds runs both sides in turn and returns how long curl says that each transfer took. Of several on one connection
// the first, which makes the connection, is left out.
func (b *place) seconds(ctx context.Context, runs int, inside, outside side) (in, out []float64, err error) {
	for i := range runs + 1 { // one to warm up
		for _, s := range []struct {
			side
			to *[]float64
		}{{inside, &in}, {outside, &out}} {
			text, _, err := b.run(ctx, s.side)
			if err != nil {
				return nil, nil, err
			}
			lines := strings.Fields(text)
			if len(lines) > 1 {
				lines = lines[1:]
			}
			for _, line := range lines {
				took, err := strconv.ParseFloat(line, 64)
				if err != nil {
					return nil, nil, fmt.Errorf("%s: curl said %q", s.name, text)
				}
				if i > 0 {
					*s.to = append(*s.to, took)
				}
			}
		}
	}
	return in, out, nil
}
