package registry

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

var errSlow = errors.New("the connection is too slow or stands still")

// watched is a body under a clock: no silence longer than Stall, and at least MinRate on average over every Stall of waiting.
// Only time spent waiting for the peer counts, not the time the reader takes to come back.
type watched struct {
	r       io.Reader
	stall   time.Duration
	minRate int64
	timer   *time.Timer
	fired   atomic.Bool

	waited time.Duration
	got    int64
}

// watch guards r; cut must make a blocked Read return.
func (k *Client) watch(r io.Reader, cut func()) *watched {
	w := &watched{r: r, stall: k.c.Stall, minRate: k.c.MinRate}
	w.timer = time.AfterFunc(time.Hour, func() { w.fired.Store(true); cut() })
	w.timer.Stop()
	return w
}

func (w *watched) Read(p []byte) (int, error) {
	start := time.Now()
	w.timer.Reset(w.stall)
	n, err := w.r.Read(p)
	w.timer.Stop()
	w.waited += time.Since(start)
	w.got += int64(n)
	if w.fired.Load() && err != nil {
		return n, errSlow
	}
	if err == nil && w.waited >= w.stall {
		if float64(w.got) < w.waited.Seconds()*float64(w.minRate) {
			return n, errSlow
		}
		w.waited, w.got = 0, 0
	}
	return n, err
}

func (w *watched) stop() { w.timer.Stop() }
