package dns

import (
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// trim brings a name to the form that zones know.
func trim(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// reverse reads an address out of a name under in-addr.arpa or ip6.arpa.
func reverse(name string) (netip.Addr, bool) {
	name = trim(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	digits := strings.Split(rest, ".")
	slices.Reverse(digits)
	b, err := hex.DecodeString(strings.Join(digits, ""))
	if err != nil || len(b) != 16 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b)), true
}

// bounded is a listener that holds at most a number of connections; further ones wait in the kernel.
type bounded struct {
	net.Listener
	slots chan struct{}
	stop  chan struct{}
	once  sync.Once

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newBounded(l net.Listener, n int) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, n), stop: make(chan struct{}), conns: map[net.Conn]bool{}}
}

func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.stop:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	h := &held{Conn: c, from: b}
	b.mu.Lock()
	b.conns[h] = true
	b.mu.Unlock()
	return h, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.stop) })
	return b.Listener.Close()
}

func (b *bounded) closeConns() {
	b.mu.Lock()
	var list []net.Conn
	for c := range b.conns {
		list = append(list, c)
	}
	b.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

// held gives its place back when it is closed, once.
type held struct {
	net.Conn
	from *bounded
	once sync.Once
}

func (h *held) Close() error {
	err := h.Conn.Close()
	h.once.Do(func() {
		h.from.mu.Lock()
		delete(h.from.conns, h)
		h.from.mu.Unlock()
		<-h.from.slots
	})
	return err
}
