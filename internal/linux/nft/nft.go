// Package nft owns the conversation with nf_tables: batches of tables, chains, sets, rules and elements.
//
// It promises that a Batch takes effect as a whole or not at all, that an error in one batch cannot leak into the next (its
// socket is thrown away), and that it never touches a table other than the one it was given. It must never decide a
// rule: internal/network/apply brings them.
package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// maxPerMessage bounds the elements of one netlink message: a nested attribute holds 64 KiB.
const maxPerMessage = 200

// Table is one table of family inet in the namespace of the process. It is safe for concurrent use.
type Table struct {
	Name string
	idle chan *nftables.Conn // at most one, its socket open
}

// Open names a table; it need not exist.
func Open(name string) *Table { return &Table{Name: name, idle: make(chan *nftables.Conn, 1)} }

// Close releases the socket kept for the next batch.
func (t *Table) Close() {
	select {
	case c := <-t.idle:
		discard(c)
	default:
	}
}

// dial returns the kept socket or a new one.
func (t *Table) dial() (*nftables.Conn, error) {
	select {
	case c := <-t.idle:
		return c, nil
	default:
		return nftables.New(nftables.AsLasting())
	}
}

// keep puts a socket aside for the next batch. Closing one is slow after a removal: the kernel then waits for what it has
// still to free, some ten milliseconds.
func (t *Table) keep(c *nftables.Conn) {
	select {
	case t.idle <- c:
	default:
		discard(c)
	}
}

func discard(c *nftables.Conn) {
	go c.CloseLasting() // ends when the kernel has freed what was removed
}

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

// Batch collects changes to one table; Commit sends them as one transaction. Mistakes on the way show in Commit.
type Batch struct {
	owner *Table
	table *nftables.Table
	ops   []func(*nftables.Conn) error
	rules map[string][]string // comments by chain, as added
}

func (t *Table) table() *nftables.Table {
	return &nftables.Table{Name: t.Name, Family: nftables.TableFamilyINet}
}

// Begin starts a batch.
func (t *Table) Begin() *Batch {
	return &Batch{owner: t, table: t.table(), rules: map[string][]string{}}
}

func (b *Batch) add(op func(*nftables.Conn)) {
	b.ops = append(b.ops, func(c *nftables.Conn) error { op(c); return nil })
}

// AddTable makes the table when there is none.
func (b *Batch) AddTable() { b.add(func(c *nftables.Conn) { c.AddTable(b.table) }) }

// DeleteTable removes the table and all in it.
func (b *Batch) DeleteTable() { b.add(func(c *nftables.Conn) { c.DelTable(b.table) }) }

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
	b.add(func(conn *nftables.Conn) { conn.AddChain(c) })
}

// FlushChain removes the rules of a chain.
func (b *Batch) FlushChain(name string) {
	b.add(func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Name: name, Table: b.table}) })
}

// AddRule appends a rule; the comment shows in `nft list`.
func (b *Batch) AddRule(chain, comment string, parts ...Part) {
	r := &nftables.Rule{Table: b.table, Chain: &nftables.Chain{Name: chain, Table: b.table}}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	r.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	b.rules[chain] = append(b.rules[chain], comment)
	b.add(func(c *nftables.Conn) { c.AddRule(r) })
}

// AddSet makes a set or map when there is none; its elements stay.
func (b *Batch) AddSet(s Set) {
	b.ops = append(b.ops, func(c *nftables.Conn) error { return c.AddSet(s.set(b.table), nil) })
}

// Add puts elements in; one that is there already with the same value is success.
func (b *Batch) Add(s Set, es []Element) { b.each(s, es, (*nftables.Conn).SetAddElements) }

// Remove takes elements out; one that is not there makes Commit fail with ENOENT.
func (b *Batch) Remove(s Set, es []Element) { b.each(s, es, (*nftables.Conn).SetDeleteElements) }

func (b *Batch) each(s Set, es []Element, f func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) {
	for len(es) > 0 {
		n := min(len(es), maxPerMessage)
		list := make([]nftables.SetElement, n)
		for i, e := range es[:n] {
			list[i] = nftables.SetElement{Key: e.Key, KeyEnd: e.KeyEnd, Val: e.Value, Comment: e.Comment}
		}
		b.ops = append(b.ops, func(c *nftables.Conn) error { return f(c, s.set(b.table), list) })
		es = es[n:]
	}
}

// Commit sends the batch. A socket on which anything went wrong is not used again.
func (b *Batch) Commit() error {
	c, err := b.owner.dial()
	if err != nil {
		return fmt.Errorf("open nft socket: %w", err)
	}
	for _, op := range b.ops {
		if err = op(c); err != nil {
			break
		}
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		discard(c)
		return fmt.Errorf("nft transaction on table %s: %w", b.table.Name, err)
	}
	b.owner.keep(c)
	return nil
}

// Elements reads a set; a table or set that does not exist has none.
func (t *Table) Elements(s Set) ([]Element, error) {
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

// Holds reports whether each chain that b adds rules to has exactly those rules now, going by their comments. b is not sent.
func (t *Table) Holds(b *Batch) (bool, error) {
	if ok, err := t.Exists(); err != nil || !ok {
		return false, err
	}
	for chain, want := range b.rules {
		rules, err := (&nftables.Conn{}).GetRules(t.table(), &nftables.Chain{Name: chain, Table: t.table()})
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("list rules of %s: %w", chain, err)
		}
		var have []string
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			have = append(have, comment)
		}
		if !slices.Equal(have, want) {
			return false, nil
		}
	}
	return true, nil
}

// Exists reports whether the table is there.
func (t *Table) Exists() (bool, error) {
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
func (t *Table) DroppingForward() ([]string, error) {
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
