package bootstrap

import (
	"crypto/x509"
	"os"
	"path/filepath"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// roots returns the system's authorities and those of SSL_CERT_FILE and
// SSL_CERT_DIR, which Go itself reads on some systems only; nil, which is the
// system's, where neither is set. A file that cannot be used fails with [fault.Usage].
func roots(environ []string) (*x509.CertPool, error) {
	var files []string
	if file := firstEnv(environ, "SSL_CERT_FILE"); file != "" {
		files = append(files, file)
	}
	for _, dir := range filepath.SplitList(firstEnv(environ, "SSL_CERT_DIR")) {
		list, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			return nil, fault.New(fault.Usage, "SSL_CERT_DIR: %s: %w", dir, err)
		}
		files = append(files, list...)
	}
	if len(files) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for i, file := range files {
		pem, err := os.ReadFile(file)
		named := i == 0 && firstEnv(environ, "SSL_CERT_FILE") != ""
		if err != nil && named {
			return nil, fault.New(fault.Usage, "SSL_CERT_FILE: %w", err).Hint("unset it, or name a file of certificates (PEM)")
		}
		if !pool.AppendCertsFromPEM(pem) && named {
			return nil, fault.New(fault.Usage, "SSL_CERT_FILE: %s has no certificate in it", file).
				Hint("unset it, or name a file of certificates (PEM)")
		}
	}
	return pool, nil
}
