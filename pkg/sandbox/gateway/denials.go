package gateway

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// maxDenials bounds the list: what is refused is chosen by the sandboxed program.
const maxDenials = 1000

// manyOthers stands for all targets that come when there are too many.
var manyOthers = Denial{Target: "other-targets", Reason: "more than are told one by one"}

// Denial is a target that was refused, to whom, and how often.
type Denial struct {
	Program string // what the program that asked calls itself, in letters that are safe to print; "" where that is not known
	Target  string // "name", "name:port" or "address:port", safe to print
	Reason  string // "" where no rule allows the target; else why a rule did not help
	Count   int
}

type denials struct {
	mu      sync.Mutex
	list    []Denial
	index   map[Denial]int // with a zero count
	targets map[string]bool
	notify  func(Denial)
}

func (d *denials) add(by Asker, target, reason string) {
	// The sandboxed program chose these bytes; a terminal will show them.
	key := Denial{Target: oneWord(target), Reason: printable(reason)}
	if by != nil {
		key.Program = programName(by())
	}
	d.mu.Lock()
	i, ok := d.index[key]
	if !ok {
		if len(d.list) >= maxDenials {
			key = manyOthers
			i, ok = d.index[key]
		}
	}
	if !ok {
		i = len(d.list)
		d.index[key] = i
		d.list = append(d.list, key)
		d.targets[key.Target] = true
	}
	d.list[i].Count++
	now := d.list[i]
	d.mu.Unlock()
	if d.notify != nil {
		d.notify(now)
	}
}

func (d *denials) has(target string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.targets[oneWord(target)]
}

func (d *denials) all() []Denial {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

// maxProgram is more than the kernel keeps of a program's name.
const maxProgram = 32

// programName is the first word of what a program calls itself, without anything that could be taken for more than a name:
// it stands in the middle of a line that sesame says.
func programName(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), " ")
	return lettersAnd("._+-:/@", s[:min(len(s), maxProgram)])
}

// oneWord is what a name, an address or what somebody calls one looks like: it cannot be taken for more than that in the middle of a line.
func oneWord(s string) string {
	return lettersAnd(`._-:*[]%\`, printable(cmp.Or(s, ".")))
}

// lettersAnd is a text with nothing in it but ASCII's letters and digits, some others, and question marks for all else.
func lettersAnd(others, s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(others, r)) {
			return r
		}
		return '?'
	}, s)
}

func printable(s string) string {
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}
