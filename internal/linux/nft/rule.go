package nft

import (
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Part is a piece of a rule: a condition or, at the end, an action.
type Part []expr.Any

// reg is the number of the n-th 32-bit register as the kernel counts them; registers of 16 bytes are 1 (= reg(0)), 2 (= reg(4)).
func reg(n int) uint32 { return uint32(unix.NFT_REG32_00 + n) }

func lookup(set string, not bool) *expr.Lookup {
	return &expr.Lookup{SourceRegister: reg(0), SetName: set, Invert: not}
}

func equal(b []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: b} }

// InSet: the packet came in by a device in the set.
func InSet(set string) Part {
	return Part{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)}, lookup(set, false)}
}

// OutSet: the packet leaves by a device in the set.
func OutSet(set string) Part {
	return Part{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg(0)}, lookup(set, false)}
}

// OutNotSet: the packet leaves by a device not in the set.
func OutNotSet(set string) Part {
	return Part{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg(0)}, lookup(set, true)}
}

// InOutSet: the pair of devices is in the set.
func InOutSet(set string) Part {
	return Part{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg(4)},
		lookup(set, false),
	}
}

// HomeSet: the pair of the device that the packet leaves by and its source address is in the set.
func HomeSet(set string, v6 bool) Part {
	off, size := uint32(12), uint32(4)
	if v6 {
		off, size = 8, 16
	}
	return append(family(v6), &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg(0)}, header(off, size, 4), lookup(set, false))
}

// Established: connection tracking knows the packet's connection, or one that it is related to.
func Established() Part {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// Translated: the connection's destination was rewritten (a published port).
func Translated() Part { return ctBits(expr.CtKeySTATUS, 1<<5) } // IPS_DST_NAT

func ctBits(key expr.CtKey, mask uint32) Part {
	return Part{
		&expr.Ct{Key: key, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: make([]byte, 4)},
	}
}

// ToLocal: the destination is an address of this host.
func ToLocal() Part {
	return Part{
		&expr.Fib{Register: reg(0), ResultADDRTYPE: true, FlagDADDR: true},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

func family(v6 bool) Part {
	p := byte(unix.NFPROTO_IPV4)
	if v6 {
		p = unix.NFPROTO_IPV6
	}
	return Part{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg(0)}, equal([]byte{p})}
}

func header(off, n uint32, dst int) *expr.Payload {
	return &expr.Payload{DestRegister: reg(dst), Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: n}
}

// FromLoopback4: the source is in 127.0.0.0/8.
func FromLoopback4() Part { return append(family(false), header(12, 1, 0), equal([]byte{127})) }

// ToLoopback4: the destination is in 127.0.0.0/8.
func ToLoopback4() Part { return append(family(false), header(16, 1, 0), equal([]byte{127})) }

// ToLoopback6: the destination is ::1.
func ToLoopback6() Part {
	return append(family(true), header(24, 16, 0), equal(netip.IPv6Loopback().AsSlice()))
}

// Accept ends the table's judgement; other tables may still drop.
func Accept() Part { return Part{&expr.Verdict{Kind: expr.VerdictAccept}} }

// Drop ends everybody's judgement.
func Drop() Part { return Part{&expr.Verdict{Kind: expr.VerdictDrop}} }

// Jump goes to another chain and comes back when that has not decided.
func Jump(chain string) Part { return Part{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

// Masquerade gives the connection the source address of the device it leaves by.
func Masquerade() Part { return Part{&expr.Masq{}} }

// Forward sends the connection where the map says. The map's key is Proto, Port (withAddr: preceded by the destination
// address), its value an address and a port.
func Forward(m Set, v6, withAddr bool) Part {
	p := family(v6)
	next, words, nat := 0, 1, uint32(unix.NFPROTO_IPV4)
	off, size := uint32(16), uint32(4)
	if v6 {
		words, nat, off, size = 4, unix.NFPROTO_IPV6, 24, 16
	}
	if withAddr {
		p = append(p, header(off, size, 0))
		next = words
	}
	return append(p,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(next)},
		&expr.Payload{DestRegister: reg(next + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg(0), DestRegister: reg(0), IsDestRegSet: true, SetName: m.Name},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: nat, RegAddrMin: reg(0), RegProtoMin: reg(words)},
	)
}
