package image

import (
	"io"
	"sync"
	"time"
)

// Event is one line of progress in docker's words. ID is a short layer ID, a tag, or "".
type Event struct {
	ID             string
	Status         string
	Current, Total int64
}

// reporter calls a progress function from one goroutine at a time, in order.
type reporter struct {
	mu sync.Mutex
	fn func(Event)
}

func (p *reporter) say(id, status string) { p.send(Event{ID: id, Status: status}) }

func (p *reporter) send(e Event) {
	if p.fn == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fn(e)
}

// meter reports the bytes that pass through a reader, at most ten times a second. Those that e.Current has already are not news.
type meter struct {
	r     io.Reader
	p     *reporter
	e     Event
	every time.Duration
	last  time.Time
	n     int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.n += int64(n)
	m.e.Current = max(m.e.Current, m.n)
	if now := time.Now(); now.Sub(m.last) >= m.every {
		m.last = now
		m.p.send(m.e)
	}
	return n, err
}
