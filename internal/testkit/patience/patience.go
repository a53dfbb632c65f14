// Package patience owns how long tests wait for what must happen: DHOW_TEST_SLOW times as long as on an ordinary machine, because an
// emulated one (hack/vm) is slower by far.
//
// It promises limits of hangs, not measures: what asserts that something is quick must not use it. It must never be linked into a program.
package patience

import (
	"os"
	"strconv"
	"sync"
	"time"
)

// Env names the factor, a whole number.
const Env = "DHOW_TEST_SLOW"

var factor = sync.OnceValue(func() time.Duration {
	if n, err := strconv.Atoi(os.Getenv(Env)); err == nil && n > 1 {
		return time.Duration(n)
	}
	return 1
})

// Of is d on this machine.
func Of(d time.Duration) time.Duration { return d * factor() }
