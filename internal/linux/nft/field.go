package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// Field is the type of one part of a key or value; parts are concatenated, each padded to four bytes.
type Field int

// The field types: how Encode takes them is in brackets.
const (
	Addr4 Field = iota // an IPv4 address (netip.Addr)
	Addr6              // an IPv6 address (netip.Addr)
	Proto              // IPPROTO_* (uint8)
	Port               // a port (uint16)
	Name               // an interface name (string)
)

func (f Field) datatype() nftables.SetDatatype {
	switch f {
	case Addr4:
		return nftables.TypeIPAddr
	case Addr6:
		return nftables.TypeIP6Addr
	case Proto:
		return nftables.TypeInetProto
	case Port:
		return nftables.TypeInetService
	}
	return nftables.TypeIFName
}

// width is the padded size in bytes.
func (f Field) width() int { return int(f.datatype().Bytes+3) / 4 * 4 }

func concat(fs []Field) nftables.SetDatatype {
	if len(fs) == 1 {
		return fs[0].datatype()
	}
	types := make([]nftables.SetDatatype, len(fs))
	for i, f := range fs {
		types[i] = f.datatype()
	}
	t, err := nftables.ConcatSetType(types...)
	if err != nil {
		panic(err) // more than five fields: a mistake of the program, found by any test
	}
	return t
}

func (s Set) set(t *nftables.Table) *nftables.Set {
	out := &nftables.Set{Table: t, Name: s.Name, KeyType: concat(s.Key), Concatenation: len(s.Key) > 1, Interval: s.Ranges}
	if len(s.Key) == 1 && s.Key[0] == Name {
		out.KeyByteOrder = binaryutil.NativeEndian // for the eyes of nft only
	}
	if len(s.Value) > 0 {
		out.IsMap, out.DataType = true, concat(s.Value)
	}
	return out
}

// Encode lays out parts in the kernel's form.
func Encode(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case netip.Addr:
			b = append(b, p.AsSlice()...)
		case uint8:
			b = append(b, p, 0, 0, 0)
		case uint16:
			b = append(binary.BigEndian.AppendUint16(b, p), 0, 0)
		case string:
			b = append(b, ifname(p)...)
		default:
			panic(fmt.Sprintf("nft: cannot encode %T", p)) // a mistake of the program
		}
	}
	return b
}

// ifname pads an interface name to IFNAMSIZ.
func ifname(s string) []byte {
	var b [16]byte
	copy(b[:15], s)
	return b[:]
}

// Decode is the inverse of Encode for fields fs.
func Decode(fs []Field, b []byte) ([]any, error) {
	var out []any
	for _, f := range fs {
		w := f.width()
		if len(b) < w {
			return nil, fmt.Errorf("decode set element: %d bytes left, want %d", len(b), w)
		}
		switch f {
		case Addr4, Addr6:
			a, _ := netip.AddrFromSlice(b[:w])
			out = append(out, a)
		case Proto:
			out = append(out, b[0])
		case Port:
			out = append(out, binary.BigEndian.Uint16(b))
		case Name:
			n := 0
			for n < 16 && b[n] != 0 {
				n++
			}
			out = append(out, string(b[:n]))
		}
		b = b[w:]
	}
	return out, nil
}
