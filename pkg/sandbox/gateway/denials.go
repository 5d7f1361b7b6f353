package gateway

import (
	"slices"
	"strconv"
	"sync"
)

// maxDenials bounds the list: what is refused is chosen by the sandboxed program.
const maxDenials = 1000

// Denial is a target that was refused, and how often.
type Denial struct {
	Target string // "name", "name:port" or "address:port", safe to print
	Reason string // "" where no rule allows the target; else why a rule did not help
	Count  int
}

type denials struct {
	mu     sync.Mutex
	list   []Denial
	index  map[Denial]int // by target and reason, with a zero count
	notify func(Denial)
}

func (d *denials) add(target, reason string) {
	// The sandboxed program chose these bytes; a terminal will show them.
	key := Denial{Target: printable(target), Reason: printable(reason)}
	d.mu.Lock()
	i, ok := d.index[key]
	if !ok {
		if len(d.list) >= maxDenials {
			d.mu.Unlock()
			return
		}
		i = len(d.list)
		d.index[key] = i
		d.list = append(d.list, key)
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
	_, ok := d.index[Denial{Target: printable(target)}]
	return ok
}

func (d *denials) all() []Denial {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

func printable(s string) string {
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}
