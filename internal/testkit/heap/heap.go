// Package heap owns the measure of how far the Go heap of a test grows.
//
// It promises to count what the heap takes from the machine: objects, garbage and gaps. It must never decide how much is too much.
package heap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

func size() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() + s[1].Value.Uint64()
}

// Highest is by how many bytes the heap grew at most while f ran.
func Highest(f func()) uint64 {
	runtime.GC()
	debug.FreeOSMemory()
	before, peak := size(), uint64(0)
	var done atomic.Bool
	ended := make(chan struct{})
	go func() { // ends when done is set
		defer close(ended)
		for !done.Load() {
			peak = max(peak, size())
			time.Sleep(time.Millisecond)
		}
	}()
	f()
	done.Store(true)
	<-ended
	return max(peak, before) - before
}
