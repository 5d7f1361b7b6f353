package cmd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// searchMemory looks for amptest.ExampleKey in the environment and the memory of every process that it can see, and says how
// much it has seen. It is no match for itself.
const searchMemory = `use strict;
my ($seen, $found) = (0, 0);
for my $dir (glob "/proc/[0-9]*") {
	for my $file ("environ", "cmdline") {
		if (open(my $f, "<", "$dir/$file")) { local $/; $found++ if (<$f> // "") =~ /01EXA[MN]PLE0EXAMPLE0/ }
	}
	open(my $maps, "<", "$dir/maps") or next;
	open(my $mem, "<:raw", "$dir/mem") or next;
	while (<$maps>) {
		my ($from, $to) = /^([0-9a-f]+)-([0-9a-f]+) r/ or next;
		my $at = hex $from;
		while ($at < hex $to) {
			my $n = hex($to) - $at; $n = 1 << 20 if $n > 1 << 20;
			sysseek($mem, $at, 0) or last;
			my $got = sysread($mem, my $buffer, $n) or last;
			$found++ if $buffer =~ /01EXA[MN]PLE0EXAMPLE0/;
			$seen += $got; $at += $got;
		}
	}
}
print "seen ", $seen > 10_000_000 ? "enough" : $seen, " found ", $found ? "it" : "nothing", "\n";
`

// The key is not in the sandbox, and the service gets it all the same.
func e2eKeyNeverEnters(p *project) {
	put(p.t, p.path("search.pl"), searchMemory)
	c := p.ok("run", "RUN:perl search.pl; printenv AMP_API_KEY | grep -c sgamp_user_; grep -rl 01EXA[MN]PLE0EXAMPLE0 /proc/self/environ /run ~ /tmp . 2>/dev/null | wc -l")
	wantIn(p.t, c.out, "seen enough found nothing\n1\n0")
	p.serviceGotTheKey()
	// The test can fail: with the key inside it is found.
	c = p.ok("run", "--expose-key", "RUN:perl search.pl")
	wantIn(p.t, c.out, "seen enough found it")
}

// Over TLS the sandbox sees a certificate of this run, the service a client that has the key.
func e2eKeyOverTLS(p *project) {
	cert, authority := localhostCertificate(p.t)
	service := amptest.New(amptest.WithFrames())
	if err := service.StartTLS(p.t.Context(), cert); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = service.Close() })
	p.service = service
	p.env["AMP_URL"] = service.URL()
	p.env["NODE_EXTRA_CA_CERTS"] = filepath.Join(p.home, "company.pem")
	put(p.t, p.env["NODE_EXTRA_CA_CERTS"], string(authority))
	put(p.t, p.path("search.pl"), searchMemory)
	c := p.ok("run", "RUN:perl search.pl; grep -c BEGIN $NODE_EXTRA_CA_CERTS; cmp $SSL_CERT_FILE /etc/ssl/certs/ca-certificates.crt 2>/dev/null && echo the same; grep -rl 'PRIVATE KEY' /run 2>/dev/null | wc -l")
	same := "the same\n"
	if p.tier == sandbox.Landlock {
		same = "" // nothing can be put in the place of the system's file there: variables name the run's
	}
	wantIn(p.t, c.out, "seen enough found nothing\n2\n"+same+"0")
	wantIn(p.t, p.ok("continue", "more").out, "more")
	p.serviceGotTheKey()

	// A service that cannot prove who it is gets no key.
	delete(p.env, "NODE_EXTRA_CA_CERTS")
	asked := len(service.Requests())
	c = p.sesame("run", "--timeout", "20s", "hello")
	if c.code == 0 || len(service.Requests()) != asked {
		p.t.Errorf("exit %d, %d requests with an unknown authority", c.code, len(service.Requests())-asked)
	}
	wantIn(p.t, c.err, "certificate is not trusted")
}

func (p *project) serviceGotTheKey() {
	p.t.Helper()
	n := 0
	for _, r := range p.service.Requests() {
		if strings.HasSuffix(r.Header.Get("Authorization"), p.service.Key()) || r.Header.Get("X-Api-Key") == p.service.Key() {
			n++
		}
		if bytes.Contains(r.Body, []byte(p.service.Key())) {
			p.t.Errorf("the key is in the body of %s", r.Path)
		}
	}
	if n < 2 {
		p.t.Errorf("%d requests had the key", n)
	}
}

// localhostCertificate makes a server's certificate for localhost, and the authority that signed it.
func localhostCertificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
