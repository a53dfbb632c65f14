package spill

import "unsafe"

// Make returns n zeroed values. T must hold no pointers: the collector does not look there.
func Make[T any](s *Space, n int) []T {
	var v T
	if b := s.take(n * int(unsafe.Sizeof(v))); len(b) > 0 {
		return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
	}
	return make([]T, n)
}
