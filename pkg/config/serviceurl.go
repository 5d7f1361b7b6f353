package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// DefaultURL is the service that Amp speaks to.
const DefaultURL = "https://ampcode.com/"

// ServiceURL checks and normalises the address of an Amp service: http or https,
// lower case, without default port, with a trailing slash. Plain http is for
// loopback only, since the key travels in a header.
func ServiceURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// url.Error repeats the address, which may hold a password.
		return "", errors.New("not a URL")
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("must begin with https://")
	case u.User != nil:
		return "", errors.New("must not have a user name or password in it")
	case u.Hostname() == "" || u.Opaque != "":
		return "", errors.New("names no host")
	case strings.ContainsAny(u.Hostname(), " \t\r\n%"):
		return "", errors.New("has a malformed host")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("must not have a query or a fragment")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "", fmt.Errorf("would send the key unencrypted to %s: use https (http is for loopback only)", u.Hostname())
	}
	if port := u.Port(); port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	u.Path = strings.TrimRight(u.Path, "/") + "/"
	u.RawPath = ""
	return u.String(), nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
