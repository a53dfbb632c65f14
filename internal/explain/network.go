package explain

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/linux/nft"
	netplan "github.com/dhow-containers/dhow/internal/network/plan"
)

// networkSection compares links, addresses, routes and sysctls with the network plan.
func networkSection(v *view) Section {
	s := Section{Name: "network", Title: "Network"}
	if v.wantNamespace(nsKind{"net", specs.NetworkNamespace}) == hostNamespace {
		s.add(Row{What: "host", Asked: v.why("linux.namespaces network"), Planned: "the host's network as it is"})
		return s
	}
	plan := v.Network
	if plan == nil {
		plan = &netplan.Plan{}
	}
	var inside stack
	if v.Pid > 0 {
		ns, err := netlink.OpenNetns(v.Pid)
		if err == nil {
			defer ns.Close()
			inside, err = readStack(ns)
		}
		if err != nil {
			s.add(Row{What: "inside", Note: fmt.Sprintf("not read: %v", err)})
		}
		v.hostLinks(&s, plan)
		inside.compare(&s, plan)
		v.sysctls(&s, ns, plan)
		return s
	}
	inside.compare(&s, plan)
	v.hostLinks(&s, plan)
	v.sysctls(&s, nil, plan)
	return s
}

// stack is what a network namespace holds.
type stack struct {
	known  bool
	links  []netlink.Link
	addrs  map[string][]netip.Prefix // by link
	routes []netlink.Route
}

func readStack(ns *os.File) (stack, error) {
	h, err := netlink.OpenAt(ns)
	if err != nil {
		return stack{}, err
	}
	defer h.Close()
	k := stack{addrs: map[string][]netip.Prefix{}}
	if k.links, err = h.Links(); err != nil {
		return stack{}, err
	}
	for _, l := range k.links {
		if k.addrs[l.Name], err = h.Addrs(l.Index); err != nil {
			return stack{}, err
		}
	}
	if k.routes, err = h.Main(); err != nil {
		return stack{}, err
	}
	k.known = true
	return k, nil
}

// missing fills in a row whose object is not there.
func (k *stack) missing(r *Row) {
	if k.known {
		r.Kernel, r.Differs = "missing", true
	}
}

func (k *stack) compare(s *Section, p *netplan.Plan) {
	k.compareLinks(s, p)
	k.compareAddrs(s, p)
	for _, r := range p.Routes {
		row := Row{What: "route " + dst(r.Dst), Asked: flagged(r.Why), Planned: fmt.Sprintf("via %s on %s", r.Via, r.Link)}
		k.missing(&row)
		for _, x := range k.routes {
			if x.Dst == r.Dst && k.name(x.Index) == r.Link {
				row.Kernel = fmt.Sprintf("via %s on %s", x.Via, r.Link)
				row.Differs = x.Via != r.Via
			}
		}
		s.add(row)
	}
}

func (k *stack) compareLinks(s *Section, p *netplan.Plan) {
	for _, l := range p.Links {
		row := Row{What: "link " + l.Peer, Asked: flagged(l.Why), Planned: fmt.Sprintf("%s mtu %d up", l.MAC, l.MTU)}
		k.missing(&row)
		for _, x := range k.links {
			if x.Name == l.Peer {
				row.Kernel = fmt.Sprintf("%s mtu %d %s", x.MAC, x.MTU, upDown(x.Up))
				row.Differs = row.Kernel != row.Planned
			}
		}
		s.add(row)
	}
	for _, x := range k.links {
		if slices.ContainsFunc(p.Links, func(l netplan.Link) bool { return l.Peer == x.Name }) {
			continue
		}
		row := Row{What: "link " + x.Name, Asked: "default", Kernel: fmt.Sprintf("mtu %d %s", x.MTU, upDown(x.Up))}
		if x.Name != "lo" {
			row.Asked, row.Differs, row.Note = "", true, "nobody asked for this link"
		}
		s.add(row)
	}
}

func (k *stack) compareAddrs(s *Section, p *netplan.Plan) {
	planned := map[string]bool{}
	for _, a := range p.Addrs {
		planned[a.Link+" "+a.Prefix.String()] = true
		row := Row{What: "address on " + a.Link, Asked: flagged(a.Why), Planned: a.Prefix.String()}
		k.missing(&row)
		if slices.Contains(k.addrs[a.Link], a.Prefix) {
			row.Kernel, row.Differs = row.Planned, false
		}
		s.add(row)
	}
	for _, l := range k.links {
		for _, a := range k.addrs[l.Name] {
			if planned[l.Name+" "+a.String()] || a.Addr().IsLoopback() || a.Addr().IsLinkLocalUnicast() {
				continue
			}
			s.add(Row{What: "address on " + l.Name, Kernel: a.String(), Differs: true, Note: "nobody asked for this address"})
		}
	}
}

func (k *stack) name(index int) string {
	for _, l := range k.links {
		if l.Index == index {
			return l.Name
		}
	}
	return strconv.Itoa(index)
}

func dst(p netip.Prefix) string {
	if p.Bits() == 0 {
		if p.Addr().Is6() {
			return "default (IPv6)"
		}
		return "default"
	}
	return p.String()
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// flagged writes the plan's reasons as the specification's are written.
func flagged(why string) string {
	if strings.HasPrefix(why, "-") {
		return "flag " + why
	}
	return why
}

// hostLinks shows the host's end of each pair and the bridge that it is a port of.
func (v *view) hostLinks(s *Section, p *netplan.Plan) {
	if len(p.Links) == 0 {
		return
	}
	h, err := netlink.Open()
	if err != nil {
		s.add(Row{What: "host's links", Note: fmt.Sprintf("not read: %v", err)})
		return
	}
	defer h.Close()
	all, err := h.Links()
	if err != nil {
		s.add(Row{What: "host's links", Note: fmt.Sprintf("not read: %v", err)})
		return
	}
	for _, l := range p.Links {
		row := Row{What: "host link " + l.Name, Asked: flagged(l.Why), Planned: "port of " + l.Bridge + " up"}
		if v.Pid > 0 {
			row.Kernel, row.Differs = "missing", true
		}
		for _, x := range all {
			if x.Name != l.Name {
				continue
			}
			master := "no bridge"
			for _, b := range all {
				if b.Index == x.Master {
					master = b.Name
				}
			}
			row.Kernel = "port of " + master + " " + upDown(x.Up)
			row.Differs = row.Kernel != row.Planned
		}
		s.add(row)
	}
}

// sysctls compares those of the network namespace; those of other namespaces show only to their own members.
func (v *view) sysctls(s *Section, ns *os.File, p *netplan.Plan) {
	type key struct{ name, value, why string }
	var list []key
	for _, x := range p.Sysctls {
		list = append(list, key{strings.ReplaceAll(x.Key, "/", "."), x.Value, flagged(x.Why)})
	}
	if v.Spec.Linux != nil {
		for _, k := range sortedKeys(v.Spec.Linux.Sysctl) {
			list = append(list, key{k, v.Spec.Linux.Sysctl[k], v.why("linux.sysctl " + k)})
		}
	}
	values, errs := map[string]string{}, map[string]error{}
	if ns != nil {
		// One thread for all: it cannot be used for anything else afterwards.
		err := netlink.Inside(ns, func() error {
			for _, k := range list {
				if strings.HasPrefix(k.name, "net.") {
					b, err := read("/proc/sys/"+strings.ReplaceAll(k.name, ".", "/"), maxProc)
					values[k.name], errs[k.name] = strings.Join(strings.Fields(string(b)), " "), err
				}
			}
			return nil
		})
		if err != nil {
			s.add(Row{What: "sysctls", Note: fmt.Sprintf("not read: %v", err)})
			ns = nil
		}
	}
	for _, k := range list {
		row := Row{What: k.name, Asked: k.why, Planned: k.value}
		switch {
		case ns == nil:
		case !strings.HasPrefix(k.name, "net."):
			row.Note = "only processes of its namespace can read it"
		case errs[k.name] != nil:
			row.Note = fmt.Sprintf("not read: %v", errs[k.name])
		default:
			row.Kernel = values[k.name]
			row.Differs = row.Kernel != strings.Join(strings.Fields(k.value), " ")
		}
		s.add(row)
	}
}

// publishing describes the map of published ports that an element belongs to.
func publishing(name string) nft.Set {
	addr := nft.Addr4
	if name == netplan.Publish6 || name == netplan.Publish6Addr {
		addr = nft.Addr6
	}
	key := []nft.Field{nft.Proto, nft.Port}
	if name == netplan.Publish4Addr || name == netplan.Publish6Addr {
		key = append([]nft.Field{addr}, key...)
	}
	return nft.Set{Name: name, Key: key, Value: []nft.Field{addr, nft.Port}}
}

// portsSection compares published ports with the elements on the host, and shows who listens inside.
func portsSection(v *view) Section {
	s := Section{Name: "ports", Title: "Ports"}
	if v.wantNamespace(nsKind{"net", specs.NetworkNamespace}) == hostNamespace {
		return s
	}
	if v.Network == nil {
		for _, p := range v.Published {
			s.add(Row{What: p.Port, Asked: p.Why, Planned: strings.TrimSpace("host port " + p.Host)})
		}
	}
	listening, err := v.listeners()
	if v.Network != nil && len(v.Network.Elements) > 0 {
		t := nft.Open(v.Table)
		defer t.Close()
		for _, e := range v.Network.Elements {
			v.published(&s, t, e, listening, err == nil)
		}
	}
	if err != nil && v.Pid > 0 {
		s.add(Row{What: "listening", Note: fmt.Sprintf("not read: %v", err)})
	}
	for _, l := range listening {
		s.add(Row{What: "listening", Kernel: l.String()})
	}
	return s
}

func (v *view) published(s *Section, t *nft.Table, e netplan.Element, listening []listener, known bool) {
	proto := netplan.ProtoName(e.Proto)
	row := Row{
		What: fmt.Sprintf("%s/%s", netip.AddrPortFrom(e.HostIP, e.HostPort), proto), Asked: flagged(e.Why),
		Planned: fmt.Sprintf("%s -> %s", e.Map, e.To),
	}
	defer func() { s.add(row) }()
	if v.Pid == 0 {
		return
	}
	set := publishing(e.Map)
	have, err := t.Elements(set)
	if err != nil {
		row.Note = fmt.Sprintf("not read: %v", err)
		return
	}
	key := nft.Encode(e.Proto, e.HostPort)
	if len(set.Key) == 3 {
		key = nft.Encode(e.HostIP, e.Proto, e.HostPort)
	}
	row.Kernel, row.Differs = "no such element", true
	for _, x := range have {
		if !bytes.Equal(x.Key, key) {
			continue
		}
		if to, err := nft.Decode(set.Value, x.Value); err == nil {
			row.Kernel = fmt.Sprintf("%s -> %s", e.Map, netip.AddrPortFrom(to[0].(netip.Addr), to[1].(uint16)))
		}
		row.Differs = !bytes.Equal(x.Value, nft.Encode(e.To.Addr(), e.To.Port()))
	}
	if known && e.Proto != netplan.SCTP && !slices.ContainsFunc(listening, func(l listener) bool { return l.reached(proto, e.To) }) {
		row.Note = fmt.Sprintf("nothing inside listens on port %d/%s", e.To.Port(), proto)
	}
}
