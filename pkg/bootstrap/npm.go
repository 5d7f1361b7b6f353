package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// maxPackument bounds the list of a package's versions, in bytes.
const maxPackument = 64 << 20

// npm is the source of the packages @ampcode/cli-<os>-<cpu>, fetched without
// npm but from where npm would fetch them.
type npm struct {
	network Network
	scope   string // @ampcode
	prefix  string // of the packages' names in the scope, before the platform

	mu    sync.Mutex
	setup *npmSetup             // once it succeeded
	docs  map[string]*packument // by package, from the last question for the newest version
}

type npmSetup struct {
	config   *npmConfig
	registry string
	get      *getter
	warnings []string
}

// packument is the part of a registry's answer that matters here.
type packument struct {
	DistTags map[string]string `json:"dist-tags"`
	Versions map[string]struct {
		Dist struct {
			Tarball   string `json:"tarball"`
			Integrity string `json:"integrity"`
		} `json:"dist"`
	} `json:"versions"`
}

func (s *npm) Name() string { return "npm" }

// packageOf names the package of a platform; npm calls Windows by its Node name.
func (s *npm) packageOf(p Platform) string {
	return s.scope + "/" + s.prefix + strings.Replace(string(p), "windows-", "win32-", 1)
}

func (s *npm) Latest(ctx context.Context, platform Platform) (string, error) {
	setup, err := s.prepare(ctx)
	if err != nil {
		return "", err
	}
	doc, address, err := s.packument(ctx, setup, s.packageOf(platform))
	if err != nil {
		return "", err
	}
	// The tag is what the publisher stands by; a mirror may not have that version.
	if tag := doc.DistTags["latest"]; ValidVersion(tag) {
		if _, ok := doc.Versions[tag]; ok {
			return tag, nil
		}
	}
	newest := ""
	for v := range doc.Versions {
		if ValidVersion(v) && CompareVersions(v, newest) > 0 {
			newest = v
		}
	}
	if newest == "" {
		return "", at(address, errors.New("the package has no versions"))
	}
	return newest, nil
}

func (s *npm) Open(ctx context.Context, req Request) (*Artifact, error) {
	setup, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	name := s.packageOf(req.Platform)
	s.mu.Lock()
	doc := s.docs[name]
	s.mu.Unlock()
	address := setup.packumentURL(name)
	if doc == nil || doc.Versions[req.Version].Dist.Tarball == "" {
		if doc, address, err = s.packument(ctx, setup, name); err != nil {
			return nil, err
		}
	}
	version, ok := doc.Versions[req.Version]
	if !ok {
		return nil, at(address, fmt.Errorf("version %s: %w", req.Version, ErrNotFound))
	}
	// No integrity leaves the digest zero, and that is for the Installer to refuse.
	digest, _ := parseIntegrity(version.Dist.Integrity)
	tarball, err := setup.tarballURL(version.Dist.Tarball)
	if err != nil {
		return nil, at(address, err)
	}
	a, err := setup.get.file(ctx, tarball, setup.header(tarball, ""), req)
	if err != nil && ctx.Err() == nil && !sameHost(tarball, setup.registry) {
		// A mirror that copies the original's addresses has the file in the usual place.
		short := strings.TrimPrefix(name, s.scope+"/")
		usual := setup.registry + name + "/-/" + short + "-" + req.Version + ".tgz"
		if own, ownErr := setup.get.file(ctx, usual, setup.header(usual, ""), req); ownErr == nil {
			a, err = own, nil
		}
	}
	if err != nil {
		return nil, at(tarball, err)
	}
	a.Packing, a.Digest, a.Covers, a.Warnings = NPMTarball, digest, CoversTransport, setup.warnings
	return a, nil
}

// prepare reads npm's configuration once; a failure is tried again the next time.
func (s *npm) prepare(ctx context.Context) (*npmSetup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.setup != nil {
		return s.setup, nil
	}
	config, err := loadNPMConfig(s.network)
	if err != nil {
		return nil, err
	}
	registry, err := config.registry(ctx, s.scope)
	if err != nil {
		return nil, err
	}
	rt, warnings, err := config.transport(s.network.Transport)
	if err != nil {
		return nil, err
	}
	s.setup = &npmSetup{
		config:   config,
		registry: registry,
		get:      newGetter(rt, s.network.UserAgent, s.network.Timeouts.orDefault()),
		warnings: warnings,
	}
	return s.setup, nil
}

func (s *npm) packument(ctx context.Context, setup *npmSetup, name string) (*packument, string, error) {
	address := setup.packumentURL(name)
	// The short form, which has all that an installation needs; registries that lack it send the long one.
	accept := "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8"
	data, err := setup.get.text(ctx, address, setup.header(address, accept), maxPackument)
	if err != nil {
		return nil, address, at(address, err)
	}
	doc := &packument{}
	if err := json.Unmarshal(data, doc); err != nil {
		if looksLikeHTML(data) {
			return nil, address, at(address, errWebPage)
		}
		return nil, address, at(address, fmt.Errorf("not the answer of a registry: %w", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs == nil {
		s.docs = map[string]*packument{}
	}
	s.docs[name] = doc
	return doc, address, nil
}

func (s *npmSetup) packumentURL(name string) string {
	return s.registry + strings.Replace(name, "/", "%2f", 1)
}

func (s *npmSetup) header(address, accept string) http.Header {
	h := http.Header{}
	if accept != "" {
		h.Set("Accept", accept)
	}
	if auth := s.config.authorization(address, s.registry); auth != "" {
		h.Set("Authorization", auth)
	}
	return h
}

// tarballURL resolves the address that a registry names. Behind a proxy that
// ends TLS, registries name themselves with http; an https one is never left for that.
func (s *npmSetup) tarballURL(address string) (string, error) {
	base, err := url.Parse(s.registry)
	if err != nil {
		return "", errors.New("the npm registry that is configured is no address")
	}
	u, err := base.Parse(address)
	if err != nil || address == "" {
		return "", errors.New("the registry names no address of the package")
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && base.Scheme == "http":
		return u.String(), nil
	case u.Scheme == "http" && u.Hostname() == base.Hostname():
		u.Scheme, u.Host = "https", base.Host
		return u.String(), nil
	}
	return "", fmt.Errorf("refused the package's address, %s://%s: the registry is https", u.Scheme, u.Host)
}

func sameHost(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	return errA == nil && errB == nil && ua.Host == ub.Host
}
