package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEncode compares with what nft(8) itself writes (nft --debug=netlink).
func TestEncode(t *testing.T) {
	for _, c := range []struct {
		fields []Field
		parts  []any
		want   []byte
	}{
		{[]Field{Proto, Port}, []any{uint8(6), uint16(8080)}, []byte{6, 0, 0, 0, 0x1f, 0x90, 0, 0}},
		{[]Field{Addr4, Proto, Port}, []any{netip.MustParseAddr("127.0.0.1"), uint8(17), uint16(53)}, []byte{127, 0, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0}},
		{[]Field{Addr6, Port}, []any{netip.MustParseAddr("fd00::2"), uint16(80)}, []byte{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 80, 0, 0}},
		{[]Field{Name}, []any{"dhow0"}, []byte{'d', 'h', 'o', 'w', '0', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		got := Encode(c.parts...)
		if !bytes.Equal(got, c.want) {
			t.Errorf("%v: % x, want % x", c.parts, got, c.want)
		}
		if back, err := Decode(c.fields, got); err != nil || !reflect.DeepEqual(back, c.parts) {
			t.Errorf("back: %v, %v; want %v", back, err, c.parts)
		}
		if _, err := Decode(c.fields, got[:len(got)-1]); err == nil {
			t.Errorf("%v: a short element was taken", c.parts)
		}
	}
}

func TestRemoval(t *testing.T) {
	msg := func(kind uint16, extra int) []byte {
		b := make([]byte, unix.SizeofNlMsghdr+extra)
		binary.NativeEndian.PutUint32(b, uint32(len(b)))
		binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_NFTABLES<<8|kind)
		return b
	}
	added := msg(unix.NFT_MSG_NEWRULE, 8)
	if removal(added) || !removal(append(added, msg(unix.NFT_MSG_DELTABLE, 4)...)) {
		t.Error("a removal behind an addition is one, an addition is none")
	}
	for _, bad := range [][]byte{nil, make([]byte, 15), make([]byte, 16), {255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if removal(bad) {
			t.Errorf("% x", bad)
		}
	}
}
