package amp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

const (
	serviceTimeout = 15 * time.Second
	serviceBody    = 1 << 20 // bytes of an answer that are read
)

// Service is the Amp service as sesame itself speaks to it, outside any sandbox.
type Service struct {
	url    string
	key    string
	client *http.Client
}

// Account is whom a key belongs to.
type Account struct {
	ID    string `json:"id"`
	Email string `json:"email"`
}

// NewService is the service at a base URL with the key that it is asked with. A
// client of nil is one that gives up after 15 seconds. Redirects are never
// followed: the key goes to the host that was named and to no other.
func NewService(base, key string, client *http.Client) *Service {
	own := http.Client{Timeout: serviceTimeout}
	if client != nil {
		own = *client
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Service{url: strings.TrimRight(base, "/") + "/", key: key, client: &own}
}

// UserInfo asks whom the key belongs to. The error is key_rejected where the
// service does not accept it, service_unreachable where no service answers or
// what answers is not Amp's, canceled where ctx was.
func (s *Service) UserInfo(ctx context.Context) (Account, error) {
	const body = `{"method":"getUserInfo","params":{}}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"api/internal?getUserInfo", strings.NewReader(body))
	if err != nil {
		return Account{}, fault.New(fault.Usage, "%s is not the URL of a service", s.url)
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return Account{}, s.transport(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch code := resp.StatusCode; {
	case code == http.StatusForbidden && media == "text/html":
		return Account{}, s.portal()
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return Account{}, s.rejected()
	case code >= 300 && code < 400:
		return Account{}, s.unreachable("it redirects to %s", redirectHost(resp))
	case code != http.StatusOK:
		return Account{}, s.unreachable("it answers %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, serviceBody+1))
	if err != nil {
		return Account{}, s.transport(ctx, err)
	}
	return s.account(data, media)
}

func (s *Service) account(data []byte, media string) (Account, error) {
	if media == "text/html" || bytes.HasPrefix(bytes.TrimSpace(data), []byte("<")) {
		return Account{}, s.portal()
	}
	var answer struct {
		OK     bool            `json:"ok"`
		Result json.RawMessage `json:"result"`
		Error  struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if len(data) > serviceBody || json.Unmarshal(data, &answer) != nil {
		return Account{}, s.unreachable("its answer is not what Amp's service sends")
	}
	if !answer.OK {
		switch answer.Error.Code {
		case "unauthorized", "unauthenticated", "auth-required", "forbidden":
			return Account{}, s.rejected()
		}
		return Account{}, s.unreachable("it answers: %s", failureText(answer.Error.Message))
	}
	var user Account
	if json.Unmarshal(answer.Result, &user) != nil || user.ID == "" {
		return Account{}, s.unreachable("its answer is not what Amp's service sends")
	}
	return user, nil
}

func (s *Service) rejected() *fault.Error {
	return fault.New(fault.KeyRejected, "the service at %s rejected the key", s.host()).
		Hint("get a valid key at %ssettings and store it with sesame login, or set AMP_API_KEY", s.url)
}

func (s *Service) portal() *fault.Error {
	return s.unreachable("a web page answers in its place: a captive portal or a proxy").
		Hint("open a browser and log in to the network, or set HTTPS_PROXY")
}

func (s *Service) unreachable(format string, args ...any) *fault.Error {
	return fault.New(fault.ServiceUnreachable, "no Amp service at %s: %s", s.host(), fmt.Sprintf(format, args...))
}

// transport explains a request that got no answer. The client's error names the
// URL, which is said already, so the cause below it is what counts.
func (s *Service) transport(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return fault.New(fault.Canceled, "stopped while asking the service: %w", cause)
	}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		if inURL.Timeout() {
			err = errors.New("it does not answer in time")
		} else {
			err = inURL.Err
		}
	}
	e := s.unreachable("%v", err)
	e.Err = err
	return e.Hint("check the network, and HTTPS_PROXY if you need one; amp.url in the configuration names the service")
}

func (s *Service) host() string {
	if u, err := url.Parse(s.url); err == nil && u.Host != "" {
		return u.Host
	}
	return s.url
}

func redirectHost(resp *http.Response) string {
	if to, err := resp.Location(); err == nil && to.Host != "" {
		return to.Host
	}
	return "somewhere else"
}
