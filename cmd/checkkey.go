package cmd

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// askTimeout is how long the service has to say whose a key is.
const askTimeout = 15 * time.Second

// askService asks the service for the owner of a key, trusting what the gateway trusts for it.
func askService(env config.Env) keyChecker {
	return func(ctx context.Context, url string, key config.Key) (account, error) {
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
		if strings.HasPrefix(url, "https:") {
			roots, err := sandbox.HostRoots(env.List())
			if err != nil {
				return account{}, fault.New(fault.Usage, "%w", err)
			}
			transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			transport.ForceAttemptHTTP2 = true
		}
		client := &http.Client{Timeout: askTimeout, Transport: transport}
		user, err := amp.NewService(url, key.Reveal(), client).UserInfo(ctx)
		return account{user.ID, user.Email}, err
	}
}
