package tree

// arena keeps bytes that are never freed one by one, in pieces that never move.
type arena struct {
	chunks [][]byte
	used   int // of the last one
}

const arenaBits = 18

// put keeps a copy of b and returns its place.
func (a *arena) put(b []byte) uint32 {
	if last := len(a.chunks) - 1; last < 0 || a.used+len(b) > len(a.chunks[last]) {
		size := 1 << arenaBits
		if last < 0 {
			size = 16 << 10 // most layers are small
		}
		a.chunks, a.used = append(a.chunks, make([]byte, max(size, len(b)))), 0
	}
	last := len(a.chunks) - 1
	at := uint32(last)<<arenaBits | uint32(a.used)
	a.used += copy(a.chunks[last][a.used:], b)
	return at
}

// at returns what is kept from a place on.
func (a *arena) at(place uint32) []byte {
	return a.chunks[place>>arenaBits][place&(1<<arenaBits-1):]
}

// list is an array that grows without moving: what at points to stays.
type list[T any] struct {
	chunks [][]T
	n      int
}

const listBits = 12

func (l *list[T]) add(v T) uint32 {
	if l.n>>listBits == len(l.chunks) {
		l.chunks = append(l.chunks, make([]T, 0, 1<<listBits))
	}
	c := &l.chunks[l.n>>listBits]
	*c = append(*c, v)
	l.n++
	return uint32(l.n - 1)
}

func (l *list[T]) at(n uint32) *T { return &l.chunks[n>>listBits][n&(1<<listBits-1)] }
