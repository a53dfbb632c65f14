// Package apply owns the carrying out of plans: it is the only place of internal/network that changes the kernel.
//
// It promises that the nft side of a container appears and goes in one transaction whose cost does not depend on how many
// others there are, and that putting the ruleset right changes only what differs, in one transaction, so that packets of live
// containers never meet half a ruleset. It must never touch a table, bridge or address that dhow did not make, nor the
// rules in the chain dhow-user, which belongs to the administrator.
package apply

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/nft"
	"github.com/dhow-containers/dhow/internal/network/ipam"
	"github.com/dhow-containers/dhow/internal/network/plan"
	"golang.org/x/sys/unix"
)

// UserChain is jumped to first from the forward hook; its rules are the administrator's and are never flushed.
const UserChain = "dhow-user"

// Names of chains and sets.
const (
	chainGuard     = "guard"     // before connection tracking: loopback addresses do not come from containers
	chainPublished = "published" // rewrites the destination of published ports
	chainPre       = "prerouting"
	chainOutput    = "output"
	chainPost      = "postrouting"
	chainForward   = "forward"

	setBridges  = "bridges"
	setInternal = "internal"
	setMasq     = "masquerade"
	setSame     = "same"
	setHome4    = "home4" // bridge and source address, where they belong together
	setHome6    = "home6"
)

// Bridge is what the ruleset must know of a network.
type Bridge struct {
	Name       string
	Subnets    []netip.Prefix
	Internal   bool
	Masquerade bool
}

// Owned is a published port and the short ID of the container that it belongs to.
type Owned struct {
	plan.Element
	Owner string
}

// Ruleset is everything that the table shall hold.
type Ruleset struct {
	Table    *nft.Table
	Bridges  []Bridge
	Elements []Owned
	Router   bool // dhow switched forwarding on: what neither comes from nor goes to a container is not forwarded
}

func sets() []nft.Set {
	name := []nft.Field{nft.Name}
	return []nft.Set{
		{Name: setBridges, Key: name}, {Name: setInternal, Key: name}, {Name: setMasq, Key: name},
		{Name: setSame, Key: []nft.Field{nft.Name, nft.Name}},
		{Name: setHome4, Key: []nft.Field{nft.Name, nft.Addr4}, Ranges: true},
		{Name: setHome6, Key: []nft.Field{nft.Name, nft.Addr6}, Ranges: true},
	}
}

func maps() map[string]nft.Set {
	out := map[string]nft.Set{}
	for name, addr := range map[string]nft.Field{plan.Publish4: nft.Addr4, plan.Publish4Addr: nft.Addr4, plan.Publish6: nft.Addr6, plan.Publish6Addr: nft.Addr6} {
		key := []nft.Field{nft.Proto, nft.Port}
		if name == plan.Publish4Addr || name == plan.Publish6Addr {
			key = append([]nft.Field{addr}, key...)
		}
		out[name] = nft.Set{Name: name, Key: key, Value: []nft.Field{addr, nft.Port}}
	}
	return out
}

// Assert makes the table hold exactly r, whatever it held before.
func (r Ruleset) Assert() error {
	b := r.Table.Begin()
	b.AddTable()
	for _, s := range sets() {
		if err := r.assertSet(b, s, r.members(s.Name)); err != nil {
			return err
		}
	}
	for name, m := range maps() {
		if err := r.assertSet(b, m, r.published(name)); err != nil {
			return err
		}
	}
	r.chains(b)
	return b.Commit()
}

// Intact reports whether all rules are in place. It changes nothing.
func (r Ruleset) Intact() (bool, error) {
	b := r.Table.Begin()
	r.chains(b)
	return r.Table.Holds(b)
}

// members are the elements of one of the sets about bridges.
func (r Ruleset) members(set string) []nft.Element {
	var out []nft.Element
	for _, br := range r.Bridges {
		for _, p := range br.Subnets {
			if p.Addr().Is4() == (set == setHome4) && (set == setHome4 || set == setHome6) {
				out = append(out, nft.Element{Key: nft.Encode(br.Name, p.Addr()), KeyEnd: nft.Encode(br.Name, ipam.Last(p))})
			}
		}
		switch {
		case set == setSame:
			out = append(out, nft.Element{Key: nft.Encode(br.Name, br.Name)})
		case set == setBridges, set == setInternal && br.Internal, set == setMasq && br.Masquerade && !br.Internal:
			out = append(out, nft.Element{Key: nft.Encode(br.Name)})
		}
	}
	return out
}

func (r Ruleset) published(name string) []nft.Element {
	var out []nft.Element
	for _, e := range r.Elements {
		if e.Map == name {
			out = append(out, encode(e))
		}
	}
	return out
}

func encode(e Owned) nft.Element {
	key := nft.Encode(e.Proto, e.HostPort)
	if e.Map == plan.Publish4Addr || e.Map == plan.Publish6Addr {
		key = nft.Encode(e.HostIP, e.Proto, e.HostPort)
	}
	return nft.Element{Key: key, Value: nft.Encode(e.To.Addr(), e.To.Port()), Comment: e.Owner}
}

// assertSet adds to the batch what brings set s from what the kernel holds to want.
func (r Ruleset) assertSet(b *nft.Batch, s nft.Set, want []nft.Element) error {
	b.AddSet(s)
	have, err := r.Table.Elements(s)
	if err != nil {
		return err
	}
	add, remove := diff(want, have)
	b.Remove(s, remove)
	b.Add(s, add)
	return nil
}

func diff(want, have []nft.Element) (add, remove []nft.Element) {
	index := make(map[string]nft.Element, len(want))
	for _, e := range want {
		index[string(e.Key)] = e
	}
	for _, e := range have {
		w, ok := index[string(e.Key)]
		if ok && bytes.Equal(w.Value, e.Value) && bytes.Equal(w.KeyEnd, e.KeyEnd) && w.Comment == e.Comment {
			delete(index, string(e.Key))
			continue
		}
		remove = append(remove, e)
	}
	for _, e := range want {
		if _, ok := index[string(e.Key)]; ok {
			add = append(add, e)
		}
	}
	return add, remove
}

// chains (re)writes the rules; their number depends on nothing.
func (r Ruleset) chains(b *nft.Batch) {
	b.AddChain(UserChain, nft.None)
	for _, c := range []struct {
		name string
		hook nft.Hook
	}{
		{chainPublished, nft.None}, {chainGuard, nft.RawPrerouting}, {chainPre, nft.NATPrerouting},
		{chainOutput, nft.NATOutput}, {chainPost, nft.NATPostrouting}, {chainForward, nft.FilterForward},
	} {
		b.AddChain(c.name, c.hook)
		b.FlushChain(c.name)
	}
	b.AddRule(chainGuard, "a container cannot claim to be this host", nft.InSet(setBridges), nft.FromLoopback4(), nft.Drop())
	b.AddRule(chainGuard, "127.0.0.0/8 of this host is not for containers", nft.InSet(setBridges), nft.ToLoopback4(), nft.Drop())

	m := maps()
	b.AddRule(chainPublished, "-p ADDR:PORT", nft.Forward(m[plan.Publish4Addr], false, true))
	b.AddRule(chainPublished, "-p PORT", nft.Forward(m[plan.Publish4], false, false))
	b.AddRule(chainPublished, "-p [ADDR]:PORT", nft.Forward(m[plan.Publish6Addr], true, true))
	b.AddRule(chainPublished, "-p PORT", nft.Forward(m[plan.Publish6], true, false))
	b.AddRule(chainPre, "published ports, from outside and from containers", nft.ToLocal(), nft.Jump(chainPublished))
	b.AddRule(chainOutput, "Linux does not route from ::1: refused at once rather than lost", nft.ToLoopback6(), nft.Accept())
	b.AddRule(chainOutput, "published ports, from this host", nft.ToLocal(), nft.Jump(chainPublished))

	// By source address, not by device: where bridge-nf-call-iptables is on, these packets come here without one.
	b.AddRule(chainPost, "a container calls its own network by a published port", nft.HomeSet(setHome4, false), nft.Translated(), nft.Masquerade())
	b.AddRule(chainPost, "a container calls its own network by a published port", nft.HomeSet(setHome6, true), nft.Translated(), nft.Masquerade())
	b.AddRule(chainPost, "way out", nft.InSet(setMasq), nft.OutNotSet(setBridges), nft.Masquerade())
	b.AddRule(chainPost, "127.0.0.1 calls a published port", nft.FromLoopback4(), nft.OutSet(setBridges), nft.Masquerade())

	b.AddRule(chainForward, "the administrator's rules", nft.Jump(UserChain))
	b.AddRule(chainForward, "replies", nft.Established(), nft.Accept())
	b.AddRule(chainForward, "inside one network", nft.InOutSet(setSame), nft.Accept())
	b.AddRule(chainForward, "--internal: nothing leaves", nft.InSet(setInternal), nft.Drop())
	b.AddRule(chainForward, "--internal: nothing enters", nft.OutSet(setInternal), nft.Drop())
	b.AddRule(chainForward, "published ports", nft.OutSet(setBridges), nft.Translated(), nft.Accept())
	b.AddRule(chainForward, "networks are apart, and reached by published ports only", nft.OutSet(setBridges), nft.Drop())
	b.AddRule(chainForward, "way out", nft.InSet(setBridges), nft.Accept())
	if r.Router {
		b.AddRule(chainForward, "this host was no router before dhow", nft.Drop())
	}
}

// Publish adds the ports of one container.
func Publish(t *nft.Table, es []Owned) error {
	if len(es) == 0 {
		return nil
	}
	b := t.Begin()
	eachMap(es, b.Add)
	if err := b.Commit(); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return errdef.As(errdef.Conflict, fmt.Errorf("publish ports of %s: one of them leads elsewhere already: %w", es[0].Owner, err))
		}
		return fmt.Errorf("publish ports of %s: %w", es[0].Owner, err)
	}
	return nil
}

// Unpublish removes the ports of one container; those that are gone already do not matter.
func Unpublish(t *nft.Table, es []Owned) error {
	if len(es) == 0 {
		return nil
	}
	b := t.Begin()
	eachMap(es, b.Remove)
	err := b.Commit()
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	left, err := present(t, es)
	if err != nil || len(left) == 0 {
		return err
	}
	b = t.Begin()
	eachMap(left, b.Remove)
	return b.Commit()
}

func eachMap(es []Owned, f func(nft.Set, []nft.Element)) {
	for name, m := range maps() {
		var list []nft.Element
		for _, e := range es {
			if e.Map == name {
				list = append(list, encode(e))
			}
		}
		f(m, list)
	}
}

// present keeps those of es that the kernel holds with the same destination.
func present(t *nft.Table, es []Owned) ([]Owned, error) {
	all, err := Published(t)
	if err != nil {
		return nil, err
	}
	var out []Owned
	for _, e := range es {
		for _, k := range all {
			if k.Map == e.Map && k.Proto == e.Proto && k.HostIP == e.HostIP && k.HostPort == e.HostPort && k.To == e.To {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// Published reads the ports that the kernel forwards now.
func Published(t *nft.Table) ([]Owned, error) {
	var out []Owned
	for name, m := range maps() {
		es, err := t.Elements(m)
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			o, err := decode(name, m, e)
			if err != nil {
				return nil, err
			}
			out = append(out, o)
		}
	}
	return out, nil
}

func decode(name string, m nft.Set, e nft.Element) (Owned, error) {
	k, err := nft.Decode(m.Key, e.Key)
	if err != nil {
		return Owned{}, err
	}
	v, err := nft.Decode(m.Value, e.Value)
	if err != nil {
		return Owned{}, err
	}
	host := netip.IPv4Unspecified()
	if m.Value[0] == nft.Addr6 {
		host = netip.IPv6Unspecified()
	}
	if len(k) == 3 {
		host, k = k[0].(netip.Addr), k[1:]
	}
	return Owned{plan.Element{
		Map: name, Proto: k[0].(uint8), HostIP: host, HostPort: k[1].(uint16),
		To: netip.AddrPortFrom(v[0].(netip.Addr), v[1].(uint16)),
	}, e.Comment}, nil
}
