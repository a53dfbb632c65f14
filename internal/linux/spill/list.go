package spill

// List is an array that grows without moving: what At points to stays. Its zero value is of the heap.
type List[T any] struct {
	Space  *Space
	chunks [][]T
	n      int
}

const listBits = 12

// Add appends a value and returns its number.
func (l *List[T]) Add(v T) uint32 {
	if l.n>>listBits == len(l.chunks) {
		l.chunks = append(l.chunks, Make[T](l.Space, 1<<listBits))
	}
	l.chunks[l.n>>listBits][l.n&(1<<listBits-1)] = v
	l.n++
	return uint32(l.n - 1)
}

// At is where value n is.
func (l *List[T]) At(n uint32) *T { return &l.chunks[n>>listBits][n&(1<<listBits-1)] }

// Len is the number of values.
func (l *List[T]) Len() int { return l.n }
