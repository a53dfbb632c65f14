package ipam

import (
	"net/netip"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

func TestPoolFillsAndEmpties(t *testing.T) {
	p := New(Subnet{Prefix: pfx("10.0.0.0/29"), Gateway: ip("10.0.0.1"), Reserved: []netip.Addr{ip("10.0.0.4")}})
	var got []netip.Addr
	for range 4 {
		a, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}
	want := []netip.Addr{ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.5"), ip("10.0.0.6")}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("address %d: %s, want %s", i, got[i], want[i])
		}
	}
	if a, err := p.Take(); !errdef.Is(err, errdef.Unavailable) {
		t.Errorf("full pool gave %s, %v", a, err)
	}
	p.Release(ip("10.0.0.1")) // the gateway is not to be had
	p.Release(ip("10.0.0.4"))
	p.Release(ip("10.0.0.3"))
	if a, err := p.Take(); err != nil || a != ip("10.0.0.3") {
		t.Errorf("got %s, %v", a, err)
	}
}

func TestReleasedComesLast(t *testing.T) {
	p := New(Subnet{Prefix: pfx("10.0.0.0/28"), Gateway: ip("10.0.0.1")})
	a, _ := p.Take()
	p.Release(a)
	for range 12 {
		b, err := p.Take()
		if err != nil || b == a {
			t.Fatalf("%s given out again before the others (%v)", b, err)
		}
	}
	if b, err := p.Take(); err != nil || b != a {
		t.Errorf("got %s, %v; want %s", b, err, a)
	}
}

func TestRangeAndClaim(t *testing.T) {
	p := New(Subnet{Prefix: pfx("10.0.0.0/24"), Range: pfx("10.0.0.128/30"), Gateway: ip("10.0.0.1")})
	if a, _ := p.Take(); a != ip("10.0.0.128") {
		t.Errorf("first of the range: %s", a)
	}
	for addr, kind := range map[string]errdef.Kind{"10.0.0.0": errdef.InvalidArgument, "10.0.0.255": errdef.InvalidArgument, "10.0.1.1": errdef.InvalidArgument, "10.0.0.1": errdef.Conflict, "10.0.0.128": errdef.Conflict} {
		if err := p.Claim(ip(addr)); !errdef.Is(err, kind) {
			t.Errorf("claim %s: %v", addr, err)
		}
	}
	if err := p.Claim(ip("10.0.0.9")); err != nil {
		t.Error(err)
	}
}

func TestIPv6Pool(t *testing.T) {
	p := New(Subnet{Prefix: pfx("fd00::/64"), Gateway: ip("fd00::1")})
	if a, err := p.Take(); err != nil || a != ip("fd00::2") {
		t.Errorf("got %s, %v", a, err)
	}
	p = New(Subnet{Prefix: pfx("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126"), Gateway: ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd")})
	for range 2 { // up to the last address there is, and round
		if _, err := p.Take(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Take(); err == nil {
		t.Error("a third of two")
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		s  Subnet
		ok bool
	}{
		{Subnet{Prefix: pfx("10.0.0.0/24"), Gateway: ip("10.0.0.1")}, true},
		{Subnet{Prefix: pfx("10.0.0.0/30"), Gateway: ip("10.0.0.2")}, true},
		{Subnet{Prefix: pfx("10.0.0.1/24"), Gateway: ip("10.0.0.1")}, false},
		{Subnet{Prefix: pfx("10.0.0.0/31"), Gateway: ip("10.0.0.1")}, false},
		{Subnet{Prefix: pfx("10.0.0.0/24"), Gateway: ip("10.0.0.255")}, false},
		{Subnet{Prefix: pfx("10.0.0.0/24"), Gateway: ip("10.0.1.1")}, false},
		{Subnet{Prefix: pfx("10.0.0.0/24")}, false},
		{Subnet{}, false},
		{Subnet{Prefix: pfx("127.0.0.0/8"), Gateway: ip("127.0.0.1")}, false},
		{Subnet{Prefix: pfx("224.0.0.0/24"), Gateway: ip("224.0.0.1")}, false},
		{Subnet{Prefix: pfx("10.0.0.0/24"), Gateway: ip("10.0.0.1"), Range: pfx("10.0.1.0/25")}, false},
		{Subnet{Prefix: pfx("10.0.0.0/24"), Gateway: ip("10.0.0.1"), Range: pfx("10.0.0.0/16")}, false},
		{Subnet{Prefix: pfx("10.0.0.0/24"), Gateway: ip("10.0.0.1"), Reserved: []netip.Addr{ip("1.1.1.1")}}, false},
	} {
		if err := c.s.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
}

func TestFreeSubnet(t *testing.T) {
	for _, c := range []struct {
		taken []netip.Prefix
		want  string
	}{
		{nil, "172.17.0.0/16"},
		{[]netip.Prefix{pfx("172.17.3.0/24")}, "172.18.0.0/16"},
		{[]netip.Prefix{pfx("172.16.0.0/12")}, "192.168.0.0/20"},
		{[]netip.Prefix{pfx("172.16.0.0/12"), pfx("192.168.0.0/17")}, "192.168.128.0/20"},
	} {
		if got, err := FreeSubnet(DefaultBlocks(), c.taken); err != nil || got.String() != c.want {
			t.Errorf("%v: %s, %v; want %s", c.taken, got, err, c.want)
		}
	}
	if _, err := FreeSubnet(DefaultBlocks(), []netip.Prefix{pfx("0.0.0.0/0")}); !errdef.Is(err, errdef.Unavailable) {
		t.Error(err)
	}
	ula, err := ULA([5]byte{1, 2, 3, 4, 5})
	if err != nil || ula.String() != "fd01:203:405::/48" {
		t.Error(ula, err)
	}
	if got, _ := FreeSubnet([]Block{{ula, 64}}, []netip.Prefix{pfx("fd01:203:405::/64")}); got.String() != "fd01:203:405:1::/64" {
		t.Error(got)
	}
}
