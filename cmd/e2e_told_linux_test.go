package cmd

import (
	"regexp"
	"slices"
	"strings"

	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// e2eTold looks who hears of a refusal: the model in what it is sent next, the user when it happens and at the end, and
// whoever reads the report.
func e2eTold(p *project) {
	const tool = "curl -sS http://refused.example/ 2>&1; curl -sS https://192.0.2.7/ 2>&1; curl -sS http://refused.example/ 2>&1; curl -sS http://192.0.2.7:8080/ 2>&1"
	c := p.ok("run", "-o", "json", "-v", "RUN:"+tool)
	r := c.report()
	const byName = "curl: (6) Could not resolve host: refused.example"
	// In the tier namespaces a connection is refused once it is made; curl may hear of both at once.
	byAddress := regexp.MustCompile(`curl: \((7|35)\) `)
	next := "nothing"
	for _, request := range p.service.Requests() {
		if strings.HasPrefix(request.Path, "/api/provider/") {
			next, _, _ = strings.Cut(string(request.Body), `"system":`) // without what Amp says in each
		}
	}
	for _, f := range p.service.Frames() {
		if f.FromPeer && strings.Contains(f.Data, `"executor_tool_result"`) {
			next = f.Data
		}
	}
	wantIn(p.t, next, byName)
	wantIn(p.t, r.Result, "TOOL SAID: "+byName)
	for _, text := range []string{next, r.Result} {
		if !byAddress.MatchString(text) {
			p.t.Errorf("nothing of the address in %s", text)
		}
	}

	want := []sandbox.Denial{
		{Kind: "network", Target: "refused.example", Program: "curl", Count: 2},
		{Kind: "network", Target: "192.0.2.7:443", Program: "curl", Count: 1},
		{Kind: "network", Target: "192.0.2.7:8080", Program: "curl", Count: 1},
	}
	if !slices.Equal(r.Sandbox.Denials, want) {
		p.t.Errorf("denials %+v, want %+v", r.Sandbox.Denials, want)
	}
	// With -v as they happen, and always at the end.
	const first = "sesame: sandbox refused network to refused.example, asked for by curl"
	const last = first + ", 2 times (allow it with --allow-host refused.example)\n"
	before, after, _ := strings.Cut(c.err, "sesame: sandbox refused network to 192.0.2.7:443, asked for by curl\n")
	if strings.Count(before, first+"\n") != 1 || strings.Count(after, first+"\n") != 1 || strings.Count(c.err, last) != 1 || !strings.HasSuffix(c.err, "(allow it with --allow-host 192.0.2.7:8080)\n") {
		p.t.Errorf("stderr\n%s", c.err)
	}
	c = p.ok("run", "RUN:"+tool)
	if strings.Contains(c.err, first+"\n") || strings.Count(c.err, last) != 1 {
		p.t.Errorf("stderr without -v\n%s", c.err)
	}
}
