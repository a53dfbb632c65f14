package interp

import "slices"

// Time is when an instruction was executed, in nanoseconds of CLOCK_MONOTONIC. A park lasts until its container is started.
type Time struct {
	Index      int
	Begin, End int64
}

func (r *Running) began(i int) {
	if r.m.times != nil {
		r.m.times[i].begin = now(r.m)
	}
}

func (r *Running) ended(i int) {
	if r.m.times != nil {
		r.m.times[i].end = now(r.m)
	}
}

// Times tells when each instruction that was executed began and ended, in the order of their beginnings. It can tell once, and nothing
// of a program that was not run with Trace. One that has not ended ends now.
func (r *Running) Times() []Time {
	type event struct {
		at    int64
		index int // -1: the child waits at a barrier
	}
	var child []event
	var out []Time
	last := now(r.m)
	for i, t := range r.m.times {
		switch {
		case t.end != 0:
			out = append(out, Time{i, t.begin, t.end})
		case t.begin != 0:
			child = append(child, event{t.begin, i})
		}
		if t.arrive != 0 {
			child = append(child, event{t.arrive, -1})
		}
	}
	slices.SortFunc(child, func(a, b event) int { return int(a.at - b.at) })
	for k, e := range child {
		end := last
		if k+1 < len(child) {
			end = child[k+1].at
		}
		if e.index >= 0 {
			out = append(out, Time{e.index, e.at, end})
		}
	}
	slices.SortFunc(out, func(a, b Time) int { return int(a.Begin - b.Begin) })
	r.m.unshare()
	return out
}
