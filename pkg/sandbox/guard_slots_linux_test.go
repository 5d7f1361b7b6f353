package sandbox

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// openSlots opens the locks of a guard, and announces one.
func openSlots(t *testing.T, state string, number int64) *guardLock {
	t.Helper()
	g, err := openGuardLock(state, number)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.file.Close() })
	if err := g.announce(); err != nil {
		t.Fatal(err)
	}
	return g
}

// Sandboxes find those that run and those that were killed, and nothing of those that have ended.
func TestSlots(t *testing.T) {
	state := t.TempDir() + "/state"
	one, two, again := openSlots(t, state, 1), openSlots(t, state, 2), openSlots(t, state, 1)
	killed, twice := openSlots(t, state, 3), openSlots(t, state, 2)
	killed.file.Close()
	twice.file.Close() // another one of its workspace runs
	check := func(g *guardLock, running, killed []int64) {
		t.Helper()
		r, k := g.running()
		slices.Sort(r)
		slices.Sort(k)
		if r = slices.Compact(r); !slices.Equal(r, running) || !slices.Equal(k, killed) {
			t.Errorf("%d finds %d running and %d killed, not %d and %d", g.number, r, k, running, killed)
		}
	}
	check(one, []int64{2}, []int64{3})
	check(two, []int64{1}, []int64{3})
	one.withdraw()
	check(two, []int64{1}, []int64{3})
	again.withdraw()
	check(two, nil, []int64{3})
	two.withdraw()
	check(one, nil, []int64{2, 3})
	three := openSlots(t, state, 3) // it takes over what was its own
	check(one, []int64{3}, []int64{2})
	one.forget(2)
	one.forget(3)
	check(one, []int64{3}, nil)
	three.withdraw()
	check(one, nil, nil)
	many := map[int64]*guardLock{}
	for i := range int64(200) {
		many[i+10] = openSlots(t, state, i+10)
	}
	if r, k := one.running(); len(r) != len(many) || k != nil {
		t.Errorf("%d are running, and %d killed", len(r), k)
	}
	for _, g := range many {
		g.withdraw()
	}
	check(one, nil, nil)
}

// No two have the same slot, and each finds all that were there before.
func TestSlotsAtTheSameTime(t *testing.T) {
	state := t.TempDir()
	var mutex sync.Mutex
	there := map[int]int64{} // by slot
	var group sync.WaitGroup
	for i := range int64(12) {
		group.Go(func() {
			g, err := openGuardLock(state, i/2+1)
			if err != nil {
				t.Error(err)
				return
			}
			defer g.file.Close()
			for range 500 {
				if err := g.announce(); err != nil || g.slot == 0 {
					t.Errorf("slot %d: %v", g.slot, err)
					return
				}
				mutex.Lock()
				if other, ok := there[g.slot]; ok {
					t.Errorf("%d and %d have slot %d", other, g.number, g.slot)
				}
				there[g.slot] = g.number
				running, killed := g.running()
				for _, number := range there { // who withdraws now has to wait
					if number != g.number && !slices.Contains(running, number) {
						t.Errorf("%d does not find %d", g.number, number)
					}
				}
				if len(killed) > 0 {
					t.Errorf("killed: %d", killed)
				}
				delete(there, g.slot)
				g.withdraw()
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	g, err := openGuardLock(state, 99)
	if err != nil {
		t.Fatal(err)
	}
	defer g.file.Close()
	if slots := g.slots(); slices.ContainsFunc(slots, func(n int64) bool { return n != 0 }) || g.take(unix.F_WRLCK) != nil {
		t.Errorf("left: %d", slots)
	}
}
