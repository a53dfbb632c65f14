package lazy

import (
	"container/list"
	"sync"
)

// keeps bounds a Pool, in bytes of chunks.
const keeps = 16 << 20

// Pool keeps the chunks of all lazy layers that were used last, and lets who wants one that is being fetched wait for it.
type Pool struct {
	gzip, zstd sync.Pool // decoders; without goroutines, so they need not be closed

	mu    sync.Mutex
	items map[key]*item
	used  list.List // of items that are there, the last used first
	bytes int
}

type key struct {
	l *Layer
	i int
}

// item is a chunk; data and err are there when done is closed.
type item struct {
	key
	done chan struct{}
	data []byte
	err  error
	el   *list.Element
}

// NewPool returns a Pool.
func NewPool() *Pool { return &Pool{items: map[key]*item{}} }

// claim returns an item; mine tells that the caller must finish it.
func (p *Pool) claim(k key) (it *item, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it = p.items[k]; it != nil {
		if it.el != nil {
			p.used.MoveToFront(it.el)
		}
		return it, false
	}
	it = &item{key: k, done: make(chan struct{})}
	p.items[k] = it
	return it, true
}

// finish gives an item what it is. A failure is not kept: the next reader tries again.
func (p *Pool) finish(it *item, data []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it.data, it.err = data, err
	close(it.done)
	if err != nil {
		delete(p.items, it.key)
		return
	}
	it.el = p.used.PushFront(it)
	for p.bytes += len(data); p.bytes > keeps; {
		p.drop(p.used.Back().Value.(*item))
	}
}

func (p *Pool) drop(it *item) {
	p.used.Remove(it.el)
	delete(p.items, it.key)
	p.bytes -= len(it.data)
}

// forget drops what is kept of a layer.
func (p *Pool) forget(l *Layer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for el := p.used.Front(); el != nil; {
		it := el.Value.(*item)
		if el = el.Next(); it.l == l {
			p.drop(it)
		}
	}
}
