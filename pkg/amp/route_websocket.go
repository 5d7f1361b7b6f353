package amp

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// firstMessage is how long a websocket that was opened may stay silent.
const firstMessage = 500 * time.Millisecond

// stepWebsocket opens a websocket as builds since July 2026 do, without a key. Only one that really opens shows that
// they pass: what refuses to upgrade may be the service, which has no such thread, or something on the way.
func (r *Route) stepWebsocket(ctx context.Context) check.Result {
	hint := "builds of Amp since July 2026 need websockets: let the proxy or firewall pass `Upgrade: websocket` to " + r.url.Host
	address := strings.TrimRight(r.Base, "/") + "/actors/gateway/threadActor/websocket/"
	if r.Thread != "" {
		address += "?" + url.Values{
			"rvt-namespace": {"default"}, "rvt-method": {"get"}, "rvt-key": {r.Thread}, "rvt-skip-ready-wait": {"true"},
		}.Encode()
	}
	conn, resp, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: &http.Client{
		Transport: r.transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a redirect is an answer like others
		},
	}})
	if err == nil {
		defer func() { _ = conn.CloseNow() }()
		ctx, cancel := context.WithTimeout(ctx, firstMessage)
		defer cancel()
		if _, _, err := conn.Read(ctx); err == nil || websocket.CloseStatus(err) != -1 {
			return check.Passed("opens, and messages come through")
		}
		return check.Passed("opens")
	}
	if resp == nil {
		return check.Warned("the service is not asked for a websocket: %v", lastCause(err)).Hint(hint)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	switch code := resp.StatusCode; {
	case code == http.StatusSwitchingProtocols:
		return check.Warned("what opens is no websocket: %v", err).Hint(hint)
	case code == http.StatusUpgradeRequired, code >= http.StatusInternalServerError, code == http.StatusProxyAuthRequired,
		code < http.StatusBadRequest, strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
		return check.Warned("the answer to the question for a websocket is %s: something on the way keeps them back", resp.Status).Hint(hint)
	}
	return check.Skipped("whether they pass cannot be told: asked without a key, the service answers %d. A turn opens one: `sesame doctor --probe`", resp.StatusCode)
}
