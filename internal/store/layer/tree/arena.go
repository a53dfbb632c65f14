package tree

import "github.com/dhow-containers/dhow/internal/linux/spill"

// arena keeps bytes that are never freed one by one, in pieces that never move.
type arena struct {
	space  *spill.Space
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
		a.chunks, a.used = append(a.chunks, spill.Make[byte](a.space, max(size, len(b)))), 0
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
