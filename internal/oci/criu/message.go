package criu

import (
	"encoding/binary"
	"fmt"
)

// Message is a protocol buffer under construction: fields are appended. Its zero value is an empty message.
type Message struct{ b []byte }

// The wire types of protocol buffers (protobuf.dev/programming-guides/encoding).
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// Int appends a number; negative ones take ten bytes, as int32 does.
func (m *Message) Int(f Field, v int64) {
	m.b = binary.AppendUvarint(m.b, uint64(f)<<3|wireVarint)
	m.b = binary.AppendUvarint(m.b, uint64(v))
}

// Bool appends a truth value; false is the default and left out.
func (m *Message) Bool(f Field, v bool) {
	if v {
		m.Int(f, 1)
	}
}

// Text appends a string; an empty one is left out.
func (m *Message) Text(f Field, s string) {
	if s != "" {
		m.bytes(f, []byte(s))
	}
}

// Sub appends a message within the message.
func (m *Message) Sub(f Field, sub Message) { m.bytes(f, sub.b) }

func (m *Message) bytes(f Field, b []byte) {
	m.b = binary.AppendUvarint(m.b, uint64(f)<<3|wireBytes)
	m.b = binary.AppendUvarint(m.b, uint64(len(b)))
	m.b = append(m.b, b...)
}

// value is one field of a message that was read: num of a number, data of a string or message.
type value struct {
	field Field
	num   uint64
	data  []byte
}

// decode takes a message apart. Every length is checked against what is there.
func decode(b []byte) ([]value, error) {
	var out []value
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 || key>>3 == 0 || key>>3 > 1<<28 {
			return nil, errMalformed
		}
		b = b[n:]
		v := value{field: Field(key >> 3)}
		switch key & 7 {
		case wireVarint:
			if v.num, n = binary.Uvarint(b); n <= 0 {
				return nil, errMalformed
			}
			b = b[n:]
		case wireFixed64, wireFixed32:
			size := 8
			if key&7 == wireFixed32 {
				size = 4
			}
			if len(b) < size {
				return nil, errMalformed
			}
			b = b[size:]
		case wireBytes:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return nil, errMalformed
			}
			v.data = b[n : n+int(size)]
			b = b[n+int(size):]
		default:
			return nil, errMalformed
		}
		out = append(out, v)
	}
	return out, nil
}

var errMalformed = fmt.Errorf("malformed protocol buffer")
