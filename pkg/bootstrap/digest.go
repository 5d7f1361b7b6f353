package bootstrap

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Digest is a checksum: the name of the algorithm (sha256, sha384, sha512) and
// the sum in lower-case hex. The zero Digest stands for none.
type Digest struct {
	Algorithm string
	Hex       string
}

// IsZero reports whether there is no digest.
func (d Digest) IsZero() bool { return d.Hex == "" }

// String returns algorithm:hex.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return d.Algorithm + ":" + d.Hex
}

// pinnedFile is the What of a DigestError about the user's pin.
const pinnedFile = "pinned file"

// DigestError says that a stream is not what its source, or the user's pin, promised.
type DigestError struct {
	What      string // what was hashed: "file", "package", "pinned file"
	Algorithm string
	Want, Got string // hex
	HTML      bool   // a web page came in the file's place
}

// Error names both sums.
func (e *DigestError) Error() string {
	msg := fmt.Sprintf("wrong %s of the %s: expected %s, got %s", e.Algorithm, e.What, e.Want, e.Got)
	if e.HTML {
		msg += " (it is a web page: a captive portal, or a proxy that wants a login?)"
	}
	return msg
}

// newHash returns nil for an algorithm that is unknown or too weak to trust.
func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case "sha256":
		return sha256.New()
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// sumOf returns the digest that h has come to, in hex.
func sumOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// parseSHA256 reads 64 hex digits, as `sha256sum` prints them: a file name may follow.
func parseSHA256(text string) (Digest, bool) {
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	word = strings.ToLower(strings.TrimPrefix(word, "sha256:"))
	raw, err := hex.DecodeString(word)
	if err != nil || len(raw) != sha256.Size {
		return Digest{}, false
	}
	return Digest{Algorithm: "sha256", Hex: word}, true
}

// parseIntegrity reads a Subresource Integrity string (`sha512-<base64> …`) and
// returns its strongest digest; sha1 counts as none.
func parseIntegrity(text string) (Digest, bool) {
	var best Digest
	for _, word := range strings.Fields(text) {
		word, _, _ = strings.Cut(word, "?") // options, of which the standard defines none
		algorithm, sum, ok := strings.Cut(word, "-")
		h := newHash(algorithm)
		if !ok || h == nil || algorithm <= best.Algorithm {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(sum)
		if err != nil || len(raw) != h.Size() {
			continue
		}
		best = Digest{Algorithm: algorithm, Hex: hex.EncodeToString(raw)}
	}
	return best, !best.IsZero()
}
