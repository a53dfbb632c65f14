package systemd

import (
	"encoding/binary"
	"math"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// The kinds of message, and the header's fields (D-Bus Specification, Message Protocol).
const (
	methodCall   = 1
	methodReturn = 2
	methodError  = 3
	signalKind   = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldError       = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// maxMessage bounds what we take from a peer: the answers we want are a few hundred bytes.
const maxMessage = 1 << 20

// encoder marshals in little-endian order; alignment counts from the beginning of buf.
type encoder struct{ buf []byte }

func (e *encoder) align(n int) {
	for len(e.buf)%n != 0 {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) byte(b byte) { e.buf = append(e.buf, b) }

func (e *encoder) u16(v uint16) {
	e.align(2)
	e.buf = binary.LittleEndian.AppendUint16(e.buf, v)
}

func (e *encoder) u32(v uint32) {
	e.align(4)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, v)
}

func (e *encoder) u64(v uint64) {
	e.align(8)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, v)
}

func (e *encoder) str(s string) {
	e.u32(uint32(len(s)))
	e.buf = append(append(e.buf, s...), 0)
}

func (e *encoder) signature(s string) {
	e.byte(byte(len(s)))
	e.buf = append(append(e.buf, s...), 0)
}

// array writes what items writes as an array whose elements are aligned to n; the length leaves out the padding before the first.
func (e *encoder) array(n int, items func()) {
	e.u32(0)
	at := len(e.buf) - 4
	e.align(n)
	start := len(e.buf)
	items()
	binary.LittleEndian.PutUint32(e.buf[at:], uint32(len(e.buf)-start))
}

// value writes a property's value; false if it is of no known type.
func (e *encoder) value(v any) bool {
	switch v := v.(type) {
	case bool:
		var n uint32
		if v {
			n = 1
		}
		e.u32(n)
	case byte:
		e.byte(v)
	case int16:
		e.u16(uint16(v))
	case uint16:
		e.u16(v)
	case int32:
		e.u32(uint32(v))
	case uint32:
		e.u32(v)
	case int64:
		e.u64(uint64(v))
	case uint64:
		e.u64(v)
	case float64:
		e.u64(math.Float64bits(v))
	case string:
		e.str(v)
	default:
		return e.many(v)
	}
	return true
}

func (e *encoder) many(v any) bool {
	ok := true
	switch v := v.(type) {
	case []byte:
		e.array(1, func() { e.buf = append(e.buf, v...) })
	case []uint32:
		e.array(4, func() {
			for _, n := range v {
				e.u32(n)
			}
		})
	case [][2]string:
		e.array(8, func() {
			for _, pair := range v {
				e.align(8)
				e.str(pair[0])
				e.str(pair[1])
			}
		})
	case plan.Array:
		n := 1
		if len(v) > 0 {
			n = alignment(v[0])
		}
		e.array(n, func() {
			for _, item := range v {
				ok = ok && e.value(item)
			}
		})
	default:
		return false
	}
	return ok
}

func alignment(v any) int {
	switch v.(type) {
	case byte:
		return 1
	case int16, uint16:
		return 2
	case int64, uint64, float64:
		return 8
	}
	return 4
}

// properties writes a(sv).
func (e *encoder) properties(list []plan.Property) bool {
	ok := true
	e.array(8, func() {
		for _, p := range list {
			e.align(8)
			e.str(p.Name)
			e.signature(p.Type)
			ok = ok && e.value(p.Value)
		}
	})
	return ok
}

// call is a method call: its addressee and the marshalled arguments.
type call struct {
	dest, path, iface, member string
	sig                       string
	body                      []byte
}

func (c *call) encode(serial uint32) []byte {
	var e encoder
	e.buf = append(e.buf, 'l', methodCall, 0, 1)
	e.u32(uint32(len(c.body)))
	e.u32(serial)
	e.array(8, func() {
		field := func(code byte, sig, value string) {
			e.align(8)
			e.byte(code)
			e.signature(sig)
			if sig == "g" {
				e.signature(value)
			} else {
				e.str(value)
			}
		}
		field(fieldPath, "o", c.path)
		field(fieldInterface, "s", c.iface)
		field(fieldMember, "s", c.member)
		field(fieldDestination, "s", c.dest)
		if c.sig != "" {
			field(fieldSignature, "g", c.sig)
		}
	})
	e.align(8)
	return append(e.buf, c.body...)
}

// message is what we understand of a message received.
type message struct {
	kind        byte
	replySerial uint32
	member      string
	errorName   string
	signature   string
	body        decoder
}

// decoder unmarshals; after the first thing that does not fit, bad is set and all values are zero.
type decoder struct {
	buf   []byte
	at    int
	order binary.ByteOrder
	bad   bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.buf)-d.at {
		d.bad = true
		return nil
	}
	b := d.buf[d.at : d.at+n]
	d.at += n
	return b
}

func (d *decoder) align(n int) { d.take((n - d.at%n) % n) }

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return d.order.Uint32(b)
	}
	return 0
}

func (d *decoder) str() string {
	n := d.u32()
	if n > maxMessage {
		d.bad = true
	}
	s := string(d.take(int(n)))
	d.take(1)
	return s
}

func (d *decoder) sign() string {
	s := string(d.take(int(d.byte())))
	d.take(1)
	return s
}

// sizes reads the fixed 16 bytes that begin a message and returns how many follow; false if they are none.
func sizes(head []byte) (int, bool) {
	d := decoder{buf: head, order: orderOf(head[0])}
	if d.order == nil || head[3] != 1 {
		return 0, false
	}
	d.at = 4
	body := d.u32()
	d.at = 12
	fields := d.u32()
	if d.bad || body > maxMessage || fields > maxMessage {
		return 0, false
	}
	return int(fields+7)/8*8 + int(body), true
}

func orderOf(b byte) binary.ByteOrder {
	switch b {
	case 'l':
		return binary.LittleEndian
	case 'B':
		return binary.BigEndian
	}
	return nil
}

// parse reads a whole message.
func parse(raw []byte) (message, bool) {
	var m message
	if len(raw) < 16 || orderOf(raw[0]) == nil {
		return m, false
	}
	d := decoder{buf: raw, order: orderOf(raw[0]), at: 4}
	m.kind = raw[1]
	bodyLen := int(d.u32())
	d.u32() // its serial
	end := int(d.u32()) + 16
	for d.at < end && !d.bad {
		d.align(8)
		code, sig := d.byte(), d.sign()
		switch sig {
		case "s", "o":
			s := d.str()
			switch code {
			case fieldMember:
				m.member = s
			case fieldError:
				m.errorName = s
			}
		case "g":
			if s := d.sign(); code == fieldSignature {
				m.signature = s
			}
		case "u":
			if n := d.u32(); code == fieldReplySerial {
				m.replySerial = n
			}
		default:
			return m, false
		}
	}
	d.align(8)
	if d.bad || bodyLen < 0 || len(raw)-d.at != bodyLen {
		return m, false
	}
	m.body = decoder{buf: raw[d.at:], order: d.order}
	return m, true
}
