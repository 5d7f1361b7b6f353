package sandbox

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Where the certificates are that programs inside are told to trust.
const (
	extraCertificates = PrivateDir + "/ca.pem"        // the run's own authority, and what the user adds to a program's own list
	allCertificates   = PrivateDir + "/ca-bundle.pem" // those and the system's
)

// systemBundles are where distributions keep the certificates that they trust, in one file. The first that is
// there is what programs use (the list of crypto/x509, which follows the distributions).
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// bundleNames are variables that name a file with all certificates to trust.
var bundleNames = []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NIX_SSL_CERT_FILE"}

// nodeExtra names a file with certificates that Node trusts besides those built into it.
const nodeExtra = "NODE_EXTRA_CA_CERTS"

// TrustSwap makes programs inside trust the authority of Policy.Swap, by files of the policy and by variables: it
// returns the environment with those. What the environment trusted before is trusted still.
func (p *Policy) TrustSwap(env []string) ([]string, error) {
	if p.Swap == nil {
		return env, nil
	}
	authority, err := p.Swap.Authority()
	if err != nil {
		return nil, fmt.Errorf("make the certificate of this run: %w", err)
	}
	if authority == nil {
		return env, nil
	}
	added, err := readCertificates(lookup(env, nodeExtra), authority)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nodeExtra, err)
	}
	if added == nil {
		added = authority
	}
	var all []byte
	for _, path := range append([]string{lookup(env, "SSL_CERT_FILE")}, systemBundles...) {
		if all, err = readCertificates(path, added); err != nil {
			return nil, err
		}
		if all != nil {
			break
		}
	}
	var places []string
	for _, path := range systemBundles {
		real, err := filepath.EvalSymlinks(path)
		if err == nil && !slices.Contains(places, real) {
			places = append(places, real)
		}
	}
	if all == nil {
		all = added
	}
	p.Files = append(p.Files,
		File{Path: extraCertificates, Data: added},
		// In the system's place, too: a program with an empty environment works as well.
		File{Path: allCertificates, Data: all, Also: places})
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == nodeExtra || slices.Contains(bundleNames, name)
	})
	env = append(env, nodeExtra+"="+extraCertificates)
	for _, name := range bundleNames {
		env = append(env, name+"="+allCertificates)
	}
	return env, nil
}

// readCertificates reads a file of certificates and adds others behind it; "" and a file that is not there are nil. Systems have
// hundreds of them: they are read to where they are to be.
func readCertificates(path string, others []byte) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	all.Grow(int(info.Size()) + len(others) + bytes.MinRead)
	if _, err := all.ReadFrom(f); err != nil {
		return nil, err
	}
	return append(append(bytes.TrimRight(all.Bytes(), "\n"), '\n'), others...), nil
}

func lookup(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// HostRoots are the certificates that the host's side trusts: the system's, and what the user has Node trust besides.
func HostRoots(env []string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	extra, err := readCertificates(lookup(env, nodeExtra), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nodeExtra, err)
	}
	pool.AppendCertsFromPEM(extra)
	return pool, nil
}
