package shim

import (
	"slices"

	"golang.org/x/sys/unix"
)

// rule says what becomes of a system call.
type rule struct {
	nr   uint32
	says answer
}

// answer is a verdict of the filter's, or a test of the call's arguments that decides between two.
type answer struct {
	verdict uint32
	test    *test
}

// undecided leaves a call to the rules that come after, and is allowed if there are none.
var undecided answer

// test looks at an argument: at its low half, because of flags, families and request numbers the kernel looks at no more.
type test struct {
	arg, mask uint32 // of the argument what the mask has
	op        uint16 // a comparison of BPF's
	values    []uint32
	yes, no   answer // yes if the comparison holds for one of the values
}

func anyBit(arg, bits uint32, yes, no answer) answer {
	return answer{test: &test{arg, ^uint32(0), unix.BPF_JSET, []uint32{bits}, yes, no}}
}

func oneOf(arg uint32, values []uint32, yes, no answer) answer {
	return maskedOneOf(arg, ^uint32(0), values, yes, no)
}

func maskedOneOf(arg, mask uint32, values []uint32, yes, no answer) answer {
	slices.Sort(values)
	return answer{test: &test{arg, mask, unix.BPF_JEQ, values, yes, no}}
}

// before is this answer with another where it is undecided.
func (a answer) before(next answer) answer {
	if next == undecided {
		return a
	}
	if a.test == nil {
		if a == undecided {
			return next
		}
		return a
	}
	t := *a.test
	t.yes, t.no = t.yes.before(next), t.no.before(next)
	return answer{test: &t}
}

func (a answer) equal(b answer) bool {
	if a.test == nil || b.test == nil || a.test == b.test {
		return a == b
	}
	x, y := a.test, b.test
	return x.looksLike(y) && x.op == y.op && slices.Equal(x.values, y.values) && x.yes.equal(y.yes) && x.no.equal(y.no)
}

// looksLike tells whether two tests load the same.
func (t *test) looksLike(u *test) bool { return t.arg == u.arg && t.mask == u.mask }

// calls has an answer for each system call.
type calls struct {
	says    [512]uint16 // which of the answers; there is room for the calls of the next years
	answers []answer
}

// unnamed is the answer for calls that no rule names.
const unnamed = 0

func newCalls() *calls {
	return &calls{answers: append(make([]answer, 0, 32), undecided)}
}

// number is that of an answer.
func (c *calls) number(a answer) uint16 {
	for i, known := range c.answers {
		if known.equal(a) {
			return uint16(i)
		}
	}
	c.answers = append(c.answers, a)
	return uint16(len(c.answers) - 1)
}

// put puts rules before those that are there.
func (c *calls) put(rules []rule) {
	for _, r := range slices.Backward(rules) {
		c.says[r.nr] = c.number(r.says.before(c.answers[c.says[r.nr]]))
	}
}

// run is a run of numbers with the same answer.
type run struct {
	first, last uint32
	says        uint16
}

func (c *calls) runs() []run {
	for i, a := range c.answers { // the unnamed, too
		c.answers[i] = a.before(allow)
	}
	runs := make([]run, 0, 128)
	begin := func(nr uint32, says uint16) {
		if n := len(runs); n > 0 {
			if runs[n-1].says == says {
				return
			}
			runs[n-1].last = nr - 1
		}
		runs = append(runs, run{nr, ^uint32(0), says})
	}
	for nr, says := range c.says {
		begin(uint32(nr), says)
	}
	begin(uint32(len(c.says)), unnamed)
	if foreignNumbers > 0 {
		begin(foreignNumbers, c.number(notThere))
	}
	return runs
}

// Offsets in struct seccomp_data. Arguments are 64 bits wide, little-endian on every
// architecture that sesame is built for.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// program is a filter as it is written: from its end to its beginning, because all jumps lead forward, to what is there then.
type program struct {
	*calls
	written []unix.SockFilter // the last instruction first
	places  []place           // by answer: the last that decides so, 0 for none
}

// place is that of an instruction: how many are written when it is.
type place int

// compile writes the filter: a search for the number of the call, then tests of arguments, then verdicts. What needs no test
// is decided without a look at the arguments: of such calls the kernel knows from then on that it need not ask.
func compile(c *calls) []unix.SockFilter {
	p := &program{calls: c, written: make([]unix.SockFilter, 0, 256), places: make([]place, 32)}
	p.search(c.runs())
	number := p.load(dataNr)
	// Another architecture's numbers (int 0x80) would mean other calls.
	p.jump(unix.BPF_JEQ, auditArch, number, p.at(c.number(notThere)))
	p.load(dataArch)
	slices.Reverse(p.written)
	return p.written
}

// reach is how many instructions a condition may skip, less what may come between two of its jumps.
const reach = 255 - 2

func (p *program) add(code uint16, k uint32) place {
	p.written = append(p.written, unix.SockFilter{Code: code, K: k})
	return place(len(p.written))
}

func (p *program) load(offset uint32) place {
	return p.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

// distance is how many instructions the next one skips to get to a place.
func (p *program) distance(to place) int { return len(p.written) - int(to) }

// near is a place that a condition reaches and that leads to the other: that one itself, or a step on the way.
func (p *program) near(to place) place {
	if p.distance(to) <= reach {
		return to
	}
	if there := p.written[to-1]; there.Code == unix.BPF_RET|unix.BPF_K {
		return p.add(there.Code, there.K)
	}
	return p.add(unix.BPF_JMP|unix.BPF_JA, uint32(p.distance(to)))
}

// jump compares what is loaded.
func (p *program) jump(op uint16, value uint32, yes, no place) place {
	yes, no = p.near(yes), p.near(no)
	jt, jf := p.distance(yes), p.distance(no)
	at := p.add(unix.BPF_JMP|unix.BPF_K|op, value)
	p.written[at-1].Jt, p.written[at-1].Jf = uint8(jt), uint8(jf)
	return at
}

// at is the place of an answer, which is written where it is not known yet.
func (p *program) at(says uint16) place {
	for int(says) >= len(p.places) {
		p.places = append(p.places, 0)
	}
	at := p.places[says]
	if at > 0 {
		at = p.near(at)
	} else {
		at = p.write(p.answers[says])
	}
	p.places[says] = at
	return at
}

func (p *program) write(a answer) place {
	if a.test == nil {
		return p.add(unix.BPF_RET|unix.BPF_K, a.verdict)
	}
	p.test(a.test)
	if a.test.mask != ^uint32(0) {
		p.add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, a.test.mask)
	}
	return p.load(dataArgs + 8*a.test.arg)
}

// test writes a test of what is loaded.
func (p *program) test(t *test) place {
	side := func(a answer) place {
		if a.test != nil && a.test.looksLike(t) {
			return p.test(a.test)
		}
		return p.at(p.number(a))
	}
	yes := side(t.yes)
	return p.compare(t.op, t.values, yes, side(t.no))
}

// few is how many values are compared one after the other, which is shorter than a search by halves.
const few = 3

func (p *program) compare(op uint16, values []uint32, yes, no place) place {
	if half := len(values) / 2; op == unix.BPF_JEQ && len(values) > few {
		right := p.compare(op, values[half:], yes, no)
		return p.jump(unix.BPF_JGE, values[half], right, p.compare(op, values[:half], yes, no))
	}
	for _, v := range slices.Backward(values) {
		no = p.jump(op, v, yes, no)
	}
	return no
}

// search writes a search for the number that is loaded.
func (p *program) search(runs []run) place {
	if len(runs) == 1 {
		return p.at(runs[0].says)
	}
	if !fewSingles(runs) {
		half := middle(runs)
		right := p.search(runs[half:])
		return p.jump(unix.BPF_JGE, runs[half].first, right, p.search(runs[:half]))
	}
	at := p.at(unnamed)
	for _, r := range slices.Backward(runs) {
		if r.says != unnamed {
			at = p.jump(unix.BPF_JEQ, r.first, p.at(r.says), at)
		}
	}
	return at
}

// fewSingles tells whether all that is not simply allowed are a few numbers each by itself.
func fewSingles(runs []run) bool {
	n := 0
	for _, r := range runs {
		if r.says == unnamed {
			continue
		}
		if n++; n > few || r.first != r.last {
			return false
		}
	}
	return true
}

// middle is where to cut runs in two with as many of the numbers in each as can be: when a filter is installed
// the kernel tries every number there is.
func middle(runs []run) int {
	all := 0
	for _, r := range runs {
		all += r.numbers()
	}
	cut, larger, below := 1, all, 0
	for i, r := range runs[:len(runs)-1] {
		below += r.numbers()
		if half := max(below, all-below); half < larger {
			cut, larger = i+1, half
		}
	}
	return cut
}

// numbers is how many calls there can be in a run; what is beyond counts as one.
func (r run) numbers() int {
	const last = uint32(len(calls{}.says) - 1)
	return int(min(r.last, last)-min(r.first, last)) + 1
}
