// Package nft owns the conversation with nf_tables: batches of tables, chains, sets, rules and elements.
//
// It promises that a Batch takes effect as a whole or not at all, that every call uses its own socket (an error in one batch
// cannot leak into the next), and that it never touches a table other than the one it was given. It must never decide a
// rule: internal/network/apply brings them.
package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// maxPerMessage bounds the elements of one netlink message: a nested attribute holds 64 KiB.
const maxPerMessage = 200

// Table names one table of family inet in the namespace of the calling thread.
type Table struct{ Name string }

// Hook says where a base chain is attached.
type Hook int

// The hooks in use. NATOutput and the two others of type nat see the first packet of a connection only.
const (
	None          Hook = iota // a regular chain, reached by jump
	RawPrerouting             // before connection tracking
	NATPrerouting
	NATOutput
	NATPostrouting
	FilterForward
)

// Set describes a set, or (when Value is not empty) a map. The elements of a Ranges set have a KeyEnd; it needs two fields
// or more.
type Set struct {
	Name   string
	Key    []Field
	Value  []Field
	Ranges bool
}

// Element is one entry of a set, encoded by Encode; Comment shows in `nft list` and tells whose it is.
type Element struct {
	Key, Value []byte
	KeyEnd     []byte // field by field the last value that matches
	Comment    string
}

// Batch collects changes to one table; Commit sends them as one transaction.
type Batch struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (t Table) table() *nftables.Table {
	return &nftables.Table{Name: t.Name, Family: nftables.TableFamilyINet}
}

// Begin starts a batch.
func (t Table) Begin() *Batch { return &Batch{conn: &nftables.Conn{}, table: t.table()} }

// AddTable makes the table when there is none.
func (b *Batch) AddTable() { b.conn.AddTable(b.table) }

// DeleteTable removes the table and all in it.
func (b *Batch) DeleteTable() { b.conn.DelTable(b.table) }

// AddChain makes a chain when there is none; its rules stay.
func (b *Batch) AddChain(name string, h Hook) {
	c := &nftables.Chain{Name: name, Table: b.table}
	switch h {
	case RawPrerouting:
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw
	case NATPrerouting:
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest
	case NATOutput:
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest
	case NATPostrouting:
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource
	case FilterForward:
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter
	}
	b.conn.AddChain(c)
}

// FlushChain removes the rules of a chain.
func (b *Batch) FlushChain(name string) {
	b.conn.FlushChain(&nftables.Chain{Name: name, Table: b.table})
}

// AddRule appends a rule; the comment shows in `nft list`.
func (b *Batch) AddRule(chain, comment string, parts ...Part) {
	r := &nftables.Rule{Table: b.table, Chain: &nftables.Chain{Name: chain, Table: b.table}}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	r.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	b.conn.AddRule(r)
}

// AddSet makes a set or map when there is none; its elements stay.
func (b *Batch) AddSet(s Set) error {
	if err := b.conn.AddSet(s.set(b.table), nil); err != nil {
		return fmt.Errorf("add set %s: %w", s.Name, err)
	}
	return nil
}

// Add puts elements in; one that is there already with the same value is success.
func (b *Batch) Add(s Set, es []Element) error { return b.each(s, es, b.conn.SetAddElements) }

// Remove takes elements out; one that is not there makes Commit fail with ENOENT.
func (b *Batch) Remove(s Set, es []Element) error { return b.each(s, es, b.conn.SetDeleteElements) }

func (b *Batch) each(s Set, es []Element, f func(*nftables.Set, []nftables.SetElement) error) error {
	for len(es) > 0 {
		n := min(len(es), maxPerMessage)
		list := make([]nftables.SetElement, n)
		for i, e := range es[:n] {
			list[i] = nftables.SetElement{Key: e.Key, KeyEnd: e.KeyEnd, Val: e.Value, Comment: e.Comment}
		}
		if err := f(s.set(b.table), list); err != nil {
			return fmt.Errorf("elements of %s: %w", s.Name, err)
		}
		es = es[n:]
	}
	return nil
}

// Commit sends the batch.
func (b *Batch) Commit() error {
	if err := b.conn.Flush(); err != nil {
		return fmt.Errorf("nft transaction on table %s: %w", b.table.Name, err)
	}
	return nil
}

// Elements reads a set; a table or set that does not exist has none.
func (t Table) Elements(s Set) ([]Element, error) {
	c := &nftables.Conn{}
	list, err := c.GetSetElements(s.set(t.table()))
	if err != nil {
		// The library keeps the errno of that call to itself; asking for the set alone tells absence from the rest.
		if _, e := c.GetSetByName(t.table(), s.Name); errors.Is(e, unix.ENOENT) {
			return nil, nil
		}
		return nil, fmt.Errorf("list set %s: %w", s.Name, err)
	}
	out := make([]Element, len(list))
	for i, e := range list {
		out[i] = Element{Key: e.Key, KeyEnd: e.KeyEnd, Value: e.Val, Comment: e.Comment}
	}
	return out, nil
}

// Exists reports whether the table is there.
func (t Table) Exists() (bool, error) {
	list, err := (&nftables.Conn{}).ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nft tables: %w", err)
	}
	for _, x := range list {
		if x.Name == t.Name {
			return true, nil
		}
	}
	return false, nil
}

// DroppingForward names the base chains of other tables whose policy drops forwarded packets ("table ip filter chain FORWARD").
func (t Table) DroppingForward() ([]string, error) {
	list, err := (&nftables.Conn{}).ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nft chains: %w", err)
	}
	families := map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}
	var out []string
	for _, c := range list {
		family, ours := families[c.Table.Family]
		if !ours || c.Table.Name == t.Name || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward {
			continue
		}
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			out = append(out, fmt.Sprintf("table %s %s chain %s", family, c.Table.Name, c.Name))
		}
	}
	return out, nil
}
