package check

import "crypto/x509"

// Issuer names who signed a certificate, for people.
func Issuer(c *x509.Certificate) string {
	switch {
	case len(c.Issuer.Organization) > 0 && c.Issuer.CommonName != "":
		return c.Issuer.CommonName + " (" + c.Issuer.Organization[0] + ")"
	case c.Issuer.CommonName != "":
		return c.Issuer.CommonName
	}
	return c.Issuer.String()
}
